"""The ladder of a search: what a rung costs, and the training runs ("legs") by which one trial climbs it.

A rung may cap the training attack's steps. Where the cap was in force and is lifted, a promoted
trial begins a new leg: it is trained afresh with the attack that the search chose, so that a
full-length result is the setting's own and anyone may repeat it with `rkdsearch train`.
(`scheduler.capped: continued` goes on from the checkpoint instead: cheaper, and the result has a
history of weaker attacks.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from rkdsearch.config import TrainConfig
from rkdsearch.config.fidelity import Fidelity
from rkdsearch.space.settings import Replicates, SchedulerConfig

_GOLDEN = (math.sqrt(5) - 1) / 2
# attack steps' worth of all else in a training step: measured 2.9 on digits, validation included
STEP_OVERHEAD = 3


@dataclass(frozen=True)
class Segment:
    """One training run of a trial, with the fidelities at which it is compared or ends."""

    fidelities: tuple[Fidelity, ...]

    @property
    def epochs(self) -> int:
        """Length of the training run."""
        return self.fidelities[-1].epochs

    def has(self, epochs: int) -> bool:
        """True where one of its fidelities has this length."""
        return any(fidelity.epochs == epochs for fidelity in self.fidelities)


def first_rung(scheduler: SchedulerConfig, number: int) -> int:
    """The rung, from 0, on which the searched trial of this number, from 0, begins: its bracket.

    The multiples of the golden ratio are as evenly spread as a sequence can be: any stretch of
    trials has each bracket's share, and nothing is drawn.
    """
    above = [scheduler.reduction**-bracket for bracket in range(1, scheduler.brackets)]
    return sum(((number + 1) * _GOLDEN) % 1 > 1 - share for share in above)


def segments(
    ladder: Sequence[Fidelity], scheduler: SchedulerConfig, attack_steps: int, first: int = 0
) -> tuple[Segment, ...]:
    """The runs of a trial whose training attack has so many steps, and which begins on the rung `first`; the last one ends at full length."""
    ladder = ladder[first:]
    if scheduler.name == "none":
        return (Segment(tuple(ladder[-1:])),)  # to full length, whatever stands on the way
    if scheduler.capped == "continued":
        return (Segment(tuple(ladder)),)
    return tuple(
        Segment(tuple(rungs))
        for _, rungs in groupby(ladder, key=lambda rung: _steps(rung, attack_steps))
    )


def _steps(rung: Fidelity, attack_steps: int) -> int:
    return (
        attack_steps
        if rung.training_attack_steps is None
        else min(rung.training_attack_steps, attack_steps)
    )


def faults(ladder: Sequence[Fidelity], scheduler: SchedulerConfig) -> str | None:
    """The law that the ladder breaks, or that its brackets break, if any."""
    lengths = [rung.epochs for rung in ladder]
    if lengths != sorted(set(lengths)):
        return f"ladder: epochs must increase, got {lengths}"
    for name in ("training_attack_steps", "validation_attack_steps", "validation_images"):
        values = [getattr(rung, name) for rung in ladder]
        if values[-1] is not None:
            return (
                "ladder: the last rung is the full run, judged by the whole exam: it must have no"
                f" {name}, got {values[-1]}; leave it out"
            )
        caps = [math.inf if value is None else value for value in values]
        if caps != sorted(caps):
            return f"ladder: {name} must not fall from rung to rung, got {values}"
    if scheduler.brackets > len(ladder):
        return (
            f"scheduler.brackets must be at most {len(ladder)}, one for each rung to begin on, got"
            f" {scheduler.brackets}"
        )
    return None


def costs(
    ladder: Sequence[Fidelity], scheduler: SchedulerConfig, attack_steps: int, first: int = 0
) -> list[float]:
    """What a trial that begins on the rung `first` spends to come to each rung, from the one before it, as a share of a full run."""
    full = ladder[-1].epochs * (attack_steps + STEP_OVERHEAD)
    found = [0.0] * first
    for segment in segments(ladder, scheduler, attack_steps, first):
        before = 0
        for rung in segment.fidelities:
            found.append(
                (rung.epochs - before) * (_steps(rung, attack_steps) + STEP_OVERHEAD) / full
            )
            before = rung.epochs
    return found


def lines(
    ladder: Sequence[Fidelity],
    scheduler: SchedulerConfig,
    replicates: Replicates,
    examples: Sequence[TrainConfig],
    *,
    trials: int | None,
    firsts: int,
) -> list[str]:
    """The ladder for people, before it starts: how many trials stand on each rung, and what the search costs in full runs, repeats included.

    `examples` are runs of the space, whose attacks are averaged over; `firsts` of the trials run to
    full length, whatever the scheduler says.
    """
    again = _again(replicates, firsts)
    if scheduler.name == "none":
        return [f"no scheduler: every trial runs to its {ladder[-1].epochs} epochs", *again]
    described = [_described(rung, ladder[-1].epochs) for rung in ladder]
    if trials is None:
        return described + again
    begin = [first_rung(scheduler, number) for number in range(trials - firsts)]
    full_runs, climbing, there, found = (
        firsts * sum(_mean_costs(ladder, scheduler, examples, 0)),
        0,
        0,
        [],
    )
    for rung, text in enumerate(described):
        new = begin.count(rung)
        # Whoever comes from below pays the step up, whoever begins here the whole way.
        full_runs += (
            climbing * _mean_costs(ladder, scheduler, examples, 0)[rung]
            + new * _mean_costs(ladder, scheduler, examples, rung)[rung]
        )
        there = climbing + new
        found.append(f"{text}, about {there} searched trials and {firsts} baselines")
        if rung < len(ladder) - 1:
            climbing = _going_on(scheduler, there, firsts)
    searched = f"{full_runs:.1f} for {trials} configurations ({scheduler.name}, {scheduler.kind})"
    if again:
        repeated = min(replicates.contenders, there + firsts) + (
            firsts if replicates.baselines else 0
        )
        repeats = replicates.seeds * min(repeated, there + firsts)
        found += [
            *again,
            (
                f"expected cost: about {full_runs + repeats:.1f} full runs: {searched} and up to"
                f" {repeats} for repeats"
            ),
        ]
    else:
        found.append(
            f"expected cost: about {full_runs:.1f} full runs for {trials} configurations"
            f" ({scheduler.name}, {scheduler.kind})"
        )
    if trials > firsts and not there:
        found.append(
            f"WARNING: no searched trial is likely to reach full length: {trials} configurations"
            f" are too few for {len(ladder)} rungs with a scheduler.reduction of"
            f" {scheduler.reduction}; ask for more, or lower it, or take a rung away"
        )
    return found


def _again(replicates: Replicates, firsts: int) -> list[str]:
    baselines = f" and the {firsts} baselines" if replicates.baselines and firsts else ""
    seeds = f"{replicates.seeds} fresh seed{'s' if replicates.seeds > 1 else ''} each"
    who = f"{replicates.contenders} contenders{baselines}"
    return [f"then up to {who} again, to full length, with {seeds}"] if replicates.seeds else []


def _going_on(scheduler: SchedulerConfig, searched: int, firsts: int) -> int:
    """How many of the searched trials on a rung go on, where baselines rank among them as if they were drawn as well."""
    there, reduction = searched + firsts, scheduler.reduction
    if scheduler.kind == "promotion":
        # Some were among the best when they went on, and are not in the end: so many more did in
        # simulated searches of 8 to 100 trials.
        places = there // reduction * (1 + (1 - 1 / reduction) / 3)
    else:
        # The n-th to come stays among the best of n with this chance; too few are not compared.
        places = sum(
            1.0 if n < reduction else math.ceil(n / reduction) / n for n in range(1, there + 1)
        )
    return round(places * searched / max(there, 1))


def _mean_costs(
    ladder: Sequence[Fidelity],
    scheduler: SchedulerConfig,
    examples: Sequence[TrainConfig],
    first: int,
) -> list[float]:
    each = [costs(ladder, scheduler, config.attack.steps, first) for config in examples]
    return [sum(rung) / len(each) for rung in zip(*each, strict=True)]


def _described(rung: Fidelity, epochs: int) -> str:
    text = f"rung: {rung.epochs} of {epochs} epochs"
    if rung.training_attack_steps is not None:
        text += f", training attack of at most {rung.training_attack_steps} steps"
    if rung.validation_attack_steps is not None:
        text += f", validation attack of at most {rung.validation_attack_steps} steps"
    if rung.validation_images is not None:
        text += f", {rung.validation_images} validation images"
    return text

"""Forecast of a search before it starts: trials on each rung, and the cost in full runs."""

import math
from bisect import bisect_left
from collections.abc import Sequence

from rkdsearch.config import TrainConfig
from rkdsearch.config.fidelity import Fidelity
from rkdsearch.space.ladder import capped_steps, segments, starting_rung
from rkdsearch.space.settings import STRENGTHS, Replicates, SchedulerConfig

# Cost of the rest of a training step, in attack steps; measured 2.9 on digits, with validation.
STEP_OVERHEAD = 3
MOST_TRIALS = 100_000  # beyond which nobody is told how many would be enough


def rung_costs(
    ladder: Sequence[Fidelity], scheduler: SchedulerConfig, attack_steps: int, start: int = 0
) -> list[float]:
    """Cost from each rung to the next for a trial that begins on rung `start`, in full runs."""
    full = ladder[-1].epochs * (attack_steps + STEP_OVERHEAD)
    found = [0.0] * start
    for segment in segments(ladder, scheduler, attack_steps, start):
        before = 0
        for rung in segment.fidelities:
            steps = capped_steps(rung, attack_steps) + STEP_OVERHEAD
            found.append((rung.epochs - before) * steps / full)
            before = rung.epochs
    return found


def lines(
    ladder: Sequence[Fidelity],
    scheduler: SchedulerConfig,
    replicates: Replicates,
    examples: Sequence[TrainConfig],
    *,
    trials: int | None,
    baselines: int,
    families: int = 0,
    methods: int = 1,
    owed: int = 0,
    beliefs: str = "none",
) -> list[str]:
    """The forecast, one line for each rung and one for the cost, replicates included.

    Costs are means over `examples`, runs of the space. `baselines` of the `trials` run to full
    length; the best of each of their `families` is replicated, and the best of each of the
    `methods`. Every choice with a minimum has it after `owed` searched trials; `beliefs` is the
    confidence in the baselines. Without `trials` there are no numbers.
    """
    again = _replicate_line(replicates, families, methods)
    if scheduler.name == "none":
        found = [f"no scheduler: every trial runs to its {ladder[-1].epochs} epochs", *again]
        if trials is not None:
            text, runs = _replicates_cost(replicates, trials, families, methods)
            what = f": {trials} for {trials} configurations and {text}" if text else ""
            found.append(f"expected cost: about {trials + runs} full runs{what}")
            found += _short_of_minimum(trials - baselines, baselines, owed)
        return found
    described = [_described(rung, ladder[-1].epochs) for rung in ladder]
    if trials is None:
        return described + again
    full_runs = baselines * sum(_mean_costs(ladder, scheduler, examples, 0))
    there, found = 0, list[str]()
    arrivals = _arrivals(len(ladder), scheduler, trials, baselines)
    for rung, (text, (new, climbing)) in enumerate(zip(described, arrivals, strict=True)):
        # A promoted trial costs the way from the rung below, a new one the whole way.
        full_runs += (
            climbing * _mean_costs(ladder, scheduler, examples, 0)[rung]
            + new * _mean_costs(ladder, scheduler, examples, rung)[rung]
        )
        there = climbing + new
        found.append(f"{text}, about {there} searched trials and {baselines} baselines")
    searched = f"{full_runs:.1f} for {trials} configurations ({scheduler.name}, {scheduler.kind})"
    if again:
        text, runs = _replicates_cost(replicates, there + baselines, families, methods)
        found += [
            *again,
            f"expected cost: about {full_runs + runs:.1f} full runs: {searched} and {text}",
        ]
    else:
        found.append(
            f"expected cost: about {full_runs:.1f} full runs for {trials} configurations"
            f" ({scheduler.name}, {scheduler.kind})"
        )
    if (strength := STRENGTHS.get(beliefs)) is not None and families:
        left = max(0, trials - baselines - strength.trials)
        due = min(left, max(families * strength.first, round(strength.share * left)))
        if left:
            found.append(
                f"beliefs ({beliefs}): once {strength.trials} searched trials stand on the lowest"
                f" rung, up to {due} of the other {left} proposals are made near baselines that few"
                " outrank there, and trained to full length at once (not in the cost above)"
            )
    found += _short_of_minimum(trials - baselines, baselines, owed)
    if trials > baselines and not there:
        found.append(_too_few(trials, baselines, len(ladder), scheduler))
    return found


def _arrivals(
    rungs: int, scheduler: SchedulerConfig, trials: int, baselines: int
) -> list[tuple[int, int]]:
    """Expected searched trials on each rung: those that begin there, and those that climb to it."""
    begin = [starting_rung(scheduler, number) for number in range(trials - baselines)]
    found = [(begin.count(0), 0)]
    for rung in range(1, rungs):
        found.append((begin.count(rung), promoted(scheduler, sum(found[-1]), baselines)))
    return found


def promoted(scheduler: SchedulerConfig, searched: int, baselines: int) -> int:
    """Expected number of `searched` trials on a rung that are promoted.

    Baselines are ranked among them as if they were sampled too.
    """
    there, reduction = searched + baselines, scheduler.reduction
    if scheduler.kind == "promotion":
        # Some were promoted early and later fell behind: a third more in simulated searches of 8
        # to 100 trials.
        places = there // reduction * (1 + (1 - 1 / reduction) / 3)
    else:
        # The chance that the n-th trial is among the best of n; the first few are not compared.
        places = sum(
            1.0 if n < reduction else math.ceil(n / reduction) / n for n in range(1, there + 1)
        )
    return round(places * searched / max(there, 1))


def _short_of_minimum(searched: int, baselines: int, owed: int) -> list[str]:
    """The warning that some choices have less than their minimum, where they have."""
    if searched >= owed:
        return []
    warning = (
        f"WARNING: sampler.minimum_per asks for {owed} searched trials, and there are"
        f" {max(0, searched)}: some choices have less than their share; ask for"
        f" {owed + baselines} trials"
    )
    return [warning]


def _too_few(trials: int, baselines: int, rungs: int, scheduler: SchedulerConfig) -> str:
    """The warning that no searched trial is likely to reach full length."""

    def arrives(number: int) -> bool:
        return bool(sum(_arrivals(rungs, scheduler, number, baselines)[-1]))

    most = trials
    while most < MOST_TRIALS and not arrives(most):
        most *= 2
    more = ""
    if arrives(most):
        enough = trials + bisect_left(range(trials, most), True, key=arrives)
        more = f"ask for {enough} or more, or "
    return (
        f"WARNING: no searched trial is likely to reach full length: {trials} configurations"
        f" are too few for {rungs} rungs with a scheduler.reduction of"
        f" {scheduler.reduction}; {more}lower it, or take a rung away"
    )


def _replicates_cost(
    replicates: Replicates, finished: int, families: int, methods: int
) -> tuple[str, int]:
    """The cost of replicates in words, and in full runs; empty words where none are asked for."""
    if not replicates.seeds:
        return "", 0
    contenders, baselines = replicates.compared(finished, families, methods)
    runs = replicates.runs(contenders, baselines)
    most = replicates.seeds * (contenders + baselines)
    if replicates.race:  # it keeps everybody whom nobody dominates
        return f"about {runs}, at most {most}, for replicates", runs
    return f"up to {runs} for replicates", runs


def _replicate_line(replicates: Replicates, families: int, methods: int) -> list[str]:
    if not replicates.seeds:
        return []
    more = f", of the best of each of {methods} methods" if methods > 1 else ""
    more += f" and of the {families} baselines" if replicates.baselines and families else ""
    number = f"{replicates.seeds} replicate{'s' if replicates.seeds > 1 else ''}"
    if replicates.race:
        number = f"{replicates.race} to {number}, more for the better ones,"
    return [f"then {number} each of up to {replicates.contenders} contenders{more}, to full length"]


def _mean_costs(
    ladder: Sequence[Fidelity],
    scheduler: SchedulerConfig,
    examples: Sequence[TrainConfig],
    start: int,
) -> list[float]:
    each = [rung_costs(ladder, scheduler, config.attack.steps, start) for config in examples]
    return [sum(rung) / len(each) for rung in zip(*each, strict=True)]


def _described(rung: Fidelity, epochs: int) -> str:
    if rung.epochs == epochs:
        return f"full length: {epochs} epochs"
    text = f"rung: {rung.epochs} of {epochs} epochs"
    if rung.training_attack_steps is not None:
        text += f", training attack of at most {rung.training_attack_steps} steps"
    if rung.validation_attack_steps is not None:
        text += f", validation attack of at most {rung.validation_attack_steps} steps"
    if rung.validation_images is not None:
        text += f", {rung.validation_images} validation images"
    return text

"""The ladder of a search: what a rung costs, and the training runs ("legs") by which one trial climbs it.

A rung may cap the training attack's steps. Where the cap was in force and is lifted, a promoted trial begins a new leg: it is trained afresh
with the attack that the search chose, so that a full-length result is the setting's own and anyone may repeat it with `rkdsearch train`.
(`scheduler.capped: continued` goes on from the checkpoint instead: cheaper, and the result has a history of weaker attacks.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from rkdsearch.config import TrainConfig
from rkdsearch.search.settings import Rung, SchedulerConfig
from rkdsearch.training.stages import Stage

STEP_OVERHEAD = 3  # attack steps' worth of all else in a training step: measured 2.9 on digits, validation included


@dataclass(frozen=True)
class Leg:
    """One training run of a trial: the rungs that it climbs."""

    rungs: tuple[Rung, ...]

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What the trainer is told."""
        return tuple(Stage(r.epochs, r.attack_steps, r.validation_steps, r.validation_images) for r in self.rungs)

    @property
    def end(self) -> int:
        """The epochs after which this run is over."""
        return self.rungs[-1].epochs

    def has(self, epochs: int) -> bool:
        """Whether a rung of this length is climbed in this run."""
        return any(rung.epochs == epochs for rung in self.rungs)


def legs(ladder: Sequence[Rung], scheduler: SchedulerConfig, attack_steps: int) -> tuple[Leg, ...]:
    """The runs of a trial whose training attack has so many steps, lowest first; the last one ends at full length."""
    if scheduler.name == "none":
        return (Leg(tuple(ladder[-1:])),)  # to full length, whatever stands on the way
    if scheduler.capped == "continued":
        return (Leg(tuple(ladder)),)
    return tuple(Leg(tuple(rungs)) for _, rungs in groupby(ladder, key=lambda rung: _steps(rung, attack_steps)))


def _steps(rung: Rung, attack_steps: int) -> int:
    return attack_steps if rung.attack_steps is None else min(rung.attack_steps, attack_steps)


def faults(ladder: Sequence[Rung]) -> str | None:
    """The law that the ladder breaks, if any."""
    lengths = [rung.epochs for rung in ladder]
    if lengths != sorted(set(lengths)):
        return f"ladder: epochs must increase, got {lengths}"
    for name in ("attack_steps", "validation_steps", "validation_images"):
        values = [getattr(rung, name) for rung in ladder]
        if values[-1] is not None:
            return (
                f"ladder: the last rung is the full run, judged by the whole exam: it must have no {name}, got {values[-1]}; leave it out"
            )
        caps = [math.inf if value is None else value for value in values]
        if caps != sorted(caps):
            return f"ladder: {name} must not fall from rung to rung, got {values}"
    return None


def costs(ladder: Sequence[Rung], scheduler: SchedulerConfig, attack_steps: int) -> list[float]:
    """What a trial spends to come from each rung's predecessor to it, as a share of a full run."""
    full = ladder[-1].epochs * (attack_steps + STEP_OVERHEAD)
    found = []
    for leg in legs(ladder, scheduler, attack_steps):
        before = 0
        for rung in leg.rungs:
            found.append((rung.epochs - before) * (_steps(rung, attack_steps) + STEP_OVERHEAD) / full)
            before = rung.epochs
    return found


def lines(
    ladder: Sequence[Rung], scheduler: SchedulerConfig, examples: Sequence[TrainConfig], *, trials: int | None, firsts: int
) -> list[str]:
    """The ladder for people, before it starts: how many trials stand on each rung, and what the search costs in full runs.

    `examples` are runs of the space, whose attacks are averaged over; `firsts` of the trials run to full length, whatever the scheduler says.
    """
    if scheduler.name == "none":
        return [f"no scheduler: every trial runs to its {ladder[-1].epochs} epochs"]
    described = [_described(rung, ladder[-1].epochs) for rung in ladder]
    if trials is None:
        return described
    each = [costs(ladder, scheduler, config.attack.steps) for config in examples]
    mean = [sum(rung) / len(each) for rung in zip(*each, strict=True)]
    left, full_runs, found = trials - firsts, firsts * sum(mean), []
    for text, share in zip(described, mean, strict=True):
        full_runs += left * share
        found.append(f"{text}, about {left} searched trials and {firsts} baselines")
        left = math.ceil(left / scheduler.reduction)
    return [*found, f"expected cost: about {full_runs:.1f} full runs for {trials} configurations ({scheduler.name}, {scheduler.kind})"]


def _described(rung: Rung, epochs: int) -> str:
    text = f"rung: {rung.epochs} of {epochs} epochs"
    if rung.attack_steps is not None:
        text += f", training attack of at most {rung.attack_steps} steps"
    if rung.validation_steps is not None:
        text += f", validation attack of at most {rung.validation_steps} steps"
    if rung.validation_images is not None:
        text += f", {rung.validation_images} validation images"
    return text

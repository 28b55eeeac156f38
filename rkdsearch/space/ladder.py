"""The ladder of a search: its rungs, and the segments in which one trial climbs them.

A rung may cap the training attack's steps. Where a cap was in force and is lifted, a promoted trial
begins a new segment: it is trained afresh with the attack that the search chose, so that
`rkdsearch train` repeats its full-length result from the config alone. With
`scheduler.capped: continued` it continues from its checkpoint instead: cheaper, but the result
depends on the weaker attacks before.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from rkdsearch.config.fidelity import Fidelity
from rkdsearch.space.settings import SchedulerConfig

GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples are spread evenly, however many there are


@dataclass(frozen=True)
class Segment:
    """One training run of a trial: the fidelities of its rungs, lowest first."""

    fidelities: tuple[Fidelity, ...]

    @property
    def epochs(self) -> int:
        """Length of the training run."""
        return self.fidelities[-1].epochs

    def has(self, epochs: int) -> bool:
        """True where one of its rungs has this length."""
        return any(fidelity.epochs == epochs for fidelity in self.fidelities)


def starting_rung(scheduler: SchedulerConfig, number: int) -> int:
    """The rung, from 0, on which searched trial `number`, from 0, begins: its bracket.

    Multiples of the golden ratio are spread evenly, so any run of consecutive trials has every
    bracket's share, and nothing is drawn at random.
    """
    above = [scheduler.reduction**-bracket for bracket in range(1, scheduler.brackets)]
    return sum(((number + 1) * GOLDEN) % 1 > 1 - share for share in above)


def segments(
    ladder: Sequence[Fidelity], scheduler: SchedulerConfig, attack_steps: int, start: int = 0
) -> tuple[Segment, ...]:
    """The segments of a trial whose training attack has `attack_steps` steps, from rung `start` on.

    The last segment ends at full length.
    """
    ladder = ladder[start:]
    if scheduler.name == "none":
        return (Segment(tuple(ladder[-1:])),)  # no rung before the end compares trials
    if scheduler.capped == "continued":
        return (Segment(tuple(ladder)),)
    return tuple(
        Segment(tuple(rungs))
        for _, rungs in groupby(ladder, key=lambda rung: capped_steps(rung, attack_steps))
    )


def capped_steps(rung: Fidelity, attack_steps: int) -> int:
    """Steps of the training attack up to this rung."""
    cap = rung.training_attack_steps
    return attack_steps if cap is None else min(cap, attack_steps)


def broken_law(ladder: Sequence[Fidelity], scheduler: SchedulerConfig) -> str | None:
    """The law that the ladder or its brackets break, as a sentence; None where they are legal."""
    lengths = [rung.epochs for rung in ladder]
    if lengths != sorted(set(lengths)):
        return f"ladder: epochs must increase, got {lengths}"
    caps = {
        "training_attack_steps": [rung.training_attack_steps for rung in ladder],
        "validation_attack_steps": [rung.validation_attack_steps for rung in ladder],
        "validation_images": [rung.validation_images for rung in ladder],
    }
    for name, values in caps.items():
        if values[-1] is not None:
            return (
                "ladder: the last rung is the full run with the full validation: it must have no"
                f" {name}, got {values[-1]}; leave it out"
            )
        numbers = [math.inf if value is None else value for value in values]
        if numbers != sorted(numbers):
            return f"ladder: {name} must not fall from rung to rung, got {values}"
    if scheduler.brackets > len(ladder):
        return (
            f"scheduler.brackets must be at most {len(ladder)}, one for each rung to begin on, got"
            f" {scheduler.brackets}"
        )
    return None

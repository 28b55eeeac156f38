"""A search on simulated or recorded curves.

Two workers, a rule that proposes and promotes, and compute that is charged as it is spent.
"""

import heapq
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from curves import Curve, Ladder, Landscape
from numpy.typing import NDArray

from rkdsearch.results import pareto

WORKERS = 2


@dataclass
class Trial:
    """A configuration in a simulated search.

    `rung` is the index of the highest rung of its ladder that it has reached, -1 before the first.
    """

    ordinal: int
    overrides: dict[str, Any]
    curve: Curve
    ladder: Ladder
    notes: dict[str, Any] = field(default_factory=dict)
    rung: int = -1
    executing: bool = True


class Rule(Protocol):
    """A rule that proposes and promotes.

    When a cap is lifted, the run begins `afresh` or continues.
    """

    afresh: bool

    def climbs(self, ordinal: int) -> Ladder:
        """The rungs of configuration number `ordinal`, the last of which is full length."""

    def propose(
        self, ordinal: int, trials: Sequence[Trial]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Overrides of the next configuration, and notes to keep with it."""

    def continues(self, trial: Trial, values: tuple[float, float]) -> bool:
        """True where a trial runs on at once from `trial.rung`, a rung before full length."""

    def promoted(self) -> int | None:
        """Ordinal of a paused trial that is promoted now."""

    def ended(self, trial: Trial, values: tuple[float, float]) -> None:
        """Record the last values of a trial that ended, at full length or by the rule."""


@dataclass(frozen=True)
class Track:
    """State of a search after each full-length trial.

    `compute` (T,) in full runs until then, `hypervolume` (T,) after it.

    `configurations` were tried and `spent` (full runs) was used when it ended.
    """

    compute: NDArray[np.float64]
    hypervolume: NDArray[np.float64]
    configurations: int
    spent: float

    def at(self, compute: float) -> float:
        """The hypervolume when so many full runs' compute was spent."""
        index = int(np.searchsorted(self.compute, compute, side="right"))
        return float(self.hypervolume[index - 1]) if index else 0.0

    def reaches(self, hypervolume: float) -> float:
        """The compute after which this hypervolume was there; infinite where it never was."""
        there = np.flatnonzero(self.hypervolume >= hypervolume)
        return float(self.compute[there[0]]) if len(there) else math.inf


class Search:
    """`WORKERS` workers.

    Compute is the time that they are busy, a trial that is cut off at the end included.
    """

    def __init__(self, landscape: Landscape, rule: Rule, trials: int) -> None:
        self._landscape, self._rule, self._wanted = landscape, rule, trials
        self.trials: list[Trial] = []
        self._busy: list[tuple[float, int, Trial]] = []
        self._order = itertools.count()
        self.now, self.spent = 0.0, 0.0

    def run(self, budget: float) -> Iterator[tuple[float, Trial]]:
        """Each trial that reaches full length, with the compute spent until then."""
        while True:
            while len(self._busy) < WORKERS and (trial := self._next()) is not None:
                self._start(trial)
            if not self._busy:
                return
            then, _, trial = heapq.heappop(self._busy)
            self.spent += (then - self.now) * (len(self._busy) + 1)
            self.now = then
            if self.spent > budget:
                return
            trial.rung += 1
            if self._arrived(trial):
                yield self.spent, trial

    def _start(self, trial: Trial) -> None:
        cost = trial.curve.cost(trial.ladder, trial.rung + 1, afresh=self._rule.afresh)
        heapq.heappush(self._busy, (self.now + cost, next(self._order), trial))

    def _next(self) -> Trial | None:
        promoted = self._rule.promoted()
        if promoted is not None:
            trial = self.trials[promoted]
            trial.executing = True
            return trial
        ordinal = len(self.trials)
        if ordinal >= self._wanted:
            return None
        proposed, notes = self._rule.propose(ordinal, self.trials)
        overrides = self._landscape.given(ordinal) or proposed
        self.trials.append(
            Trial(
                ordinal,
                overrides,
                self._landscape.curve(overrides),
                self._rule.climbs(ordinal),
                notes,
            )
        )
        return self.trials[-1]

    def _arrived(self, trial: Trial) -> bool:
        """The trial has reached a rung; returns whether that was full length."""
        values = reached(trial, afresh=self._rule.afresh)
        full = trial.rung == len(trial.ladder) - 1
        if not full and self._rule.continues(trial, values):
            self._start(trial)
            return False
        trial.executing = False
        self._rule.ended(trial, values)
        return full


def reached(trial: Trial, *, afresh: bool) -> tuple[float, float]:
    """The trial's measured values at the highest rung that it has reached."""
    return trial.curve.run(trial.ladder, trial.rung, afresh=afresh).values_at(
        trial.ladder[trial.rung].epochs
    )


def search(
    landscape: Landscape,
    rule: Rule,
    *,
    budget: float = math.inf,
    trials: int = 10**6,
    enough: tuple[float, float] = (math.inf, 0.0),
) -> Track:
    """One search until the compute (full runs) or the configurations are used up.

    Or until there is `enough`: a hypervolume, and a compute spent.
    """
    running = Search(landscape, rule, trials)
    compute: list[float] = []
    points: list[tuple[float, float]] = []
    volumes: list[float] = []
    for spent, trial in running.run(budget):
        points.append(trial.curve.run(trial.ladder, trial.rung, afresh=rule.afresh).delivers())
        compute.append(spent)
        volumes.append(pareto.hypervolume(points))
        if volumes[-1] >= enough[0] and spent >= enough[1]:
            break
    return Track(
        np.array(compute), np.array(volumes), len(running.trials), min(running.spent, budget)
    )

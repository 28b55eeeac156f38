"""Who goes on: asynchronous successive halving over two or more objectives, without Ray.

Multi-objective ASHA ranks the trials that have reached a rung by non-dominated fronts (Schmucker et al., 2021, https://arxiv.org/abs/2106.12639),
inside a front by a greedy farthest-point order, so that both ends of the front go on before its middle is crowded. Plain ASHA
(Li et al., MLSys 2020, https://arxiv.org/abs/1810.05934) ranks by one number. Either comes in two kinds:

promotion   every trial pauses at its rung; the best 1/reduction of a rung go on, as soon as they are known to be among them.
stopping    a trial runs on unless it ranks below the best 1/reduction of those that reached the rung before it.

Rungs hold no state that the trials' own histories do not: after a restart they are filled again from the ledger.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rkdsearch.results import pareto
from rkdsearch.search.settings import SchedulerConfig

Values = NDArray[np.float64]
Ranker = Callable[[Values], NDArray[np.int64]]


def by_non_domination(values: Values) -> NDArray[np.int64]:
    """Each row's place (N,), 0 is best: fronts first; inside a front the best sum, then always the point farthest from those already placed."""
    fronts = pareto.ranks(values)
    span = np.maximum(values.max(axis=0) - values.min(axis=0), 1e-12)
    scaled = (values - values.min(axis=0)) / span
    place = np.empty(len(values), dtype=np.int64)
    placed = 0
    for front in range(int(fronts.max(initial=-1)) + 1):
        rows = np.flatnonzero(fronts == front)
        for row in rows[_farthest_first(scaled[rows])]:
            place[row] = placed
            placed += 1
    return place


def _farthest_first(points: Values) -> NDArray[np.int64]:
    order = [int(points.sum(axis=1).argmax())]
    distance = np.linalg.norm(points - points[order[0]], axis=1)
    distance[order[0]] = -1
    while len(order) < len(points):
        order.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[order[-1]], axis=1))
        distance[order] = -1
    return np.array(order)


def by_sum(weights: Values) -> Ranker:
    """Each row's place by a weighted sum of the objectives, 0 is best."""

    def rank(values: Values) -> NDArray[np.int64]:
        place = np.empty(len(values), dtype=np.int64)
        place[np.argsort(-(values @ weights), kind="stable")] = np.arange(len(values))
        return place

    return rank


@dataclass(frozen=True)
class Place:
    """Where a trial stood when it was looked at: `rank` from 1 among `of` trials."""

    rank: int
    of: int


@dataclass
class Rung:
    """The trials that have reached a length, by trial_id, in the order in which they came."""

    epochs: int
    values: dict[str, tuple[float, ...]] = field(default_factory=dict)
    gone_on: set[str] = field(default_factory=set)


class Rungs:
    """All rungs of a search. `epochs` are those before the full length, lowest first; values are maximised."""

    def __init__(self, epochs: tuple[int, ...], config: SchedulerConfig, objectives: tuple[str, ...]) -> None:
        self.rungs = tuple(Rung(e) for e in epochs) if config.name != "none" else ()
        self._reduction = config.reduction
        self._kind = config.kind
        weights = np.array([config.metric.get(name, 0.0) for name in objectives])
        self._rank: Ranker = by_sum(weights) if config.name == "asha" else by_non_domination
        self.rule = f"{config.name}-{config.kind}"
        self._ranked: dict[int, tuple[int, Mapping[str, int]]] = {}  # by rung: how many had come when it was ranked last

    def at(self, epochs: int) -> Rung | None:
        """The rung at exactly this length."""
        return next((rung for rung in self.rungs if rung.epochs == epochs), None)

    def record(self, rung: Rung, trial_id: str, values: tuple[float, ...]) -> None:
        """The trial has reached the rung with these values. A second record of the same trial is the same one."""
        rung.values.setdefault(trial_id, values)

    def place(self, rung: Rung, trial_id: str) -> Place:
        """The trial's place among those that have reached the rung so far."""
        return Place(self._places(rung)[trial_id] + 1, len(rung.values))

    def goes_on(self, rung: Rung, trial_id: str) -> bool:
        """Whether a trial that has just reached the rung runs on at once; if so it is marked as gone on."""
        if trial_id in rung.gone_on:
            return True
        if self._kind == "stopping":
            n = len(rung.values)
            # Too few to compare: the first reduction - 1 arrivals are not stopped.
            on = n < self._reduction or self._places(rung)[trial_id] < math.ceil(n / self._reduction)
        else:
            on = trial_id in self._best(rung) and self.promotable(skip=trial_id, above=rung) is None
        if on:
            rung.gone_on.add(trial_id)
        return on

    def promotable(self, *, skip: str | None = None, above: Rung | None = None) -> tuple[str, Rung] | None:
        """The paused trial that should go on next: the best of the highest rung that has one. None under the stopping kind."""
        if self._kind == "stopping":
            return None
        for rung in reversed(self.rungs):
            if above is not None and rung.epochs <= above.epochs:
                return None
            for trial_id in self._best(rung):
                if trial_id not in rung.gone_on and trial_id != skip:
                    return trial_id, rung
        return None

    def _best(self, rung: Rung) -> list[str]:
        """The best 1/reduction of the rung, best first."""
        count = len(rung.values) // self._reduction
        places = self._places(rung)
        return sorted(places, key=places.__getitem__)[:count] if count else []

    def _places(self, rung: Rung) -> Mapping[str, int]:
        count, places = self._ranked.get(rung.epochs, (0, {}))
        if count != len(rung.values):
            ids = sorted(rung.values)  # ties fall by name, not by arrival: a search that is taken up again decides the same
            places = dict(zip(ids, (int(p) for p in self._rank(np.array([rung.values[i] for i in ids]))), strict=True))
            self._ranked[rung.epochs] = (len(rung.values), places)
        return places

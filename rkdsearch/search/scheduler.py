"""Who goes on: asynchronous successive halving over two or more objectives, without Ray.

Multi-objective ASHA ranks the trials that have reached a rung by non-dominated fronts (Schmucker et
al., 2021, https://arxiv.org/abs/2106.12639), inside a front by what each adds to the hypervolume of
those already placed, so that a front is covered from its knee outwards; its far ends (nearly
natural, nearly useless) come last. Plain ASHA (Li et al., MLSys 2020,
https://arxiv.org/abs/1810.05934) ranks by one number. Either comes in two kinds:

promotion   every trial pauses at its rung; the best 1/reduction of a rung go on, as soon as they are known to be among them.
stopping    a trial runs on unless it ranks below the best 1/reduction of those that reached the rung before it.

Rungs hold no state that the trials' own histories do not: after a restart they are filled again
from the ledger.
"""

import heapq
import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from rkdsearch.results import pareto
from rkdsearch.space.settings import SchedulerConfig

Values = NDArray[np.float64]
Integers = NDArray[np.int64]


class Standing:
    """N rows from best to worst: fronts first; inside a front always the one that adds most hypervolume above 0 to those already placed.

    `values` (N, D) are maximised; `fronts` (N,) counts them from 0, the best. A front is put in
    order when a question needs its order: of ten thousand rows a decision looks at a few hundred.
    """

    def __init__(self, values: Values, fronts: Integers) -> None:
        self._values = values
        self._fronts = fronts
        self._rows = np.argsort(fronts, kind="stable")
        self._ends = np.cumsum(np.bincount(fronts))
        self._in_order: set[int] = set()

    def place(self, row: int) -> int:
        """How many rows stand before this one."""
        start, rows = self._front(int(self._fronts[row]))
        return start + int(np.flatnonzero(rows == row)[0])

    def first(self, count: int, free: NDArray[np.bool_]) -> int | None:
        """The first row among the best `count` that is `free` (N,); None where none is."""
        if not count:
            return None
        # may be on both sides of the line: which of its rows are, its order says
        last = self._fronts[self._rows[count - 1]]
        found = np.flatnonzero(free[self._rows[: self._ends[last]]])
        if not len(found):
            return None
        start, rows = self._front(int(self._fronts[self._rows[found[0]]]))
        at = int(free[rows].argmax())
        return int(rows[at]) if start + at < count else None

    def places(self) -> Integers:
        """How many rows stand before each, (N,)."""
        for front in range(len(self._ends)):
            self._front(front)
        place = np.empty(len(self._rows), dtype=np.int64)
        place[self._rows] = np.arange(len(place))
        return place

    def _front(self, front: int) -> tuple[int, Integers]:
        """How many rows stand before this front, and its own, best first."""
        start, end = int(self._ends[front - 1]) if front else 0, int(self._ends[front])
        rows = self._rows[start:end]
        if front not in self._in_order:
            rows[:] = rows[_most_volume_first(self._values[rows])]
            self._in_order.add(front)
        return start, rows


def _most_volume_first(points: Values) -> Integers:
    """The greedy order of (N, D). What a point adds only falls as others are placed: an old gain is a bound, and few are computed anew."""
    if len(points) == 1:
        return np.zeros(1, dtype=np.int64)
    front = _Stairs() if points.shape[1] == 2 else _Volume(points.shape[1])
    rows = points.tolist()
    bounds = [(-math.inf, row) for row in range(len(rows))]
    order: list[int] = []
    while bounds:
        _, row = heapq.heappop(bounds)
        # equal gains are equal, whatever the order of their sums
        gain = round(front.gain(rows[row]), 12)
        if bounds and (-gain, row) > bounds[0]:
            heapq.heappush(bounds, (-gain, row))
        else:
            order.append(row)
            front.place(rows[row])
    return np.array(order)


class _Stairs:
    """Points of one front in two dimensions: what another one adds is the rectangle between its two neighbours."""

    def __init__(self) -> None:
        self._x: list[float] = []  # rising, and y falls
        self._y: list[float] = []

    def gain(self, point: list[float]) -> float:
        at = bisect_left(self._x, point[0])
        left, below = self._x[at - 1] if at else 0.0, self._y[at] if at < len(self._y) else 0.0
        return max(point[0] - left, 0.0) * max(point[1] - below, 0.0)

    def place(self, point: list[float]) -> None:
        at = bisect_left(self._x, point[0])
        self._x.insert(at, point[0])
        self._y.insert(at, point[1])


class _Volume:
    """The same in any number of dimensions: the point's own box, less what the placed ones cover of it."""

    def __init__(self, dimensions: int) -> None:
        self._placed = np.empty((0, dimensions))
        self._zero = [0.0] * dimensions

    def gain(self, point: list[float]) -> float:
        box = np.maximum(point, self._zero)
        # Cut to the box, most points lie behind a few: half the work of all points' volume with and
        # without this one.
        return float(box.prod()) - pareto.hypervolume(np.minimum(self._placed, box), self._zero)

    def place(self, point: list[float]) -> None:
        self._placed = np.vstack([self._placed, point])


def by_non_domination(values: Values) -> Integers:
    """Each row's place (N,), 0 is best: fronts first, and inside a front from its knee outwards."""
    return Standing(values, pareto.ranks(values)).places()


def by_sum(weights: Values) -> Callable[[Values], Integers]:
    """Each row's place by a weighted sum of the objectives, 0 is best."""

    def rank(values: Values) -> Integers:
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

    def __init__(
        self, epochs: tuple[int, ...], config: SchedulerConfig, objectives: tuple[str, ...]
    ) -> None:
        self.rungs = tuple(Rung(e) for e in epochs) if config.name != "none" else ()
        self._reduction = config.reduction
        self._kind = config.kind
        weights = np.array(
            [
                config.metric.get(name, 0.0) if config.metric else 1 / len(objectives)
                for name in objectives
            ]
        )
        # in a plain order, each is a front of its own
        self._fronts = by_sum(weights) if config.name == "asha" else pareto.ranks
        self.rule = f"{config.name}-{config.kind}"
        # by rung: who had come when it was ranked last, in order of name
        self._ranked: dict[int, tuple[list[str], Standing]] = {}

    def at(self, epochs: int) -> Rung | None:
        """The rung at exactly this length."""
        return next((rung for rung in self.rungs if rung.epochs == epochs), None)

    def record(self, rung: Rung, trial_id: str, values: tuple[float, ...]) -> None:
        """The trial has reached the rung with these values. A second record of the same trial is the same one."""
        rung.values.setdefault(trial_id, values)

    def place(self, rung: Rung, trial_id: str) -> Place:
        """The trial's place among those that have reached the rung so far."""
        ids, standing = self._standing(rung)
        return Place(standing.place(bisect_left(ids, trial_id)) + 1, len(ids))

    def goes_on(self, rung: Rung, trial_id: str) -> bool:
        """Whether a trial that has just reached the rung runs on at once; if so it is marked as gone on."""
        if trial_id in rung.gone_on:
            return True
        if self._kind == "stopping":
            n = len(rung.values)
            # Too few to compare: the first reduction - 1 arrivals are not stopped.
            on = n < self._reduction or self.place(rung, trial_id).rank <= math.ceil(
                n / self._reduction
            )
        else:
            on = (
                self.place(rung, trial_id).rank <= self._count(rung)
                and self.promotable(above=rung) is None
            )
        if on:
            rung.gone_on.add(trial_id)
        return on

    def promotable(self, *, above: Rung | None = None) -> tuple[str, Rung] | None:
        """The paused trial that should go on next: the best of the highest rung, `above` a rung, that has one. None under the stopping kind."""
        if self._kind == "stopping":
            return None
        for rung in reversed(self.rungs):
            if above is not None and rung.epochs <= above.epochs:
                return None
            if not self._count(rung):
                continue
            ids, standing = self._standing(rung)
            free = np.fromiter((i not in rung.gone_on for i in ids), dtype=bool, count=len(ids))
            row = standing.first(self._count(rung), free)
            if row is not None:
                return ids[row], rung
        return None

    def _count(self, rung: Rung) -> int:
        """How many trials the best 1/reduction of the rung are."""
        return len(rung.values) // self._reduction

    def _standing(self, rung: Rung) -> tuple[list[str], Standing]:
        """Who has reached the rung, in order of name, and how they stand."""
        ids, standing = self._ranked.get(rung.epochs, ([], None))
        if standing is None or len(ids) != len(rung.values):
            # ties fall by name, not by arrival: a search that is taken up again decides the same
            ids = sorted(rung.values)
            values = np.fromiter(
                chain.from_iterable(rung.values[i] for i in ids), dtype=float
            ).reshape(len(ids), -1)
            standing = Standing(values, self._fronts(values))
            self._ranked[rung.epochs] = ids, standing
        return ids, standing

"""Rankings of trials by several objectives, best first.

Non-dominated fronts come first (Schmucker et al., 2021, https://arxiv.org/abs/2106.12639). Inside a
front the next row is always the one that adds most hypervolume to the rows already ranked. So a
front is covered from its knee outwards; its far ends (nearly natural, nearly useless) come last.
"""

import heapq
import math
from bisect import bisect_left
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rkdsearch.results import pareto

Values = NDArray[np.float64]
Integers = NDArray[np.int64]


class Ranking:
    """Ranking of N rows, best first.

    `values` (N, D) are maximised. `fronts` (N,) is each row's front, from 0, the best. Inside a
    front, the next row is always the one that adds most hypervolume above 0. A front is sorted only
    when a query needs its order: among ten thousand rows a decision looks at a few hundred.
    """

    def __init__(self, values: Values, fronts: Integers) -> None:
        self._values = values
        self.fronts = fronts
        self._rows = np.argsort(fronts, kind="stable")
        self._ends = np.cumsum(np.bincount(fronts))
        self._sorted: set[int] = set()

    def rank(self, row: int) -> int:
        """Rank of this row, from 0, the best."""
        start, rows = self._front(int(self.fronts[row]))
        return start + int(np.flatnonzero(rows == row)[0])

    def best(self, count: int, eligible: NDArray[np.bool_]) -> int | None:
        """Best row that is `eligible` (N,) among the first `count`; None where no row is."""
        if not count:
            return None
        # the line at `count` may cut this front: only its order says which of its rows are above
        last = self.fronts[self._rows[count - 1]]
        found = np.flatnonzero(eligible[self._rows[: self._ends[last]]])
        if not len(found):
            return None
        start, rows = self._front(int(self.fronts[self._rows[found[0]]]))
        at = int(eligible[rows].argmax())
        return int(rows[at]) if start + at < count else None

    def ranks(self) -> Integers:
        """Rank of every row, (N,), from 0, the best."""
        for front in range(len(self._ends)):
            self._front(front)
        ranks = np.empty(len(self._rows), dtype=np.int64)
        ranks[self._rows] = np.arange(len(ranks))
        return ranks

    def front(self, front: int) -> Integers:
        """The rows of this front, best first."""
        return self._front(front)[1]

    def _front(self, front: int) -> tuple[int, Integers]:
        """Number of rows ranked before this front, and the front's rows, best first."""
        start, end = int(self._ends[front - 1]) if front else 0, int(self._ends[front])
        rows = self._rows[start:end]
        if front not in self._sorted:
            rows[:] = rows[_by_hypervolume(self._values[rows])]
            self._sorted.add(front)
        return start, rows


def by_non_domination(values: Values) -> Integers:
    """Rank of each row of (N, D) values, (N,), from 0: by fronts, then by added hypervolume."""
    return Ranking(values, pareto.ranks(values)).ranks()


def by_sum(weights: Values) -> Callable[[Values], Integers]:
    """Function that ranks rows of (N, D) values, (N,), from 0, by their weighted sum."""

    def rank(values: Values) -> Integers:
        ranks = np.empty(len(values), dtype=np.int64)
        ranks[np.argsort(-(values @ weights), kind="stable")] = np.arange(len(values))
        return ranks

    return rank


def _by_hypervolume(points: Values) -> Integers:
    """Greedy order of (N, D) points by added hypervolume, (N,).

    The gain of a point only falls as others are ranked. So an old gain is an upper bound, and few
    gains are computed again.
    """
    if len(points) == 1:
        return np.zeros(1, dtype=np.int64)
    hypervolume = _Hypervolume2D() if points.shape[1] == 2 else _Hypervolume(points.shape[1])
    rows = points.tolist()
    bounds = [(-math.inf, row) for row in range(len(rows))]
    order: list[int] = []
    while bounds:
        _, row = heapq.heappop(bounds)
        # rounded: equal gains must be equal, whatever the order of their sums
        gain = round(hypervolume.gain(rows[row]), 12)
        if bounds and (-gain, row) > bounds[0]:
            heapq.heappush(bounds, (-gain, row))
        else:
            order.append(row)
            hypervolume.add(rows[row])
    return np.array(order)


class _Hypervolume2D:
    """Hypervolume of one front in 2 dimensions: a point adds the rectangle up to its neighbours."""

    def __init__(self) -> None:
        self._x: list[float] = []  # ascending, and y descends
        self._y: list[float] = []

    def gain(self, point: list[float]) -> float:
        at = bisect_left(self._x, point[0])
        left, below = self._x[at - 1] if at else 0.0, self._y[at] if at < len(self._y) else 0.0
        return max(point[0] - left, 0.0) * max(point[1] - below, 0.0)

    def add(self, point: list[float]) -> None:
        at = bisect_left(self._x, point[0])
        self._x.insert(at, point[0])
        self._y.insert(at, point[1])


class _Hypervolume:
    """Hypervolume in any number of dimensions: a point adds the part of its box not yet covered."""

    def __init__(self, dimensions: int) -> None:
        self._added = np.empty((0, dimensions))
        self._zero = [0.0] * dimensions

    def gain(self, point: list[float]) -> float:
        box = np.maximum(point, self._zero)
        # Cut to the box, most points are dominated by a few: this halves the work of two
        # hypervolumes of all points, with and without this one.
        return float(box.prod()) - pareto.hypervolume(np.minimum(self._added, box), self._zero)

    def add(self, point: list[float]) -> None:
        self._added = np.vstack([self._added, point])

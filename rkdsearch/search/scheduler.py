"""Asynchronous successive halving (ASHA) over one or more objectives.

`moasha` ranks the trials at a rung by non-dominated fronts (`ranking.py`). `asha` ranks them by one
number (Li et al., MLSys 2020, https://arxiv.org/abs/1810.05934). Both come in two kinds:

promotion   Every trial pauses at a rung. The best 1/eta of the rung are promoted, as soon as they
            are known to be among the best.
stopping    A trial trains on unless it ranks below the best 1/eta of those that arrived before it.

eta is `scheduler.reduction`. With `minima`, one for each field of `sampler.minimum_per`, trials are
ranked within their groups first, those of one choice of such a field (a method, say): the best
1/eta of each group are promoted, one at least once so many have arrived as survive of the minimum;
then the best of all, up to 1/eta of the rung. A trial is in one group of each field.
Rungs hold no state of their own: after a restart they are filled again from the ledger.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from rkdsearch.results import pareto
from rkdsearch.results.states import Decision
from rkdsearch.search.ranking import Integers, Ranking, Values, by_sum
from rkdsearch.space.settings import SchedulerConfig


@dataclass(frozen=True)
class Rank:
    """Rank of a trial at a rung: `rank` from 1, the best, among `of` trials."""

    rank: int
    of: int


class Rung:
    """Trials at one rung of `epochs`, and who of them was promoted, at once or later.

    They are kept as columns in the order among trials of equal values: by their ties, then by name,
    never by arrival, so that a resumed search decides the same.
    """

    def __init__(self, epochs: int, fields: int = 0) -> None:
        self.epochs = epochs
        self.values: dict[str, tuple[float, ...]] = {}  # merits, in order of arrival
        self.promoted: set[str] = set()
        self.table = np.empty((0, 0))  # (N, D), the merits again
        # (N, fields), the numbers of its groups; -1: in none
        self.groups = np.empty((0, fields), dtype=np.int64)
        self._ties: dict[str, tuple[float, ...]] = {}
        self._order: list[tuple[tuple[float, ...], str]] = []
        self._numbers: dict[Hashable, int] = {}  # of groups

    def add(
        self,
        trial_id: str,
        values: tuple[float, ...],
        ties: tuple[float, ...],
        group: Sequence[Hashable] | None,
    ) -> None:
        """Add a trial; `group` has its choice of each field, and is None where it is in none."""
        self.values[trial_id], self._ties[trial_id] = values, ties
        row = self.row(trial_id)
        self._order.insert(row, (ties, trial_id))
        numbers = [
            -1 if group is None else self._numbers.setdefault((n, group[n]), len(self._numbers))
            for n in range(self.groups.shape[1])
        ]
        self.groups = np.insert(self.groups, row, numbers, axis=0)
        self.table = np.insert(self.table.reshape(-1, len(values)), row, values, axis=0)

    def row(self, trial_id: str) -> int:
        """Row of the trial."""
        return bisect_left(self._order, (self._ties[trial_id], trial_id))

    def name(self, row: int) -> str:
        """Name of the trial in this row."""
        return self._order[row][1]

    def paused(self) -> NDArray[np.bool_]:
        """The rows that were not promoted, (N,)."""
        return np.fromiter(
            (name not in self.promoted for _, name in self._order), bool, len(self._order)
        )

    @property
    def version(self) -> tuple[int, int]:
        """Another value after every change: trials arrive and are promoted, and never leave."""
        return len(self.values), len(self.promoted)


@dataclass(frozen=True)
class Promotion:
    """A paused trial that is to train on from its rung."""

    trial_id: str
    rung: Rung


class Scheduler:
    """Decisions at all rungs of a search.

    `epochs` are the rungs' lengths below full length, shortest first. Values are maximised.
    """

    def __init__(
        self,
        epochs: tuple[int, ...],
        config: SchedulerConfig,
        objectives: tuple[str, ...],
        minima: Sequence[int] = (),
    ) -> None:
        lengths = epochs if config.name != "none" else ()
        self.rungs = tuple(Rung(e, len(minima)) for e in lengths)
        self._eta = config.reduction
        self._kind = config.kind
        self._minima = minima
        weights = np.array(
            [
                config.metric.get(name, 0.0) if config.metric else 1 / len(objectives)
                for name in objectives
            ]
        )
        match config.name:
            case "moasha" | "none":
                self._fronts: Callable[[Values], Integers] = pareto.ranks
            case "asha":  # ranked by one number, each trial is a front of its own
                self._fronts = by_sum(weights)
            case _:
                assert_never(config.name)
        self.rule = f"{config.name}-{config.kind}"
        # by rung, with the number or the version for which they hold
        self._rankings: dict[int, tuple[int, Ranking]] = {}
        self._best: dict[int, tuple[int, NDArray[np.bool_]]] = {}
        self._promotions: dict[int, tuple[tuple[int, int], str | None]] = {}

    @property
    def decision_if_not_promoted(self) -> Decision:
        """Decision about a trial that does not train on from its rung: paused or stopped."""
        return Decision.PAUSED if self._kind == "promotion" else Decision.STOPPED

    def at(self, epochs: int) -> Rung | None:
        """Rung of exactly this length, if any."""
        return next((rung for rung in self.rungs if rung.epochs == epochs), None)

    def record(
        self,
        rung: Rung,
        trial_id: str,
        values: tuple[float, ...],
        group: Sequence[Hashable] | None = None,
        ties: tuple[float, ...] = (),
    ) -> None:
        """Add a trial that has reached the rung. Its later records are ignored.

        Among trials of equal values the one of the lowest `ties` ranks first.
        """
        if trial_id not in rung.values:
            rung.add(trial_id, values, ties, group)

    def rank(self, rung: Rung, trial_id: str) -> Rank:
        """Rank of the trial among those that have reached the rung so far."""
        return Rank(self._ranking(rung).rank(rung.row(trial_id)) + 1, len(rung.values))

    def decide(self, rung: Rung, trial_id: str) -> Decision:
        """Decision about a trial that has just reached the rung; marks it where it trains on."""
        if trial_id in rung.promoted:
            return Decision.CONTINUED
        if self._kind == "stopping":
            n = len(rung.values)
            # too few to compare: the first eta - 1 arrivals are not stopped
            on = (
                n < self._eta
                or self.rank(rung, trial_id).rank <= math.ceil(n / self._eta)
                or self._best_of_groups(rung)[rung.row(trial_id)]
            )
        else:
            first = self._best_of_groups(rung)[rung.row(trial_id)] or (
                self.rank(rung, trial_id).rank <= self._quota(rung) and self._open_places(rung) > 0
            )
            on = first and self.next_promotion(above=rung) is None
        if not on:
            return self.decision_if_not_promoted
        rung.promoted.add(trial_id)
        return Decision.CONTINUED

    def next_promotion(self, *, above: Rung | None = None) -> Promotion | None:
        """Promotion of the best paused trial of the highest rung that has one.

        Only rungs `above` a rung are looked at, where one is given. None under the stopping kind.
        """
        if self._kind == "stopping":
            return None
        for rung in reversed(self.rungs):
            if above is not None and rung.epochs <= above.epochs:
                return None
            if (found := self._promotion_from(rung)) is not None:
                return Promotion(found, rung)
        return None

    def _promotion_from(self, rung: Rung) -> str | None:
        """The trial that is to be promoted from this rung; None where there is none."""
        known = self._promotions.get(rung.epochs)
        if known is None or known[0] != rung.version:
            known = self._promotions[rung.epochs] = rung.version, self._promoted_next(rung)
        return known[1]

    def _promoted_next(self, rung: Rung) -> str | None:
        if not rung.values:
            return None
        paused, ranking = rung.paused(), self._ranking(rung)
        owed = self._best_of_groups(rung) & paused
        if owed.any():
            row = ranking.best(len(owed), owed)
        elif self._quota(rung) and self._open_places(rung) > 0:
            row = ranking.best(self._quota(rung), paused)
        else:
            row = None
        return None if row is None else rung.name(row)

    def _open_places(self, rung: Rung) -> int:
        """Trials that may still be promoted over groups: without groups, ranks alone decide."""
        return self._quota(rung) - len(rung.promoted) if self._grouped(rung) else 1

    @staticmethod
    def _grouped(rung: Rung) -> bool:
        return bool((rung.groups >= 0).any())

    def _best_of_groups(self, rung: Rung) -> NDArray[np.bool_]:
        """Rows (N,) of the best 1/eta of each group, and of its best where enough have arrived."""
        known = self._best.get(rung.epochs)
        if known is None or known[0] != len(rung.values):
            known = self._best[rung.epochs] = len(rung.values), self._best_now(rung)
        return known[1]

    def _best_now(self, rung: Rung) -> NDArray[np.bool_]:
        best = np.zeros(len(rung.values), dtype=bool)
        if not self._grouped(rung):
            return best
        below = [r.epochs for r in self.rungs].index(rung.epochs)
        ranking = self._ranking(rung)
        for groups, minimum in zip(rung.groups.T, self._minima, strict=True):
            enough = max(1, minimum // self._eta**below)
            rows = np.lexsort((ranking.fronts, groups))
            rows = rows[groups[rows] >= 0]
            for members in np.split(rows, np.flatnonzero(np.diff(groups[rows])) + 1):
                count = max(len(members) // self._eta, int(len(members) >= enough))
                if not count:
                    continue
                # all of the fronts before the one that the line cuts; of that the first in order
                fronts = ranking.fronts[members]
                whole = int(np.searchsorted(fronts, fronts[count - 1]))
                best[members[:whole]] = True
                cut = ranking.front(int(fronts[count - 1]))
                best[cut[groups[cut] == groups[members[0]]][: count - whole]] = True
        return best

    def _quota(self, rung: Rung) -> int:
        """Number of trials in the best 1/eta of the rung."""
        return len(rung.values) // self._eta

    def _ranking(self, rung: Rung) -> Ranking:
        """Ranking of the rung's rows."""
        known = self._rankings.get(rung.epochs)
        if known is None or known[0] != len(rung.values):
            ranking = Ranking(rung.table, self._fronts(rung.table))
            known = self._rankings[rung.epochs] = len(rung.values), ranking
        return known[1]

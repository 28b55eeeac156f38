"""Asynchronous successive halving (ASHA) over one or more objectives.

`moasha` ranks the trials at a rung by non-dominated fronts (`ranking.py`). `asha` ranks them by one
number (Li et al., MLSys 2020, https://arxiv.org/abs/1810.05934). Both come in two kinds:

promotion   Every trial pauses at a rung. The best 1/eta of the rung are promoted, as soon as they
            are known to be among the best.
stopping    A trial trains on unless it ranks below the best 1/eta of those that arrived before it.

eta is `scheduler.reduction`. With `per_group` > 0 trials are ranked within their groups first (the
methods, say, with `sampler.minimum_per`): the best 1/eta of each group are promoted, one at least
once so many have arrived as survive of `per_group`; then the best of all, up to 1/eta of the rung.
Rungs hold no state of their own: after a restart they are filled
again from the ledger.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import assert_never

import numpy as np

from rkdsearch.results import pareto
from rkdsearch.results.states import Decision
from rkdsearch.search.ranking import Integers, Ranking, Values, by_sum
from rkdsearch.space.settings import SchedulerConfig


@dataclass(frozen=True)
class Rank:
    """Rank of a trial at a rung: `rank` from 1, the best, among `of` trials."""

    rank: int
    of: int


@dataclass
class Rung:
    """Trials at one rung of `epochs`: their merits by trial_id, in order of arrival.

    `promoted` are those that trained on, at once or later; `groups` are the trials that are ranked
    within a group too.
    """

    epochs: int
    values: dict[str, tuple[float, ...]] = field(default_factory=dict)
    groups: dict[str, Hashable] = field(default_factory=dict)
    ties: dict[str, tuple[float, ...]] = field(default_factory=dict)
    promoted: set[str] = field(default_factory=set)


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
        per_group: int = 0,
    ) -> None:
        self.rungs = tuple(Rung(e) for e in epochs) if config.name != "none" else ()
        self._eta = config.reduction
        self._kind = config.kind
        self._per_group = per_group
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
        # by rung: its trials when they were last ranked, in the order of `_order`
        self._rankings: dict[int, tuple[list[str], Ranking]] = {}

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
        group: Hashable = None,
        ties: tuple[float, ...] = (),
    ) -> None:
        """Add a trial that has reached the rung. Its later records are ignored.

        Among trials of equal values the one of the lowest `ties` ranks first.
        """
        rung.values.setdefault(trial_id, values)
        rung.ties.setdefault(trial_id, ties)
        if self._per_group and group is not None:
            rung.groups.setdefault(trial_id, group)

    def rank(self, rung: Rung, trial_id: str) -> Rank:
        """Rank of the trial among those that have reached the rung so far."""
        ids, ranking = self._ranking(rung)
        return Rank(
            ranking.rank(bisect_left(ids, _order(rung, trial_id), key=partial(_order, rung))) + 1,
            len(ids),
        )

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
                or trial_id in self._best_of_groups(rung)
            )
        else:
            first = trial_id in self._best_of_groups(rung) or (
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
            owed = [i for i in self._best_of_groups(rung) if i not in rung.promoted]
            if owed:
                return Promotion(min(owed, key=lambda i: self.rank(rung, i).rank), rung)
            if not self._quota(rung) or self._open_places(rung) <= 0:
                continue
            ids, ranking = self._ranking(rung)
            paused = np.fromiter((i not in rung.promoted for i in ids), dtype=bool, count=len(ids))
            row = ranking.best(self._quota(rung), paused)
            if row is not None:
                return Promotion(ids[row], rung)
        return None

    def _open_places(self, rung: Rung) -> int:
        """Trials that may still be promoted over groups: without groups, ranks alone decide."""
        return self._quota(rung) - len(rung.promoted) if rung.groups else 1

    def _best_of_groups(self, rung: Rung) -> set[str]:
        """The best 1/eta of each group, and its best where enough of the group have arrived."""
        if not rung.groups:
            return set()
        below = [r.epochs for r in self.rungs].index(rung.epochs)
        enough = max(1, self._per_group // self._eta**below)
        ids, ranking = self._ranking(rung)
        ranks = dict(zip(ids, ranking.ranks().tolist(), strict=True))
        members: dict[Hashable, list[str]] = {}
        for trial_id in sorted(rung.groups, key=ranks.__getitem__):
            members.setdefault(rung.groups[trial_id], []).append(trial_id)
        best = set[str]()
        for found in members.values():
            best.update(found[: max(len(found) // self._eta, len(found) >= enough)])
        return best

    def _quota(self, rung: Rung) -> int:
        """Number of trials in the best 1/eta of the rung."""
        return len(rung.values) // self._eta

    def _ranking(self, rung: Rung) -> tuple[list[str], Ranking]:
        """Trials at the rung, in the order of `_order`, and their ranking."""
        ids, ranking = self._rankings.get(rung.epochs, ([], None))
        if ranking is None or len(ids) != len(rung.values):
            # ties never fall by arrival: a resumed search decides the same
            ids = sorted(rung.values, key=partial(_order, rung))
            values = np.fromiter(
                chain.from_iterable(rung.values[i] for i in ids), dtype=float
            ).reshape(len(ids), -1)
            ranking = Ranking(values, self._fronts(values))
            self._rankings[rung.epochs] = ids, ranking
        return ids, ranking


def _order(rung: Rung, trial_id: str) -> tuple[tuple[float, ...], str]:
    """The order among trials of equal values: by their ties, then by name."""
    return rung.ties.get(trial_id, ()), trial_id

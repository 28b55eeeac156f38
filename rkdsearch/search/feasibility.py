"""Feasibility of proposals: the laws of a run, and the limits on the costs of its student."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from rkdsearch import config as run
from rkdsearch.config import TrainConfig
from rkdsearch.errors import ConfigError, SpaceError
from rkdsearch.results.objectives import COSTS, OBJECTIVES
from rkdsearch.results.states import ProposedBy
from rkdsearch.search.sampler import MODEL_ATTEMPTS, Observation, Proposal, propose
from rkdsearch.search.shares import Owed, observed_within, with_choice, within
from rkdsearch.search.trial import trial_id_of
from rkdsearch.space import check, grid
from rkdsearch.space.space import SearchSpace

# Proposals for one configuration before the search gives up: most are random, and cheap.
ATTEMPTS = 1000
ENUMERABLE = 1000  # combinations of a space, at most, among which repetitions are ruled out


class ExhaustedSpaceError(SpaceError):
    """Every configuration of a finite space was asked: the search is complete."""


def _proposed(
    space: SearchSpace,
    ordinal: int,
    observations: Sequence[Observation],
    attempt: int,
    infeasible: Sequence[Mapping[str, Any]],
    owed: Owed | None,
) -> Proposal:
    """A proposal of the sampler, in the part of the space that is owed one, if any is."""
    if owed is None:
        return propose(space, ordinal, observations, attempt, infeasible)
    part = within(space, *owed)
    there = [one for one in infeasible if one.get(owed.field) == owed.choice]
    found = propose(part, ordinal, observed_within(observations, *owed), attempt, there)
    return Proposal(with_choice(found.hyperparameters, *owed), found.notes, ProposedBy.MINIMUM)


def _is_enumerable(space: SearchSpace) -> bool:
    if grid.endless(space) is not None:
        return False
    return sum(1 for _ in islice(grid.combinations(space), ENUMERABLE + 1)) <= ENUMERABLE


@dataclass(frozen=True)
class ExceededLimit:
    """A limit of the constraints that a student exceeds: `count` is above `limit`."""

    cost: str
    limit: int
    count: int

    @property
    def heading(self) -> str:
        """Name of the cost for people."""
        return OBJECTIVES[self.cost].heading


class Feasibility:
    """Feasibility in one space. `teachers` are overrides that name the study's teachers' files."""

    def __init__(self, space: SearchSpace, teachers: Mapping[str, Any]) -> None:
        self._space = space
        self._teachers = teachers
        self._latest: tuple[dict[str, Any], TrainConfig] | None = None
        # by a field and its choice: fingerprints of its configurations; None: too many to know
        self._parts: dict[tuple[str, Any], set[str] | None] = {}

    def proposal(
        self,
        ordinal: int,
        observations: Sequence[Observation],
        asked: Collection[str] = (),
        owed: Owed | None = None,
        known: Collection[str] = (),
    ) -> Proposal:
        """The first feasible proposal for configuration `ordinal` that was not asked before.

        `asked` are fingerprints of the runs that were. Those that are `known` from an earlier study
        are asked again only where a finite space is short of others. Raises ExhaustedSpaceError
        where a finite space has no other, SpaceError where none of `ATTEMPTS` is feasible.
        """
        # emptied for every ordinal: a resumed search must propose the same
        infeasible: list[Mapping[str, Any]] = []
        reason: str | None = None
        if self._space.sampler.name == "grid":
            return self._unasked(ordinal, asked, known)
        for attempt in range(ATTEMPTS):
            if attempt == MODEL_ATTEMPTS and self._enumerable and self._feasible:
                return self._unasked(ordinal, asked, known, owed)
            found = _proposed(self._space, ordinal, observations, attempt, infeasible, owed)
            reason = self._infeasibility(found.hyperparameters, trial_id_of(ordinal))
            if reason is not None:
                infeasible = [*(infeasible or self._infeasible_sample), found.hyperparameters]
            elif (fingerprint := self.fingerprint(found.hyperparameters)) in asked:
                reason = "it was asked before"
            elif fingerprint in known:
                reason = "an earlier study has it"
            else:
                return found
        raise SpaceError(
            f"{self._space.name}: after {ordinal} configurations, {ATTEMPTS:,} proposals in a row"
            f" were infeasible or repeated; of the last one: {reason}"
        )

    def first_feasible(
        self, proposals: Iterable[Proposal], asked: Collection[str], trial_id: str
    ) -> Proposal | None:
        """The first of the proposals that is feasible and was not asked before, if any is."""
        for found in proposals:
            if (
                self._infeasibility(found.hyperparameters, trial_id) is None
                and self.fingerprint(found.hyperparameters) not in asked
            ):
                return found
        return None

    def exhausted(self, name: str, choice: Any, asked: Collection[str]) -> bool:
        """True where no feasible configuration with this choice of a field is left to ask for.

        Where they are too many to know, none is left where no random one is feasible.
        """
        if (name, choice) not in self._parts:
            self._parts[name, choice] = self._fingerprints_with(name, choice)
        known = self._parts[name, choice]
        return known is not None and known <= set(asked)

    def _fingerprints_with(self, name: str, choice: Any) -> set[str] | None:
        """Fingerprints of the feasible configurations with this choice; None: too many to know."""
        part = within(self._space, name, choice)
        # by the space's seed alone: a resumed search must find the same
        rng = np.random.default_rng(self._space.seed)
        drawn = (part.sample(rng) for _ in range(ATTEMPTS))
        ones = grid.combinations(part) if _is_enumerable(part) else drawn
        wholes = (with_choice(one, name, choice) for one in ones)
        feasible = (whole for whole in wholes if self._infeasibility(whole, "combination") is None)
        if _is_enumerable(part):
            return {self.fingerprint(whole) for whole in feasible}
        return set() if next(feasible, None) is None else None

    def _unasked(
        self,
        ordinal: int,
        asked: Collection[str],
        known: Collection[str],
        owed: Owed | None = None,
    ) -> Proposal:
        """A feasible combination of a finite space that was not asked: the first of the shuffled.

        Those that an earlier study has are `known`, and come last. Raises ExhaustedSpaceError.
        """
        left = [
            (fingerprint in known, combination)
            for fingerprint, combination in self._combinations
            if fingerprint is not None
            and fingerprint not in asked
            and (owed is None or combination.get(owed.field) == owed.choice)
        ]
        if left:
            by = ProposedBy.CHANCE if owed is None else ProposedBy.MINIMUM
            return Proposal(dict(min(left, key=lambda one: one[0])[1]), {}, by)
        raise ExhaustedSpaceError(
            f"{self._space.name}: all {self._feasible:,} feasible combinations were asked, and the"
            f" search ends after {ordinal} configurations; widen a range for more"
        )

    @cached_property
    def _enumerable(self) -> bool:
        """True where the space has few combinations, so that all of them can be tried."""
        return _is_enumerable(self._space)

    @property
    def _feasible(self) -> int:
        return sum(fingerprint is not None for fingerprint, _ in self._combinations)

    @cached_property
    def _combinations(self) -> list[tuple[str | None, Mapping[str, Any]]]:
        """All combinations, shuffled by the space's seed, with fingerprints; None: infeasible."""
        found = list(grid.combinations(self._space))
        np.random.default_rng(self._space.seed).shuffle(found)
        return [
            (
                None
                if self._infeasibility(one, f"combination {number}") is not None
                else self.fingerprint(one),
                one,
            )
            for number, one in enumerate(found)
        ]

    def fingerprints(self, observations: Iterable[Observation]) -> frozenset[str]:
        """Fingerprints of the runs that an earlier study observed."""
        return frozenset(self.fingerprint(one.hyperparameters) for one in observations)

    def fingerprint(self, hyperparameters: Mapping[str, Any]) -> str:
        """Fingerprint of a run with these hyperparameters. Raises ConfigError as `config`."""
        return self.config(hyperparameters, "").fingerprint()

    def config(self, hyperparameters: Mapping[str, Any], trial_id: str) -> TrainConfig:
        """Config of a run, with the study's teachers. Raises ConfigError where a law is broken.

        Built once for a proposal, which is checked, known by its fingerprint, and becomes a trial.
        """
        if self._latest is None or self._latest[0] != hyperparameters:
            built = self._space.config(run.merge(hyperparameters, self._teachers), trial_id)
            self._latest = (dict(hyperparameters), built)
        return self._latest[1]

    def costs(self, config: TrainConfig) -> dict[str, int]:
        """Costs of the run's student that the space names.

        Raises ConfigError where the student does not fit the images.
        """
        return check.costs_of(config, self._space.costs)

    def exceeded_limit(self, costs: Mapping[str, int]) -> ExceededLimit | None:
        """The first limit that these costs exceed, if any."""
        limits = {
            name: int(limit)
            for name, limit in self._space.constraints.limits.items()
            if name in COSTS
        }
        return next(
            (
                ExceededLimit(name, limit, costs[name])
                for name, limit in limits.items()
                if costs[name] > limit
            ),
            None,
        )

    def oversized_baselines(self) -> dict[str, ExceededLimit]:
        """Baselines, by label, whose students exceed a limit: they are trained, but on no front."""
        found = {
            baseline.label: self.exceeded_limit(
                self.costs(self.config(baseline.overrides, baseline.label))
            )
            for baseline in self._space.baselines
        }
        return {label: exceeded for label, exceeded in found.items() if exceeded is not None}

    @cached_property
    def _infeasible_sample(self) -> list[Mapping[str, Any]]:
        """Infeasible ones of 50 random configurations, the same in every session."""
        rng = np.random.default_rng(self._space.seed)
        drawn = (self._space.sample(rng) for _ in range(50))
        return [point for point in drawn if self._infeasibility(point, "random") is not None]

    def _infeasibility(self, hyperparameters: Mapping[str, Any], trial_id: str) -> str | None:
        """The law that is broken, and a way out; None where the configuration is feasible."""
        try:
            costs = self.costs(self.config(hyperparameters, trial_id))
        except ConfigError as error:  # a corner that the space check did not sample
            return f"{error}; narrow the ranges that lead there"
        exceeded = self.exceeded_limit(costs)
        if exceeded is None:
            return None
        return (
            f"constraints.{exceeded.cost} must be >= the student's {exceeded.heading},"
            f" {exceeded.count}, got {exceeded.limit}; raise the limit or search over smaller"
            " students"
        )

"""Feasibility of proposals: the laws of a run, and the limits on the costs of its student."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rkdsearch import config as run
from rkdsearch.config import TrainConfig
from rkdsearch.errors import ConfigError, SpaceError
from rkdsearch.results.objectives import COSTS, OBJECTIVES
from rkdsearch.search.sampler import Observation, Proposal, propose
from rkdsearch.search.trial import trial_id_of
from rkdsearch.space import check
from rkdsearch.space.space import SearchSpace

# Proposals for one configuration before the search gives up: most are random, and cheap.
ATTEMPTS = 1000


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

    def proposal(self, ordinal: int, observations: Sequence[Observation]) -> Proposal:
        """The first feasible proposal for configuration `ordinal`.

        Raises SpaceError where none of `ATTEMPTS` is feasible.
        """
        # emptied for every ordinal: a resumed search must propose the same
        infeasible: list[Mapping[str, Any]] = []
        reason: str | None = None
        for attempt in range(ATTEMPTS):
            found = propose(self._space, ordinal, observations, attempt, infeasible)
            reason = self._infeasibility(found.hyperparameters, trial_id_of(ordinal))
            if reason is None:
                return found
            infeasible = [*(infeasible or self._infeasible_sample), found.hyperparameters]
        raise SpaceError(
            f"{self._space.name}: after {ordinal} configurations, {ATTEMPTS:,} proposals in a row"
            f" were infeasible, the last because {reason}"
        )

    def config(self, hyperparameters: Mapping[str, Any], trial_id: str) -> TrainConfig:
        """Config of a run, with the study's teachers. Raises ConfigError where a law is broken."""
        return self._space.config(run.merge(hyperparameters, self._teachers), trial_id)

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

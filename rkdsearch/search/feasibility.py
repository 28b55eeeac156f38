"""What may be trained at all: the laws of a run, and the limits on what a student costs. Every proposal is held against them before it is a trial."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rkdsearch import config as run
from rkdsearch.config import TrainConfig
from rkdsearch.errors import ConfigError, SpaceError
from rkdsearch.results.objectives import COSTS, OBJECTIVES
from rkdsearch.search import ledger
from rkdsearch.search.sampler import Observation, Proposal, propose
from rkdsearch.space import check
from rkdsearch.space.space import SearchSpace

# proposals for one configuration, where laws of the run or constraints refuse some: most are
# random, and cheap
ATTEMPTS = 1000


@dataclass(frozen=True)
class ExceededLimit:
    """By what a student costs more than is allowed."""

    cost: str
    limit: int
    count: int

    @property
    def heading(self) -> str:
        """The cost's name for the eye."""
        return OBJECTIVES[self.cost].heading


class Feasibility:
    """Of the space, with `teachers`, which are overrides that name the study's own files."""

    def __init__(self, space: SearchSpace, teachers: Mapping[str, Any]) -> None:
        self._space = space
        self._teachers = teachers

    def proposal(self, ordinal: int, seen: Sequence[Observation]) -> Proposal:
        """What the sampler proposes as configuration `ordinal`, and may be trained. Raises SpaceError where nothing is."""
        # not beyond this ask: the next one would depend on when the search was interrupted
        refused: list[Mapping[str, Any]] = []
        refusal: str | None = None
        for attempt in range(ATTEMPTS):
            found = propose(self._space, ordinal, seen, attempt, refused)
            refusal = self._refusal(found.overrides, ledger.trial_id_of(ordinal))
            if refusal is None:
                return found
            refused = [*(refused or self._outside), found.overrides]
        raise SpaceError(
            f"{self._space.name}: behind {ordinal} configurations {ATTEMPTS:,} proposals in a row"
            f" were refused, the last because {refusal}"
        )

    def config(self, overrides: Mapping[str, Any], trial_id: str) -> TrainConfig:
        """The run of these overrides, with the study's own teachers. Raises ConfigError."""
        return self._space.config(run.merge(overrides, self._teachers), trial_id)

    def costs(self, config: TrainConfig) -> dict[str, int]:
        """What the run's student costs, by what the space asks about. Raises ConfigError where it does not fit the images."""
        return check.costs_of(config, self._space.costs)

    def excess(self, costs: Mapping[str, int]) -> ExceededLimit | None:
        """By what a student of these costs is above what the constraints allow."""
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

    @cached_property
    def _outside(self) -> list[Mapping[str, Any]]:
        """Of 50 random configurations those that nobody may train: the same in every session."""
        rng = np.random.default_rng(self._space.seed)
        drawn = (self._space.sample(rng) for _ in range(50))
        return [overrides for overrides in drawn if self._refusal(overrides, "random") is not None]

    def _refusal(self, overrides: Mapping[str, Any], trial_id: str) -> str | None:
        """The law that is broken, and a way out; None where the configuration may be trained."""
        try:
            costs = self.costs(self.config(overrides, trial_id))
        except ConfigError as error:  # a corner that the proof did not meet
            return f"{error}; narrow the ranges that lead there"
        excess = self.excess(costs)
        if excess is None:
            return None
        return (
            f"constraints.{excess.cost} must be >= the student's {excess.heading}, {excess.count},"
            f" got {excess.limit}; raise the limit or search over smaller students"
        )

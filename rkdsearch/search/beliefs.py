"""Beliefs in published settings: proposals near a baseline while its own results bear it out.

A published setting says how its method is trained, and not where on the front to be: its proposals
are spread over the training attack's eps, and keep near the setting in all else, or near the
`prior` of a parameter that has one. They are trained to full length at once, because the rungs have
told already what they are worth: a baseline is believed where few of the searched trials outrank it
on the lowest rung. It is asked again at every proposal, so that a belief that its own baseline
refutes is used no more.

After the mixture of prior and incumbents of PriorBand (Mallik et al., 2023,
https://arxiv.org/abs/2306.12370); what differs, and the figures: docs/adr/0024-beliefs.md.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution

from rkdsearch.errors import ConfigError
from rkdsearch.results.beliefs import NOTE
from rkdsearch.results.states import NOT_IN_SPACE, ProposedBy, Status
from rkdsearch.search.front import kept_off
from rkdsearch.search.sampler import Proposal
from rkdsearch.search.scheduler import Scheduler
from rkdsearch.search.shares import Owed
from rkdsearch.search.trial import Trial
from rkdsearch.space import grid
from rkdsearch.space.ladder import GOLDEN
from rkdsearch.space.parameter import Parameter
from rkdsearch.space.settings import STRENGTHS, Strength
from rkdsearch.space.space import SearchSpace, values_of

NEAR = 0.1  # standard deviation of a number around the published one, as a share of its range
SPREAD = "attack.eps"  # decides where between clean and robust accuracy a student lies
# A temperature was chosen for the published teacher: another teacher's labels are softer or harder.
WIDER: Mapping[str, float] = {"method.temperature": 0.25}
# What a student is trained with costs by its steps: half of them lose little (gain per second).
STEPS, LEAST = "attack.steps", 0.5
METHOD_FIELD = "method.name"
NOWHERE = ""  # in place of a name, for a proposal that is near no baseline


class Beliefs:
    """Beliefs in the baselines of one space, judged by the rungs of `scheduler`."""

    def __init__(self, space: SearchSpace, scheduler: Scheduler) -> None:
        self._space = space
        self._scheduler = scheduler
        self._strength = STRENGTHS.get(space.sampler.beliefs)

    def choose(
        self,
        baselines: Sequence[Trial],
        near: Sequence[str],
        owed: Owed | None,
        without: Collection[str] = (),
    ) -> Trial | None:
        """The believed baseline that the next proposal is made near; None where there is none.

        `near` has a name for each searched configuration so far, in their order: of the baseline
        that it was made near, or `NOWHERE`. Near those in `without` nothing is left to propose.
        """
        if self._strength is None:
            return None
        believed = [
            trial
            for trial in self._believed(baselines, self._strength)
            if trial.trial_id not in without and self._in_space(trial, owed)
        ]
        if not believed:
            return None
        uses = Counter(near)
        later = near[self._strength.trials :]
        if min(uses[t.trial_id] for t in believed) >= self._strength.first and (
            number_of(later) >= self._strength.share * (len(later) + 1)
        ):
            return None
        return min(believed, key=lambda t: (uses[t.trial_id], t.ordinal))

    def refuted(self, baselines: Sequence[Trial]) -> set[str]:
        """Names of the baselines that were judged and are not believed.

        A sampler that is told of a bad baseline at full length takes it for better than all shorter
        trials: it is told of these at the lowest rung.
        """
        if self._strength is None:
            return set()
        return {
            trial.trial_id
            for trial, outranked in self._judged(baselines, self._strength)
            if outranked > self._strength.outranked
        }

    def _believed(self, baselines: Sequence[Trial], strength: Strength) -> list[Trial]:
        """Baselines that hold; of a family, as a grid makes one, only the best.

        None that the space has lost, that failed, or that a flag keeps off the front.
        """
        families = {b.label: b.family for b in self._space.baselines}
        found: dict[str, Trial] = {}
        for trial, outranked in sorted(
            self._judged(baselines, strength), key=lambda judged: (judged[1], judged[0].ordinal)
        ):
            lost = trial.label.endswith(NOT_IN_SPACE)
            refuted = lost or trial.status == Status.FAILED or kept_off(trial)
            if outranked <= strength.outranked and not refuted:
                found.setdefault(families.get(trial.label, trial.label), trial)
        return list(found.values())

    def _judged(
        self, baselines: Sequence[Trial], strength: Strength
    ) -> Iterator[tuple[Trial, float]]:
        """Baselines with the share of searched trials that rank above each.

        Each is judged on the lowest rung that ranks it: none ranks a baseline in its warm-up.
        Higher rungs need fewer trials, as halving leaves them.
        """
        waiting, needed = list(baselines), strength.trials
        for rung in self._scheduler.rungs:
            here = [t.trial_id for t in baselines if t.trial_id in rung.values]
            searched = len(rung.values) - len(here)
            if searched < max(1, needed):
                return
            ranks = {name: self._scheduler.rank(rung, name).rank for name in here}
            for trial in waiting:
                if (rank := ranks.get(trial.trial_id)) is not None:
                    others = sum(other < rank for other in ranks.values())
                    yield trial, (rank - 1 - others) / searched
            waiting = [t for t in waiting if t.trial_id not in ranks]
            needed //= self._space.scheduler.reduction

    def _in_space(self, baseline: Trial, owed: Owed | None) -> bool:
        """True where the search may propose the baseline's method, and a choice that is owed."""
        values = values_of(baseline.config)
        searched = self._space.searches_method(values[METHOD_FIELD])
        return searched and (owed is None or values.get(owed.field) == owed.choice)

    def near(self, baseline: Trial, ordinal: int, attempt: int, number: int) -> Proposal:
        """A proposal near the baseline, the `number`-th of all that beliefs have made, from 0.

        A function of the ordinal and the attempt, as the sampler's proposals are.
        """
        published = values_of(baseline.config)
        rng = np.random.default_rng([self._space.seed, ordinal, attempt])

        def choose(parameter: Parameter) -> Any:
            if parameter.prior is not None:  # it was chosen for this search, the published one not
                return parameter.near(parameter.prior, NEAR, rng)
            value = published.get(parameter.name)
            if parameter.name == SPREAD:
                # the first step leads away from the middle, where the published one usually is
                return parameter.at((0.5 + (1 + number + attempt) * GOLDEN) % 1)
            if value is None or not _comparable(parameter, value):
                return parameter.draw(rng)
            if parameter.name == STEPS:
                return _fewer(parameter, value)
            return parameter.near(value, WIDER.get(parameter.name, NEAR), rng)

        found = self._space.walk(choose)
        found |= self._own_of_method(published, found)
        return Proposal(found, {NOTE: baseline.trial_id}, ProposedBy.BELIEF)

    def _own_of_method(
        self, published: Mapping[str, Any], proposed: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The baseline's values of its method that the space does not search for it.

        A temperature near the published one means nothing without the published scale of its loss.
        """
        with suppress(ConfigError):  # an illegal proposal is made anew by the caller
            built = values_of(self._space.config(proposed))
            if built[METHOD_FIELD] == published[METHOD_FIELD]:
                return {
                    name: value
                    for name, value in published.items()
                    if name.startswith("method.")
                    and name not in proposed
                    and built.get(name) != value
                }
        return {}


def number_of(near: Sequence[str]) -> int:
    """Proposals that beliefs made, of those with these names."""
    return len(near) - near.count(NOWHERE)


def _comparable(parameter: Parameter, value: object) -> bool:
    """True where the value has a place in the range, or is taken to its end; or is a choice."""
    if isinstance(parameter.distribution, CategoricalDistribution):
        return parameter.holds(value)
    return isinstance(value, int | float)


def _fewer(parameter: Parameter, published: Any) -> Any:
    """The fewest steps in the range that are at least half of the published ones."""
    least = LEAST * published
    if isinstance(parameter.distribution, CategoricalDistribution):
        enough = (c for c in parameter.ends() if least <= c <= published)
        return min(enough, default=published)
    possible = grid.values(parameter)
    assert possible is not None, "steps are whole numbers"
    return min((v for v in possible if v >= least), default=possible[-1])

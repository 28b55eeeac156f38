"""The share of each choice in a search: proposals that it gets whatever looks good so far.

A sampler keeps proposing the method that looked good at the lowest rung. With
`sampler.minimum_per: {method.name: 4}` each method is proposed four times first, by turns, from
what was measured of that method alone, at random while that is little. Halving then promotes the
best trial of each method (`scheduler.py`).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from rkdsearch.config import TrainConfig
from rkdsearch.methods import name_of
from rkdsearch.search.sampler import Observation
from rkdsearch.space.parameter import Parameter
from rkdsearch.space.space import SearchSpace, values_of

Group = tuple[tuple[str, Any], ...]  # the value of each field that has a minimum


class Owed(NamedTuple):
    """The choice of a field that the next proposal must have."""

    field: str
    choice: Any


class Shares:
    """Minimum numbers of proposals in one space."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self.minimum = space.sampler.minimum_per

    def group(self, config: TrainConfig) -> Group:
        """The choices of a run for which there is a minimum."""
        return tuple((name, _value(config, name)) for name in self.minimum)

    def owed(
        self,
        asked: Mapping[Group, int],
        exhausted: Callable[[str, Any], bool] = lambda *_: False,
    ) -> Owed | None:
        """The choice that is proposed next; None where every choice had its minimum.

        `asked` are the groups of the searched configurations so far, and how many each has. The
        choice with the fewest comes first; the order among equals is drawn by the space's seed.
        One of which nothing is left to propose is `exhausted`.
        """
        for name, minimum in self.minimum.items():
            counts = Counter[Any]()
            for group, number in asked.items():
                counts[dict(group).get(name)] += number
            choices = list(self._parameter(name).ends())
            np.random.default_rng(self._space.seed).shuffle(choices)
            short = [choice for choice in choices if counts[choice] < minimum]
            for fewest in sorted(short, key=lambda choice: counts[choice]):
                if not exhausted(name, fewest):
                    return Owed(name, fewest)
        return None

    def _parameter(self, name: str) -> Parameter:
        return next(p for p in self._space.parameters if p.name == name)


def _value(config: TrainConfig, name: str) -> Any:
    """The value of a field, without a dump of the whole run: it is read at every proposal."""
    if name == "method.name":
        return name_of(config.method)
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part, None)
    return values_of(config).get(name) if value is None else value


def within(space: SearchSpace, name: str, choice: Any) -> SearchSpace:
    """The part of the space in which the field has this choice."""
    fixed = {**space.fixed, name: choice}
    kept = tuple(
        parameter
        for parameter in space.parameters
        if parameter.name != name and (name not in parameter.when or choice in parameter.when[name])
    )
    return replace(space, fixed=fixed, parameters=kept)


def observed_within(
    observations: Sequence[Observation], name: str, choice: Any
) -> list[Observation]:
    """The observations with this choice, as the part of the space sees them."""
    return [
        replace(o, hyperparameters={k: v for k, v in o.hyperparameters.items() if k != name})
        for o in observations
        if o.hyperparameters.get(name) == choice
    ]


def with_choice(hyperparameters: Mapping[str, Any], name: str, choice: Any) -> dict[str, Any]:
    """A proposal in the part, as one in the whole space."""
    return {name: choice, **hyperparameters}

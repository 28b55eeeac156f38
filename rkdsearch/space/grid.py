"""All combinations of a space whose parameters have finitely many values."""

from collections.abc import Iterator, Mapping
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from rkdsearch.space.parameter import Parameter
from rkdsearch.space.space import SearchSpace


def endless(space: SearchSpace) -> Parameter | None:
    """The first parameter that is a range without steps; None where the space is finite."""
    return next((p for p in space.parameters if values(p) is None), None)


def values(parameter: Parameter) -> list[Any] | None:
    """All values of a parameter; None for a range without steps."""
    d = parameter.distribution
    if isinstance(d, CategoricalDistribution):
        return list(d.choices)
    if isinstance(d, IntDistribution):
        return list(range(d.low, d.high + 1, d.step))
    assert isinstance(d, FloatDistribution)
    if d.step is None:
        return None if d.low < d.high else [d.low]
    return [parameter.on_steps(d.low + k * d.step) for k in range(parameter.steps + 1)]


def combinations(space: SearchSpace) -> Iterator[dict[str, Any]]:
    """Every combination of a finite space once; a parameter is there where its conditions hold."""

    def extended(number: int, known: Mapping[str, Any], chosen: dict[str, Any]) -> Any:
        if number == len(space.parameters):
            yield chosen
            return
        parameter = space.parameters[number]
        if not parameter.exists(known):
            yield from extended(number + 1, known, chosen)
            return
        found = values(parameter)
        assert found is not None, "the space is finite"
        for value in found:
            added = {parameter.name: value}
            yield from extended(number + 1, {**known, **added}, {**chosen, **added})

    yield from extended(0, space.fixed, {})

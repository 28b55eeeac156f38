import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from rkdsearch.space.parameter import Parameter


def test_a_value_has_the_quantile_at_which_the_range_has_it() -> None:
    rate = Parameter("optimizer.lr", FloatDistribution(0.01, 1.0, log=True))
    assert rate.quantile(0.1) == pytest.approx(0.5)
    assert rate.quantile(0.001) == 0.0
    assert rate.at(rate.quantile(1.0)) == pytest.approx(1.0)
    assert Parameter("m", FloatDistribution(0.0, 0.2)).quantile(0.05) == pytest.approx(0.25)
    steps = Parameter("attack.steps", IntDistribution(2, 10, step=2))
    assert [steps.at(steps.quantile(value)) for value in (2, 4, 6, 8, 10)] == [2, 4, 6, 8, 10]
    name = Parameter("method.name", CategoricalDistribution(["rslad", "iad", "trades"]))
    assert [name.at(name.quantile(value)) for value in ("rslad", "trades")] == ["rslad", "trades"]
    with pytest.raises(ValueError, match="kd"):
        name.quantile("kd")

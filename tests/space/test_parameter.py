import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial
from typing_extensions import override

from rkdsearch.space import grid
from rkdsearch.space.parameter import Parameter, ParameterFile


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
    with pytest.raises(ValueError, match="not in tuple"):
        name.quantile("kd")


def test_steps_have_the_steps_decimals_and_the_last_one_is_the_end() -> None:
    tenths = ParameterFile(float=[0.1, 1.9], step=0.3).build("x")  # type: ignore[call-arg]
    assert [tenths.at(k / 7) for k in range(7)] == [0.1, 0.4, 0.7, 1.0, 1.3, 1.6, 1.9]
    ratios = ParameterFile(float=["8/255", "16/255"], step="2/255").build("attack.eps")  # type: ignore[call-arg]
    assert [round(ratios.at(k / 5) * 255, 6) for k in range(5)] == [8, 10, 12, 14, 16]

    class Third(FixedTrial):
        @override
        def suggest_float(self, *_: object, **__: object) -> float:
            return 0.1 + 3 * 0.3  # as Optuna counts steps: 0.9999999999999999

    assert tenths.suggest(Third({})) == 1.0


def test_a_range_in_ratios_may_begin_with_nothing() -> None:
    eps = ParameterFile.model_validate({"float": ["0/255", "8/255"]}).build("attack.eps")
    assert eps.ends() == (0.0, 8 / 255)


def test_a_range_in_ratios_has_its_ends_and_steps_as_they_are_written() -> None:
    described = {"float": ["8/255", "16/255"], "step": "4/255", "prior": "12/255"}
    eps = ParameterFile.model_validate(described).build("attack.eps")
    assert eps.prior == 12 / 255
    assert eps.ends() == (8 / 255, 16 / 255)
    assert [eps.at(k / 3) for k in range(3)] == grid.values(eps) == [8 / 255, 12 / 255, 16 / 255]
    assert eps.suggest(FixedTrial({"attack.eps": 0.031372549020})) == 8 / 255
    held = [8 / 255, 12 / 255, 16 / 255, 0.031372549020, 0.062745098036]  # of earlier versions too
    assert [value for value in [*held, 10 / 255, 4 / 255, "8", None] if eps.holds(value)] == held
    # Optuna counts in decimals, by which the range of an earlier study is known
    assert repr(eps.distribution) == (
        "FloatDistribution(high=0.06274509804, log=False, low=0.03137254902, step=0.01568627451)"
    )
    for value in held:
        counted = eps.counted(value)
        assert eps.distribution._contains(counted)


def test_a_step_may_be_as_small_as_a_number_can_be() -> None:
    described = {"float": [0, 1.0e-12], "step": 1.0e-13}
    decay = ParameterFile.model_validate(described).build("optimizer.weight_decay")
    values = grid.values(decay)
    assert values is not None
    assert (len(values), values[3], values[-1]) == (11, 3e-13, 1e-12)
    assert all(decay.holds(value) for value in values)

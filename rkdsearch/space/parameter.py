"""A searched parameter: its range, its conditions, and its form in YAML.

    name: {float: [low, high], log: true} | {int: [low, high], step: 2} | {choice: [a, b]}

A parameter with `when: {method.name: [rslad, iad]}` exists only where all its conditions hold. The
parameters in them stand above it. `prior: VALUE` says where beliefs look for its best value.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Annotated, Any, Self

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial
from pydantic import BeforeValidator, Field, model_validator

from rkdsearch.config import ratio, typed
from rkdsearch.errors import SpaceError
from rkdsearch.section import Section

DECIMALS = 12  # of the ends and the step of a range with steps
CLOSE = 1e-5  # of a step: the same value, by other decimals
Scalar = bool | int | float | str | None


@dataclass(frozen=True)
class Parameter:
    """One searched parameter: its name, its distribution, its conditions, its believed value.

    `exact` are the low end and the step of a float with steps, as they are written: 8/255 is no
    decimal, and Optuna counts steps in decimals alone.
    """

    name: str
    distribution: BaseDistribution
    when: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    prior: Scalar = None
    exact: tuple[Fraction, Fraction] | None = None

    def exists(self, values: Mapping[str, Any]) -> bool:
        """True where all conditions hold for these values by dotted name."""
        return all(
            parent in values and values[parent] in allowed for parent, allowed in self.when.items()
        )

    def holds(self, value: object) -> bool:
        """True where the value is in the range, or is one of the choices."""
        try:
            internal = self.distribution.to_internal_repr(self.counted(value))
            return bool(self.distribution._contains(internal))  # noqa: SLF001 - not public
        except (TypeError, ValueError):
            return False

    def ends(self) -> tuple[Any, ...]:
        """Both ends of a range, or every choice."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return tuple(d.choices)
        assert isinstance(d, IntDistribution | FloatDistribution)
        return (d.low, d.high) if self.exact is None else (self._step(0), self._step(self.steps))

    @property
    def steps(self) -> int:
        """Steps from end to end of a range that has them."""
        d = self.distribution
        assert isinstance(d, IntDistribution | FloatDistribution)
        return round((d.high - d.low) / (d.step or math.inf))

    def _step(self, number: int) -> float:
        assert self.exact is not None, "it has steps"
        low, step = self.exact
        return float(low + number * step)

    def on_steps(self, value: float) -> float:
        """The nearest value of a range with steps: 0.1 + 3 x 0.3 is 1.0. Without any: the value."""
        if self.exact is None:
            return value
        low, step = self.exact
        return self._step(min(max(round((Fraction(value) - low) / step), 0), self.steps))

    def counted(self, value: Any) -> Any:
        """The value as Optuna counts the steps of the range; one between them as it is."""
        if self.exact is None or not isinstance(value, int | float) or not math.isfinite(value):
            return value
        d, near = self.distribution, self.on_steps(value)
        assert isinstance(d, FloatDistribution)
        assert d.step is not None
        if abs(value - near) > CLOSE * d.step:
            return value
        return min(d.low + d.step * round((near - d.low) / d.step), d.high)

    @property
    def range(self) -> str:
        """Its range for people: `[0.01, 0.2]`, or its choices."""
        return str(list(self.ends()))

    def suggest(self, trial: BaseTrial) -> Any:
        """The value that an Optuna trial proposes."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return trial.suggest_categorical(self.name, d.choices)
        if isinstance(d, IntDistribution):
            return trial.suggest_int(self.name, d.low, d.high, step=d.step, log=d.log)
        assert isinstance(d, FloatDistribution)
        return self.on_steps(trial.suggest_float(self.name, d.low, d.high, step=d.step, log=d.log))

    def at(self, quantile: float) -> Any:
        """The value at `quantile` in [0, 1) of the range; on a logarithmic scale where `log`."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return d.choices[int(quantile * len(d.choices))]
        assert isinstance(d, IntDistribution | FloatDistribution)
        if d.log:
            value = math.exp(math.log(d.low) + quantile * (math.log(d.high) - math.log(d.low)))
        elif d.step:
            value = d.low + d.step * int(quantile * (self.steps + 1))
        else:
            value = d.low + quantile * (d.high - d.low)
        value = min(max(value, d.low), d.high)
        if isinstance(d, IntDistribution):
            return round(value)
        return self.on_steps(float(value))

    def quantile(self, value: Any) -> float:
        """The place of `value` in the range, in [0, 1): `at` takes it back there.

        A value outside the range is taken to its end; one that is no choice raises ValueError.
        """
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return (d.choices.index(value) + 0.5) / len(d.choices)
        assert isinstance(d, IntDistribution | FloatDistribution)
        if d.high == d.low:
            return 0.0
        inside = min(max(value, d.low), d.high)
        if d.log:
            place = math.log(inside / d.low) / math.log(d.high / d.low)
        else:
            place = (inside - d.low) / (d.high - d.low)
        return min(place, math.nextafter(1, 0))

    def draw(self, rng: np.random.Generator) -> Any:
        """A random value of the range."""
        return self.at(float(rng.random()))

    def near(self, value: Any, width: float, rng: np.random.Generator, kept: float = 1.0) -> Any:
        """A value near this one.

        A number is normally distributed around it, with a deviation of `width` of the range, and
        cut off at the ends. A choice is kept with probability `kept`, or drawn anew.
        """
        if isinstance(self.distribution, CategoricalDistribution):
            return value if kept == 1.0 or rng.random() < kept else self.draw(rng)
        middle = self.quantile(value)
        while not 0 <= (place := float(rng.normal(middle, width))) < 1:
            pass
        return self.at(place)


def _fraction(number: float) -> Fraction:
    """The ratio that was written: 8/255, or the decimals of any other number."""
    ratio = Fraction(number).limit_denominator(1_000_000)
    return ratio if float(ratio) == number else Fraction(repr(number))


def _decimal_steps(low: float, high: float, step: float) -> FloatDistribution:
    """The range with ends and step of at most `DECIMALS` decimals, or those that a step needs.

    Ratios such as 8/255 have more than a step can be counted in: Optuna would cut the last one off.
    """
    count = round((high - low) / step)
    decimals = max(DECIMALS, 6 - math.floor(math.log10(step)))
    low, step = round(low, decimals), round(step, decimals)
    return FloatDistribution(low, round(low + count * step, decimals), step=step)


_Ratio = Annotated[float, BeforeValidator(ratio)]


class ParameterFile(Section):
    """A parameter as it stands in YAML."""

    floats: tuple[_Ratio, _Ratio] | None = Field(None, alias="float")
    ints: tuple[int, int] | None = Field(None, alias="int")
    choice: list[Scalar] | None = None
    log: bool = False
    step: Annotated[_Ratio, Field(gt=0)] | None = None
    when: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict)
    prior: Scalar = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [
            kind
            for kind, value in {
                "float": self.floats,
                "int": self.ints,
                "choice": self.choice,
            }.items()
            if value is not None
        ]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of float, int, choice; got {given or 'none'}")
        if self.choice is not None and (self.log or self.step is not None):
            raise ValueError("log and step are for float and int, not for choice")
        return self

    def build(self, name: str, method_names: Sequence[str] = ()) -> Parameter:
        """The parameter of this name, in a space of these methods. Values have their fields' types.

        Raises SpaceError where its range, its list of choices or its prior is illegal.
        """
        found = self._without_prior(name, method_names)
        if self.prior is None:
            return found
        prior = typed(name, self.prior, method_names)
        choice = isinstance(found.distribution, CategoricalDistribution)
        # true would be read as 1
        if (isinstance(self.prior, bool) and not choice) or not found.holds(prior):
            raise SpaceError(
                f"search.{name}: its prior must be in {found.range}, got {self.prior!r}; move an"
                " end, or leave it out"
            )
        return replace(found, prior=prior)

    def _without_prior(self, name: str, method_names: Sequence[str]) -> Parameter:
        conditions = {
            parent: tuple(
                typed(parent, value, method_names)
                for value in (allowed if isinstance(allowed, list) else [allowed])
            )
            for parent, allowed in self.when.items()
        }
        if self.choice is not None:
            choices = [typed(name, value, method_names) for value in self.choice]
            if not choices or len(set(map(repr, choices))) != len(choices):
                raise SpaceError(
                    f"search.{name}: choice needs one or more different values, got {self.choice}"
                )
            return Parameter(name, CategoricalDistribution(choices), conditions)
        ends = self.floats if self.floats is not None else self.ints
        assert ends is not None, "one kind is given"
        low, high = ends
        step = self.step
        if not low <= high:
            raise SpaceError(f"search.{name}: low <= high must hold, got (low={low}, high={high})")
        if self.log and low <= 0:
            raise SpaceError(f"search.{name}: log needs low > 0, got {low}")
        if self.log and step is not None:
            raise SpaceError(f"search.{name}: log and step exclude each other; leave one out")
        if step is not None and abs((high - low) / step - round((high - low) / step)) > 1e-8:
            raise SpaceError(
                f"search.{name}: step {step:g} must divide the range from {low:g} to {high:g};"
                " move an end"
            )
        if self.ints is not None:
            if step is not None and step != int(step):
                raise SpaceError(f"search.{name}: the step of an int must be whole, got {step}")
            whole = 1 if step is None else int(step)
            return Parameter(
                name, IntDistribution(*self.ints, log=self.log, step=whole), conditions
            )
        if step is not None:
            exact = _fraction(low), _fraction(step)
            return Parameter(name, _decimal_steps(low, high, step), conditions, exact=exact)
        return Parameter(name, FloatDistribution(low, high, log=self.log), conditions)

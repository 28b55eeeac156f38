"""The search space: what is fixed, what is searched, and a proof that every corner of it is a legal run.

    fixed:   any TrainConfig field, by dotted name or nested
    search:  name: {float: [low, high], log: true} | {int: [low, high], step: 2} | {choice: [a, b]}, each with an optional `when`
    first:   configurations tried before anything else, to full length

A parameter with `when: {method.name: [rslad, iad]}` exists only where all its conditions hold; their names stand above it.
No expressions, no interpolation, no tags.
"""

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from rkdsearch import config as run
from rkdsearch.config import TrainConfig
from rkdsearch.errors import ConfigError, SpaceError
from rkdsearch.search import ladder
from rkdsearch.search.settings import Constraints, Replicates, Rung, SamplerConfig, SchedulerConfig

Scalar = bool | int | float | str | None
FIRST_LABEL = "label"
PROTECTED = {
    "validation": "the exam must be one for all trials; set it under `fixed`",
    "data": "all trials must meet the same images; set it under `fixed`",
    "teachers": "they are measured once, and every trial is given these; set it under `fixed`",
    "training.epochs": "length is the ladder's business; set `ladder`",
}
METRICS = ("clean_accuracy", "robust_accuracy", "worst_class_accuracy")


@dataclass(frozen=True)
class Parameter:
    """One searched value: its name, its distribution, and the conditions under which it exists."""

    name: str
    distribution: BaseDistribution
    when: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)

    def exists(self, values: Mapping[str, Any]) -> bool:
        """Whether all conditions hold for these dotted names."""
        return all(parent in values and values[parent] in allowed for parent, allowed in self.when.items())

    def holds(self, value: object) -> bool:
        """Whether the value lies in the range, or is one of the choices."""
        try:
            return bool(self.distribution._contains(self.distribution.to_internal_repr(value)))  # noqa: SLF001 - Optuna has no public question for it
        except (TypeError, ValueError):
            return False

    def ends(self) -> tuple[Any, ...]:
        """Both ends of a range, or every choice."""
        d = self.distribution
        return tuple(d.choices) if isinstance(d, CategoricalDistribution) else (d.low, d.high)  # type: ignore[attr-defined]  # the two numeric kinds

    def suggest(self, trial: BaseTrial) -> Any:
        """Ask an Optuna trial."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return trial.suggest_categorical(self.name, d.choices)
        if isinstance(d, IntDistribution):
            return trial.suggest_int(self.name, d.low, d.high, step=d.step, log=d.log)
        assert isinstance(d, FloatDistribution)
        return trial.suggest_float(self.name, d.low, d.high, step=d.step, log=d.log)

    def at(self, quantile: float) -> Any:
        """The value at `quantile` of [0, 1) of the range: even in the logarithm where `log`, else even."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return d.choices[int(quantile * len(d.choices))]
        assert isinstance(d, IntDistribution | FloatDistribution)
        if d.log:
            value = math.exp(math.log(d.low) + quantile * (math.log(d.high) - math.log(d.low)))
        elif d.step:
            value = d.low + d.step * int(quantile * (round((d.high - d.low) / d.step) + 1))
        else:
            value = d.low + quantile * (d.high - d.low)
        value = min(max(value, d.low), d.high)
        return round(value) if isinstance(d, IntDistribution) else float(value)

    def draw(self, rng: np.random.Generator) -> Any:
        """A value drawn at random from the range."""
        return self.at(float(rng.random()))


def _ratio(value: object) -> object:
    """`8/255` as the number that it is: the rule of the run's own fields."""
    return TypeAdapter(run.Pixels).validate_python(value) if isinstance(value, str) and "/" in value else value


_Ratio = Annotated[float, BeforeValidator(_ratio)]


class _ParameterFile(BaseModel):
    """A parameter as YAML writes it."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    floats: tuple[_Ratio, _Ratio] | None = Field(None, alias="float")
    ints: tuple[int, int] | None = Field(None, alias="int")
    choice: list[Scalar] | None = None
    log: bool = False
    step: float | None = Field(None, gt=0)
    when: dict[str, Scalar | list[Scalar]] = {}

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind, value in {"float": self.floats, "int": self.ints, "choice": self.choice}.items() if value is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of float, int, choice; got {given or 'none'}")
        if self.choice is not None and (self.log or self.step is not None):
            raise ValueError("log and step are for float and int, not for choice")
        return self

    def build(self, name: str) -> Parameter:
        conditions = {parent: tuple(v) if isinstance(v, list) else (v,) for parent, v in self.when.items()}
        if self.choice is not None:
            if not self.choice or len(set(map(repr, self.choice))) != len(self.choice):
                raise SpaceError(f"search.{name}: choice needs one or more different values, got {self.choice}")
            return Parameter(name, CategoricalDistribution(self.choice), conditions)
        ends = self.floats if self.floats is not None else self.ints
        assert ends is not None, "one kind is given"
        low, high = ends
        if not low <= high:
            raise SpaceError(f"search.{name}: low <= high must hold, got (low={low}, high={high})")
        if self.log and low <= 0:
            raise SpaceError(f"search.{name}: log needs low > 0, got {low}")
        if self.log and self.step is not None:
            raise SpaceError(f"search.{name}: log and step exclude each other; leave one out")
        if self.step is not None and abs((high - low) / self.step - round((high - low) / self.step)) > 1e-8:
            raise SpaceError(f"search.{name}: step {self.step:g} must divide the range from {low:g} to {high:g}; move an end")
        if self.ints is not None:
            step = 1 if self.step is None else int(self.step)
            if self.step is not None and step != self.step:
                raise SpaceError(f"search.{name}: the step of an int must be whole, got {self.step}")
            return Parameter(name, IntDistribution(*self.ints, log=self.log, step=step), conditions)
        return Parameter(name, FloatDistribution(low, high, log=self.log, step=self.step), conditions)


class Resources(BaseModel):
    """What one trial takes. `processes` > 1 makes it a gang with Accelerate in each."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    cpu: float = Field(1, gt=0, description="CPUs of one process")
    gpu: float = Field(0, ge=0, description="GPUs of one process; fractions share a GPU")
    processes: int = Field(1, ge=1, description="processes of one trial")
    max_failures: int = Field(3, ge=0, description="how often a trial whose worker or node was lost is started again")


class _SpaceFile(BaseModel):
    """A search space as YAML writes it."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    extends: str | None = None
    fixed: dict[str, Any] = {}
    search: dict[str, _ParameterFile] = {}
    first: list[dict[str, Any]] = []
    objectives: list[Literal["clean_accuracy", "robust_accuracy", "worst_class_accuracy"]] = ["clean_accuracy", "robust_accuracy"]
    constraints: Constraints = Constraints()
    ladder: list[Rung] = Field(min_length=1)
    sampler: SamplerConfig = SamplerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    replicates: Replicates = Replicates()
    resources: Resources = Resources()
    seed: int = Field(0, ge=0, lt=2**31)


@dataclass(frozen=True)
class First:
    """A configuration that is tried before anything else, to full length."""

    label: str
    overrides: Mapping[str, Any]


@dataclass(frozen=True)
class SearchSpace:
    """A checked search space. `text` is the YAML it was read from, for the record."""

    name: str
    text: str
    fixed: Mapping[str, Any]
    parameters: tuple[Parameter, ...]
    first: tuple[First, ...]
    objectives: tuple[str, ...]
    constraints: Constraints
    ladder: tuple[Rung, ...]
    sampler: SamplerConfig
    scheduler: SchedulerConfig
    replicates: Replicates
    resources: Resources
    seed: int

    @staticmethod
    def load(file: Path) -> "SearchSpace":
        """Read, resolve `extends` (one file, one level) and check the grammar. Raises SpaceError, before any compute."""
        values = _read(file)
        text = file.read_text(encoding="utf-8")
        if "extends" in values:
            parent_file = file.parent / str(values.pop("extends"))
            parent = _read(parent_file)
            if "extends" in parent:
                raise SpaceError(f"{file}: extends {parent_file.name}, which extends another file; one level is allowed")
            values = _extended(parent, values, file)
        try:
            parsed = _SpaceFile.model_validate(values)
        except ValidationError as error:
            raise SpaceError(run.sentence(error, _SpaceFile, str(file))) from None
        try:
            return _build(parsed, file.stem, text)
        except (SpaceError, ConfigError) as error:
            raise SpaceError(f"{file}: {error}") from None

    # -------------------------------------------------------------------------------------------------------------- asking

    def walk(self, choose: Callable[[Parameter], Any]) -> dict[str, Any]:
        """Overrides by dotted name: every parameter whose conditions hold gets `choose(parameter)`."""
        known = dict(self.fixed)
        chosen: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.exists(known):
                known[parameter.name] = chosen[parameter.name] = choose(parameter)
        return chosen

    def ask(self, trial: BaseTrial) -> dict[str, Any]:
        """Overrides that an Optuna trial proposes."""
        return self.walk(lambda parameter: parameter.suggest(trial))

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """Overrides drawn at random."""
        return self.walk(lambda parameter: parameter.draw(rng))

    def config(self, overrides: Mapping[str, Any], place: str = "") -> TrainConfig:
        """The whole run: `fixed`, then `overrides`, at full length."""
        values = run.merge(self.fixed, overrides, place or self.name)
        return run.build(run.merge(values, {"training.epochs": self.epochs}), place or self.name)

    @property
    def epochs(self) -> int:
        """The length of a full run."""
        return self.ladder[-1].epochs

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """The rungs before the end, lowest first."""
        return self.ladder[:-1]

    def searched(self, overrides: Mapping[str, Any]) -> dict[str, Any] | None:
        """The values of exactly the searched parameters that exist here, or None where one is missing or outside its range."""
        known = {**self.fixed, **overrides}
        found: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.exists(known):
                if parameter.name not in known:
                    return None
                if not parameter.holds(known[parameter.name]):
                    return None
                found[parameter.name] = known[parameter.name]
        return found

    def ladder_lines(self, trials: int | None) -> list[str]:
        """The ladder for people: how many trials stand on each rung, and what the search costs in full runs, before it starts."""
        rng = np.random.default_rng(self.seed)
        examples = [self.config(self.sample(rng)) for _ in range(20)]
        firsts = len(self.first) if trials is None else min(len(self.first), trials)
        found = ladder.lines(self.ladder, self.scheduler, examples, trials=trials, firsts=firsts)
        if self.replicates.seeds:
            found.append(
                f"then up to {self.replicates.contenders} contenders again, to full length, with {self.replicates.seeds} fresh seeds each"
            )
        return found

    @cached_property
    def method_names(self) -> tuple[str, ...]:
        """Every method that a trial of this space may use."""
        by_choice = [c for p in self.parameters if p.name == "method.name" for c in p.ends()]
        named = [self.fixed.get("method.name"), *by_choice, *(f.overrides.get("method.name") for f in self.first)]
        return tuple(dict.fromkeys(str(n) for n in named if n is not None))

    # -------------------------------------------------------------------------------------------------------------- proving

    def check(self, samples: int = 100) -> int:
        """Build the run at both ends of every parameter, for `first`, and for random samples; returns how many were built.

        Raises SpaceError with the parameter and the value that break a law.
        """
        built = 0
        for case, overrides in self.cases(samples):
            config = self._legal(case, overrides)
            if not case.startswith("first"):  # those run to full length, whatever a rung says
                self._laws_of_the_ladder(case, config)
            built += 1
        return built

    def cases(self, samples: int = 100) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Name and overrides of `first`, of a random run at either end of every parameter, and of so many random samples."""
        rng = np.random.default_rng(self.seed)
        for number, first in enumerate(self.first):
            yield f"first[{number}] ({first.label})", first.overrides
        for target in self.parameters:
            for end in target.ends():
                yield f"search.{target.name} at {end!r}", self._with(target, end, rng)
        for number in range(samples):
            yield f"random sample {number}", self.sample(rng)

    def _with(self, target: Parameter, value: object, rng: np.random.Generator) -> dict[str, Any]:
        """A random sample in which `target` exists and has this value."""
        forced = self._ancestors(target)

        def choose(parameter: Parameter) -> Any:
            if parameter is target:
                return value
            if parameter.name in forced:
                allowed = [c for c in forced[parameter.name] if c in parameter.ends()]
                if allowed:
                    return allowed[int(rng.integers(len(allowed)))]
            return parameter.draw(rng)

        overrides = self.walk(choose)
        if target.name not in overrides:
            raise SpaceError(f"search.{target.name}: its conditions {dict(target.when)} can never hold")
        return overrides

    def _ancestors(self, target: Parameter) -> dict[str, tuple[Scalar, ...]]:
        by_name = {p.name: p for p in self.parameters}
        conditions: dict[str, tuple[Scalar, ...]] = {}
        waiting = [target]
        while waiting:
            for parent, allowed in waiting.pop().when.items():
                both = tuple(a for a in conditions.get(parent, allowed) if a in allowed)
                conditions[parent] = both
                if parent in by_name:
                    waiting.append(by_name[parent])
        return conditions

    def _legal(self, case: str, overrides: Mapping[str, Any]) -> TrainConfig:
        try:
            return self.config(overrides, case)
        except ConfigError as error:
            raise SpaceError(f"{error}") from None

    def _laws_of_the_ladder(self, case: str, config: TrainConfig) -> None:
        warm_up = getattr(config.method, "warm_up", 0.0)
        end = round(warm_up * self.epochs)
        early = [rung.epochs for rung in self.rungs if rung.epochs <= end]
        if early:
            raise SpaceError(
                f"{case}: no rung may stand before the end of a method's warm-up, where all settings look alike: "
                f"warm_up {warm_up:g} of {self.epochs} epochs ends with epoch {end}, and a rung stands at {early[-1]}; "
                f"shorten the warm-up or raise the rung"
            )


# ------------------------------------------------------------------------------------------------------------------ reading


def _read(file: Path) -> dict[str, Any]:
    try:
        values = run.read_yaml(file)
    except ConfigError as error:
        raise SpaceError(str(error)) from None
    known = list(_SpaceFile.model_fields)
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            raise SpaceError(
                f"{file}: unknown field {name}; " + (f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known)}")
            )
    return values


def _extended(parent: dict[str, Any], child: dict[str, Any], file: Path) -> dict[str, Any]:
    """The child's names over the parent's; `first` and `ladder` are replaced whole, a parameter that is null or fixed is no longer searched."""
    values = {**parent, **child}
    try:
        values["fixed"] = run.merge(parent.get("fixed") or {}, child.get("fixed") or {}, str(file))
    except ConfigError as error:
        raise SpaceError(str(error)) from None
    search = {**(parent.get("search") or {}), **(child.get("search") or {})}
    fixed_now = run.flatten_tree(run.nest(child.get("fixed") or {}))
    own = child.get("search") or {}
    kept = {k: v for k, v in search.items() if v is not None and (k in own or k not in fixed_now)}
    values["search"] = _narrowed(_parents_first(kept), set(own), run.flatten_tree(run.nest(values["fixed"])))
    return values


def _narrowed(search: dict[str, Any], own: set[str], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Inherited parameters lose the conditions that the child made impossible, and go where none is left: fewer methods need no more words."""
    kept: dict[str, Any] = {}
    for name, described in search.items():
        if name in own or not isinstance(described, dict) or not isinstance(described.get("when"), dict):
            kept[name] = described
            continue
        when: dict[str, Any] = {}
        for parent, allowed in described["when"].items():
            asked = allowed if isinstance(allowed, list) else [allowed]
            above = kept.get(parent)
            choices = above.get("choice") if isinstance(above, dict) else [fixed[parent]] if parent in fixed else []
            when[parent] = asked if choices is None else [value for value in asked if value in choices]
        if all(when.values()):
            kept[name] = {**described, "when": when}
    return kept


def _parents_first(search: dict[str, Any]) -> dict[str, Any]:
    """The same parameters, each behind those that its `when` names: the child's condition may stand below an inherited name."""
    ordered: dict[str, Any] = {}

    def place(name: str, below: tuple[str, ...] = ()) -> None:
        described = search[name]
        when = described.get("when") if isinstance(described, dict) else None
        for parent in when if isinstance(when, dict) else ():
            if parent in search and parent not in below:
                place(parent, (*below, name))
        ordered.setdefault(name, described)

    for name in search:
        place(name)
    return ordered


def _parameters(parsed: _SpaceFile, fixed: Mapping[str, Any]) -> list[Parameter]:
    parameters: list[Parameter] = []
    for dotted, described in parsed.search.items():
        _refuse_protected(dotted, f"search.{dotted} must not be searched")
        if dotted in fixed:
            raise SpaceError(f"{dotted} is both fixed and searched; leave one out")
        parameter = described.build(dotted)
        for parent, allowed in parameter.when.items():
            above = next((p for p in parameters if p.name == parent), None)
            if above is None and parent not in fixed:
                raise SpaceError(f"search.{dotted}: `when` names {parent}, which stands neither above it nor under `fixed`")
            if above is not None and not isinstance(above.distribution, CategoricalDistribution):
                raise SpaceError(f"search.{dotted}: `when` asks for values of {parent}, which is a range; a condition needs a choice")
            unknown = [a for a in allowed if above is not None and a not in above.ends()]
            if unknown:
                raise SpaceError(f"search.{dotted}: `when` asks {parent} to be {unknown[0]!r}, which is not among {list(above.ends())}")  # type: ignore[union-attr]  # above is there
        parameters.append(parameter)
    return parameters


def _refuse_protected(dotted: str, law: str) -> None:
    for protected, why in PROTECTED.items():
        if dotted == protected or dotted.startswith(protected + "."):
            raise SpaceError(f"{law}: {why}")


def _build(parsed: _SpaceFile, name: str, text: str) -> SearchSpace:
    fixed = run.flatten_tree(run.nest(parsed.fixed, "fixed"))
    parameters = _parameters(parsed, fixed)
    if "training.epochs" in fixed:
        raise SpaceError(
            f"fixed.training.epochs: length is the ladder's business; the last rung ({parsed.ladder[-1].epochs} epochs) is the full run"
        )
    fault = ladder.faults(parsed.ladder)
    if fault is not None:
        raise SpaceError(fault)
    if len(set(parsed.objectives)) != len(parsed.objectives) or len(parsed.objectives) < 2:
        raise SpaceError(f"objectives: two or more different metrics are needed, got {parsed.objectives}; there are {', '.join(METRICS)}")
    first = []
    for number, entry in enumerate(parsed.first):
        overrides = run.flatten_tree(run.nest({k: v for k, v in entry.items() if k != FIRST_LABEL}, f"first[{number}]"))
        for dotted in overrides:
            _refuse_protected(dotted, f"first[{number}]: {dotted} must not differ from trial to trial")
        first.append(First(str(entry.get(FIRST_LABEL, f"first {number}")), overrides))
    return SearchSpace(
        name=name,
        text=text,
        fixed=fixed,
        parameters=tuple(parameters),
        first=tuple(first),
        objectives=tuple(parsed.objectives),
        constraints=parsed.constraints,
        ladder=tuple(parsed.ladder),
        sampler=parsed.sampler,
        scheduler=parsed.scheduler,
        replicates=parsed.replicates,
        resources=parsed.resources,
        seed=parsed.seed,
    )


def dump(overrides: Mapping[str, Any]) -> str:
    """Overrides as YAML, for people."""
    return yaml.safe_dump(dict(overrides), sort_keys=False)

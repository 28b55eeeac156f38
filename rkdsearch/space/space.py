"""A search space: fixed values, searched parameters, baselines, and the runs that they describe.

`grammar.py` reads its file, `parameter.py` has one searched value, `check.py` builds a run from
every corner.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.trial import BaseTrial

from rkdsearch import config as run
from rkdsearch.config import TrainConfig
from rkdsearch.config.fidelity import Fidelity
from rkdsearch.errors import ConfigError, SpaceError, did_you_mean
from rkdsearch.results.objectives import COSTS
from rkdsearch.space import earlier, grammar, ladder, refusals, shipped
from rkdsearch.space.baselines import Baseline, baselines
from rkdsearch.space.forecast import Forecast
from rkdsearch.space.parameter import Parameter
from rkdsearch.space.settings import (
    Constraints,
    Replicates,
    Resources,
    SamplerConfig,
    SchedulerConfig,
)

PROTECTED = {
    "validation": "all trials must have the same validation; set it under `fixed`",
    "data": "all trials must have the same images; set it under `fixed`",
    "teachers": "all trials must have the same teachers, measured once; set it under `fixed`",
    "training.epochs": "the last rung is the full length; set `ladder`",
}


@dataclass(frozen=True)
class SearchSpace:
    """A search space with legal values.

    A value that a parent file fixes and its child searches stays in `fixed`: baselines that do not
    name it have it, and runs in which the parameter does not exist.
    `text` is the YAML that it was read from, `merged` its values over the files that it extends.
    """

    name: str
    text: str
    merged: Mapping[str, Any]
    fixed: Mapping[str, Any]
    parameters: tuple[Parameter, ...]
    baselines: tuple[Baseline, ...]
    objectives: tuple[str, ...]
    constraints: Constraints
    ladder: tuple[Fidelity, ...]
    sampler: SamplerConfig
    scheduler: SchedulerConfig
    replicates: Replicates
    resources: Resources
    seed: int

    @staticmethod
    def load(
        file: Path | str,
        notice: Callable[[str], None] = lambda _: None,
        known: Iterable[earlier.Entry] = (),
    ) -> "SearchSpace":
        """Read a YAML file, or a shipped space such as `rkdsearch:digits`, and check its values.

        `notice` is given a sentence for each old name. `known` is the `first` of the study that
        goes on: what it has read from earlier studies is not read again. Raises SpaceError.
        """
        file = shipped.located(file)
        parsed = grammar.read(file, notice)
        first = earlier.with_fronts(parsed.first, known, str(file), notice)
        if first != parsed.first:
            parsed = parsed.model_copy(update={"first": first})
        try:
            return _built(parsed, file.stem, file.read_text(encoding="utf-8"))
        except (SpaceError, ConfigError) as error:
            raise SpaceError(f"{file}: {error}") from None

    @staticmethod
    def of(merged: Mapping[str, Any], name: str) -> "SearchSpace":
        """The space of a study, whose file may be gone, by its `merged` values.

        Raises SpaceError.
        """
        try:
            return _built(grammar.parsed(merged, name), name, "")
        except ConfigError as error:
            raise SpaceError(f"{name}: {error}") from None

    def walk(self, choose: Callable[[Parameter], Any]) -> dict[str, Any]:
        """Hyperparameters by dotted name: `choose(parameter)` for each whose conditions hold."""
        known = dict(self.fixed)
        chosen: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.exists(known):
                known[parameter.name] = chosen[parameter.name] = choose(parameter)
        return chosen

    def ask(self, trial: BaseTrial) -> dict[str, Any]:
        """The hyperparameters that an Optuna trial proposes."""
        return self.walk(lambda parameter: parameter.suggest(trial))

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """Hyperparameters drawn at random."""
        return self.walk(lambda parameter: parameter.draw(rng))

    def config(self, overrides: Mapping[str, Any], place: str = "") -> TrainConfig:
        """The run at full length: `overrides` over `fixed`.

        Raises ConfigError, with `place` before the field, where it is not legal.
        """
        place = place or self.name
        values = run.merge(self.fixed, overrides, place)
        return run.build(run.merge(values, {"training.epochs": self.epochs}, place), place)

    def example(self) -> TrainConfig:
        """A random run of the space. Data, validation and teachers are the same in every run."""
        return self.examples(1)[0]

    def examples(self, count: int = 20) -> list[TrainConfig]:
        """Random runs of the space, the same at every call."""
        rng = np.random.default_rng(self.seed)
        return [self.config(self.sample(rng)) for _ in range(count)]

    @property
    def epochs(self) -> int:
        """The length of a full run."""
        return self.ladder[-1].epochs

    @property
    def rungs(self) -> tuple[Fidelity, ...]:
        """The rungs before the end, lowest first."""
        return self.ladder[:-1]

    def searched(self, config: TrainConfig) -> dict[str, Any] | None:
        """The searched hyperparameters of a run; None where one is outside its range.

        A run has all of them, also those that were left to their defaults.
        """
        found, outside = self.coordinates(values_of(config))
        return None if outside else found

    def coordinates(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The searched hyperparameters among a run's values, and what is outside its range.

        The latter as ends of a sentence.
        """
        known = {**self.fixed, **values}
        found: dict[str, Any] = {}
        outside: list[str] = []
        for parameter in self.parameters:
            if not parameter.exists(known):
                continue
            value = known.get(parameter.name)
            if parameter.holds(value):
                found[parameter.name] = value
            else:
                outside.append(f"{parameter.name} {value} is outside {parameter.range}")
        return found, outside

    def not_given(self, values: Mapping[str, Any]) -> list[str]:
        """Names of the searched parameters that these values leave to a run's defaults."""
        known = {**self.fixed, **values}
        return [p.name for p in self.parameters if p.exists(known) and p.name not in known]

    def forecast(self, trials: int | None) -> list[str]:
        """Lines about a search of `trials` trials: trials on each rung, cost in full runs."""
        return list(self._forecast(trials).lines())

    def full_runs(self, trials: int) -> tuple[float, float]:
        """The expected cost of a search with its replicates, in full runs: least and most.

        The most is with all the proposals near baselines that there may be.
        """
        forecast = self._forecast(trials)
        least = forecast.full_runs(trials)
        return least, least + forecast.of_beliefs(trials)

    def _forecast(self, trials: int | None) -> Forecast:
        baselines = len(self.baselines) if trials is None else min(len(self.baselines), trials)
        return Forecast(
            self.ladder,
            self.scheduler,
            self.replicates,
            self.examples(),
            trials=trials,
            baselines=baselines,
            families=self.families(baselines),
            methods=len(self.method_names),
            believable=self._believable(baselines),
            owed=self.owed,
            beliefs=self.sampler.beliefs,
        )

    def families(self, baselines: int | None = None) -> int:
        """Number of families among the first baselines, or all: a grid's points are one family."""
        return len({baseline.family for baseline in self.baselines[:baselines]})

    def _believable(self, baselines: int) -> int:
        """Number of families among the first baselines whose method the search may propose."""
        fixed = self.fixed.get("method.name")
        return len(
            {
                baseline.family
                for baseline in self.baselines[:baselines]
                if self.searches_method(baseline.overrides.get("method.name", fixed))
            }
        )

    @property
    def owed(self) -> int:
        """Proposals that `sampler.minimum_per` asks for."""
        return max(
            (
                minimum * len(parameter.ends())
                for parameter in self.parameters
                for name, minimum in self.sampler.minimum_per.items()
                if parameter.name == name
            ),
            default=0,
        )

    @property
    def costs(self) -> tuple[str, ...]:
        """The costs of a student that are objectives or constraints, counted before training."""
        asked = {*self.objectives, *self.constraints.model_dump(exclude_none=True)}
        return tuple(name for name in COSTS if name in asked)

    def searches_method(self, name: object) -> bool:
        """True where the search may propose this method."""
        methods = next((p for p in self.parameters if p.name == "method.name"), None)
        return self.fixed.get("method.name") == name if methods is None else methods.holds(name)

    @cached_property
    def method_names(self) -> tuple[str, ...]:
        """The methods that trials of this space may use."""
        by_choice = [c for p in self.parameters if p.name == "method.name" for c in p.ends()]
        fixed = self.fixed.get("method.name")
        named = [
            *(by_choice or [fixed]),
            *(b.overrides.get("method.name", fixed) for b in self.baselines),
        ]
        return tuple(dict.fromkeys(str(n) for n in named if n is not None))


def values_of(config: TrainConfig) -> dict[str, Any]:
    """All values of a run by dotted name, those of its student's defaults included."""
    sized = {f"student.{name}": value for name, value in config.student.sized.items()}
    return run.flatten_tree(config.to_dict()) | sized


def _built(parsed: grammar.SpaceFile, name: str, text: str) -> SearchSpace:
    named = _method_names(parsed)
    fixed = run.typed_leaves(run.flatten_tree(run.nest(parsed.fixed, "fixed")), named)
    parameters = _parameters(parsed, fixed, named)
    if "training.epochs" in fixed:
        raise SpaceError(
            "fixed.training.epochs: the ladder has the full length; the last rung"
            f" ({parsed.ladder[-1].epochs} epochs) is the full run"
        )
    broken = ladder.broken_law(parsed.ladder, parsed.scheduler)
    if broken is not None:
        raise SpaceError(broken)
    refusals.refuse(parsed, parameters)
    found = tuple(baselines(parsed.first, fixed, named, parsed.search))
    for baseline in found:
        refuse_shared(baseline.overrides, baseline.place)
    return SearchSpace(
        name=name,
        text=text,
        merged=parsed.model_dump(mode="json", by_alias=True, exclude_unset=True),
        fixed=fixed,
        parameters=tuple(parameters),
        baselines=found,
        objectives=tuple(parsed.objectives),
        constraints=parsed.constraints,
        ladder=tuple(parsed.ladder),
        sampler=parsed.sampler,
        scheduler=parsed.scheduler,
        replicates=parsed.replicates,
        resources=parsed.resources,
        seed=parsed.seed,
    )


def _method_names(parsed: grammar.SpaceFile) -> list[str]:
    """The methods that the file names: searched ones, and the fixed one."""
    searched = parsed.search.get("method.name")
    choices = (searched.choice if searched is not None else None) or []
    fixed = run.flatten_tree(parsed.fixed).get("method.name")
    return [str(name) for name in (*choices, fixed) if name is not None]


def _parameters(
    parsed: grammar.SpaceFile, fixed: Mapping[str, Any], method_names: Sequence[str]
) -> list[Parameter]:
    parameters: list[Parameter] = []
    for dotted, described in parsed.search.items():
        _refuse_protected(dotted, f"search.{dotted} must not be searched")
        if dotted == "training.seed":
            raise SpaceError(
                "search.training.seed must not be searched: a seed is luck and no setting;"
                " `replicates.seeds` trains the contenders with several"
            )
        parameter = described.build(dotted, method_names)
        for parent, allowed in parameter.when.items():
            above = next((p for p in parameters if p.name == parent), None)
            if above is None:
                if parent not in fixed:
                    raise SpaceError(
                        f"search.{dotted}: `when` names {parent}, which stands neither above it nor"
                        " under `fixed`; "
                        + did_you_mean(
                            parent,
                            [*(p.name for p in parameters), *fixed],
                            "search or fix it above, or leave the condition out",
                        )
                    )
                continue
            if not isinstance(above.distribution, CategoricalDistribution):
                raise SpaceError(
                    f"search.{dotted}: `when` asks for values of {parent}, which is a range; a"
                    " condition needs a choice"
                )
            choices = above.ends()
            unknown = [a for a in allowed if a not in choices]
            if unknown:
                raise SpaceError(
                    f"search.{dotted}: `when` asks {parent} to be {unknown[0]!r}, which is not"
                    f" among {list(choices)}; "
                    + did_you_mean(
                        str(unknown[0]), [str(c) for c in choices], "add it there, or leave it out"
                    )
                )
        parameters.append(parameter)
    return parameters


def refuse_shared(overrides: Iterable[str], place: str) -> None:
    """Raise SpaceError where a configuration sets what all trials of a study share."""
    for dotted in overrides:
        _refuse_protected(dotted, f"{place}: {dotted} must not differ from trial to trial")


def _refuse_protected(dotted: str, law: str) -> None:
    for protected, why in PROTECTED.items():
        if dotted == protected or dotted.startswith(protected + "."):
            raise SpaceError(f"{law}: {why}")

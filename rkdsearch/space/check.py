"""Space check: builds runs from every corner of a search space and refuses illegal ones.

The corners are every baseline, both ends of every parameter, and random samples. Nothing is
trained.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from rkdsearch import data, models
from rkdsearch.config import TrainConfig, default
from rkdsearch.errors import ConfigError, DataError, SpaceError
from rkdsearch.space import grid
from rkdsearch.space.effects import Effects
from rkdsearch.space.parameter import Parameter, Scalar
from rkdsearch.space.space import SearchSpace, values_of

GRID = 10_000  # combinations that the grid sampler takes, at most


class Case(NamedTuple):
    """A run to build: its name in error messages, and its values over `fixed`."""

    name: str
    overrides: Mapping[str, Any]
    baseline: bool = False


def check_space(space: SearchSpace, samples: int = 100) -> int:
    """Build the run of every case; returns the number of runs.

    Where the space uses costs, every student is built and counted too, if its images are there:
    nothing is downloaded. Raises SpaceError with the parameter, the value and the broken law.
    """
    _check_grid(space)
    runs = [(case, _built(space, case)) for case in cases(space, samples)]
    _check_costs(space, runs)
    baselines: dict[str, str] = {}
    effects = Effects(space)
    for case, config in runs:
        _check_seeds(space, case.name, config)
        if case.baseline:
            duplicate = baselines.setdefault(config.fingerprint(), case.name)
            if duplicate != case.name:
                raise SpaceError(f"{case.name} is the same run as {duplicate}; leave one out")
            continue  # it runs to full length, so no rung compares it too early
        if space.scheduler.name != "none":
            _check_rungs(space, case.name, config)
        effects.add(config, case.overrides)
    effects.check()
    return len(runs)


def _check_grid(space: SearchSpace) -> None:
    """Raise SpaceError where the grid sampler meets a range without steps, or too many points."""
    if space.sampler.name != "grid":
        return
    parameter = grid.endless(space)
    if parameter is not None:
        raise SpaceError(
            f"sampler.name grid: {parameter.name} is a range without steps; give it a `step` or a"
            " `choice`, or take another sampler"
        )
    count = sum(1 for _ in islice(grid.combinations(space), GRID + 1))
    if count > GRID:
        raise SpaceError(
            f"sampler.name grid: the space has more than {GRID:,} combinations; take fewer values,"
            " or another sampler"
        )


def _check_seeds(space: SearchSpace, name: str, config: TrainConfig) -> None:
    """Raise SpaceError where replicates have no seeds left: they count on from the run's own."""
    most = 2**31 - 1 - space.replicates.seeds
    if config.training.seed > most:
        raise SpaceError(
            f"{name}: training.seed must be <= {most}, because its replicates have the"
            f" {space.replicates.seeds} seeds above it, got {config.training.seed}; take a smaller"
            " seed"
        )


def _built(space: SearchSpace, case: Case) -> TrainConfig:
    try:
        return space.config(case.overrides, case.name)
    except ConfigError as error:
        raise SpaceError(str(error)) from None


def _check_costs(space: SearchSpace, runs: Sequence[tuple[Case, TrainConfig]]) -> None:
    """Raise SpaceError where a student cannot be built, or where none keeps the limits.

    Nothing is raised where images are missing, or would have to be downloaded.
    """
    smallest: dict[str, int] = {}
    for case, config in runs:
        if config.data.download:
            return
        try:
            costs = costs_of(config, space.costs)
        except ConfigError as error:
            raise SpaceError(f"{case.name}: {error}") from None
        except DataError:
            return
        if not case.baseline:
            smallest = {name: min(smallest.get(name, cost), cost) for name, cost in costs.items()}
    for name, limit in space.constraints.limits.items():
        if name in smallest and smallest[name] > limit:
            raise SpaceError(
                f"constraints.{name}: no student of this space is within {limit:g}: the smallest"
                f" that was counted has {smallest[name]:,}; raise the limit or search smaller"
                " students"
            )


def notices(space: SearchSpace, samples: int = 100) -> list[str]:
    """Notices about legal settings that are probably mistakes.

    Baselines outside the ranges, rungs inside the rate's warm-up, a training attack in another norm
    than validation's, and settings, fixed values and parameters without an effect.
    """
    found = [text for text in [_rung_in_warm_up(space), *_unused_settings(space)] if text]
    effects, fixed = Effects(space), Effects(space)
    set_names = [name for name, value in space.fixed.items() if value != default(name)]
    other_norm: dict[tuple[str, str], dict[str, None]] = {}
    for case in cases(space, samples):
        config = space.config(case.overrides)
        fixed.add(config, set_names)
        norms = config.attack.norm, config.validation.attack.norm
        if config.method.attacks and norms[0] != norms[1]:
            who = case.name if case.baseline else "searched trials"
            other_norm.setdefault(norms, {})[who] = None
        if not case.baseline:
            effects.add(config, case.overrides)
        elif outside := space.coordinates(values_of(config))[1]:
            found.append(
                f"{case.name}: {' and '.join(outside)}: it is trained, but the sampler does not"
                " learn from it"
            )
    for (training, validation), names in other_norm.items():
        found.append(
            f"attack.norm is {training} and validation.attack.norm is {validation} in"
            f" {', '.join(names)}: trained in one ball and measured in another, whose eps are no"
            f" common measure; set attack.norm to {validation}, unless that is meant"
        )
    return [*found, *fixed.read_by_none("fixed"), *effects.notices()]


def _searches_a_baselines_method(space: SearchSpace) -> bool:
    fixed = space.fixed.get("method.name")
    return any(
        space.searches_method(baseline.overrides.get("method.name", fixed))
        for baseline in space.baselines
    )


def _unused_settings(space: SearchSpace) -> Iterator[str]:
    """Sentences about settings of the search that nothing reads."""
    sampler, scheduler = space.sampler, space.scheduler
    if sampler.beliefs != "none" and not space.baselines:
        yield (
            f"sampler.beliefs {sampler.beliefs}: has no effect, there is no baseline under `first`;"
            " name one, or set it to none"
        )
    elif sampler.beliefs != "none" and not _searches_a_baselines_method(space):
        yield (
            f"sampler.beliefs {sampler.beliefs}: has no effect, no baseline under `first` has a"
            " method that is searched; name one, or set it to none"
        )
    if scheduler.metric and scheduler.name != "asha":
        yield (
            f"scheduler.metric: has no effect where scheduler.name is {scheduler.name}, asha alone"
            " ranks by one number; take asha, or leave it out"
        )


def _rung_in_warm_up(space: SearchSpace) -> str:
    """The sentence about a rung at which no rate has been whole yet; empty where none is."""
    schedule = space.example().schedule
    rising = schedule.warm_up * space.epochs if schedule.name != "onecycle" else 0.0
    early = [rung.epochs for rung in space.rungs if rung.epochs <= rising]
    if not early:
        return ""
    return (
        f"schedule.warm_up {schedule.warm_up:g} of {space.epochs} epochs ends after the rung at"
        f" {early[-1]}: it compares runs at a part of their learning rate; raise the rung, or"
        " shorten the warm-up"
    )


def costs_of(config: TrainConfig, names: Sequence[str]) -> dict[str, int]:
    """The named costs of the run's student, counted without training.

    Raises ConfigError where the student does not fit the images, DataError where images are
    missing.
    """
    if not names:
        return {}
    size = models.size_of(config.student, data.load_training(config.data).train.task)
    return {name: getattr(size, name) for name in names}


def cases(space: SearchSpace, samples: int = 100) -> Iterator[Case]:
    """Every baseline, a random run at each end of every parameter, and `samples` random runs."""
    rng = np.random.default_rng(space.seed)
    for baseline in space.baselines:
        yield Case(f"{baseline.place} ({baseline.label})", baseline.overrides, baseline=True)
    for target in space.parameters:
        for end in target.ends():
            yield Case(f"search.{target.name} at {end!r}", _with(space, target, end, rng))
    for number in range(samples):
        yield Case(f"random sample {number}", space.sample(rng))


def _with(
    space: SearchSpace, target: Parameter, value: object, rng: np.random.Generator
) -> dict[str, Any]:
    """A random sample in which `target` exists and has this value."""
    forced = _ancestors(space, target)

    def choose(parameter: Parameter) -> Any:
        if parameter is target:
            return value
        if parameter.name in forced:
            allowed = [c for c in forced[parameter.name] if c in parameter.ends()]
            if allowed:
                return allowed[int(rng.integers(len(allowed)))]
        return parameter.draw(rng)

    sample = space.walk(choose)
    if target.name not in sample:
        raise SpaceError(f"search.{target.name}: its conditions {dict(target.when)} can never hold")
    return sample


def _ancestors(space: SearchSpace, target: Parameter) -> dict[str, tuple[Scalar, ...]]:
    """The values with which every parameter that `target` depends on lets it exist."""
    by_name = {p.name: p for p in space.parameters}
    conditions: dict[str, tuple[Scalar, ...]] = {}
    waiting = [target]
    while waiting:
        for parent, allowed in waiting.pop().when.items():
            both = tuple(a for a in conditions.get(parent, allowed) if a in allowed)
            conditions[parent] = both
            if parent in by_name:
                waiting.append(by_name[parent])
    return conditions


def _check_rungs(space: SearchSpace, case: str, config: TrainConfig) -> None:
    """Raise SpaceError where a rung compares runs before their hyperparameters have an effect."""
    for delay in _delays(config):
        early = [rung.epochs for rung in space.rungs if rung.epochs <= delay.epochs]
        if early:
            raise SpaceError(
                f"{case}: no rung may stand before {delay.law}: {delay.name} of"
                f" {space.epochs} epochs is {delay.epochs}, and a rung stands at {early[-1]};"
                f" {delay.remedy} or raise the rung"
            )


def undecided_until(config: TrainConfig) -> int:
    """The last epoch in which some hyperparameters have no effect yet; 0 where there is none.

    No rung up to this epoch ranks the run.
    """
    return max(delay.epochs for delay in _delays(config))


class _Delay(NamedTuple):
    """Epochs in which some hyperparameters have no effect; law, field and remedy for an error."""

    epochs: int
    law: str
    name: str
    remedy: str


def _delays(config: TrainConfig) -> tuple[_Delay, ...]:
    warm_up = getattr(config.method, "warm_up", 0.0)
    start = config.averaging.start if config.averaging.name == "swa" else 0.0
    return (
        _Delay(
            round(warm_up * config.training.epochs),
            "the end of a method's warm-up, where all settings look alike",
            f"warm_up {warm_up:g}",
            "shorten the warm-up",
        ),
        _Delay(
            round(start * config.training.epochs),
            "averages begin, where swa is the student itself",
            f"averaging.start {start:g}",
            "average from earlier on",
        ),
    )

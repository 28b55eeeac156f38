"""The proof that every corner of a search space is a legal run, before any compute: both ends of every parameter, `first`, random samples."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rkdsearch import data, models
from rkdsearch.config import TrainConfig
from rkdsearch.errors import ConfigError, DataError, SpaceError
from rkdsearch.space.parameter import Parameter, Scalar

if TYPE_CHECKING:
    from rkdsearch.space.space import SearchSpace


def check(space: "SearchSpace", samples: int = 100) -> int:
    """Build the run of every case; returns how many were built. Raises SpaceError with the parameter and the value that break a law.

    Where the space asks what students cost, every student is built too, for the images that are
    there: one that does not fit them costs nothing that can be counted. Images that are not there
    yet, or would be downloaded, are not waited for.
    """
    built, images_there = 0, True
    for case, overrides in cases(space, samples):
        try:
            config = space.config(overrides, case)
        except ConfigError as error:
            raise SpaceError(str(error)) from None
        if images_there and not config.data.download:
            try:
                costs_of(config, space.costs)
            except ConfigError as error:
                raise SpaceError(f"{case}: {error}") from None
            except DataError:
                images_there = False
        # those run to full length, whatever a rung says
        if space.scheduler.name != "none" and not case.startswith("first"):
            _laws_of_the_ladder(space, case, config)
        built += 1
    return built


def costs_of(config: TrainConfig, names: Sequence[str]) -> dict[str, int]:
    """These costs of the run's student, without training it. Raises ConfigError where it does not fit the images, DataError without images."""
    if not names:
        return {}
    size = models.size_of(config.student, data.load_training(config.data).train.task)
    return {name: getattr(size, name) for name in names}


def cases(space: "SearchSpace", samples: int = 100) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and overrides of `first`, of a random run at either end of every parameter, and of so many random samples."""
    rng = np.random.default_rng(space.seed)
    for number, first in enumerate(space.first):
        yield f"first[{number}] ({first.label})", first.overrides
    for target in space.parameters:
        for end in target.ends():
            yield f"search.{target.name} at {end!r}", _with(space, target, end, rng)
    for number in range(samples):
        yield f"random sample {number}", space.sample(rng)


def _with(
    space: "SearchSpace", target: Parameter, value: object, rng: np.random.Generator
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

    overrides = space.walk(choose)
    if target.name not in overrides:
        raise SpaceError(f"search.{target.name}: its conditions {dict(target.when)} can never hold")
    return overrides


def _ancestors(space: "SearchSpace", target: Parameter) -> dict[str, tuple[Scalar, ...]]:
    """What every parameter above `target` may be, so that it exists."""
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


def _laws_of_the_ladder(space: "SearchSpace", case: str, config: TrainConfig) -> None:
    """No rung stands where a setting cannot be told from another yet."""
    for wait in _waits(config):
        early = [rung.epochs for rung in space.rungs if rung.epochs <= wait.end]
        if early:
            raise SpaceError(
                f"{case}: no rung may stand before {wait.law}: {wait.name} of {space.epochs} epochs"
                f" is {wait.end}, and a rung stands at {early[-1]}; {wait.remedy} or raise the rung"
            )


def undecided_until(config: TrainConfig) -> int:
    """The epoch up to which the run's settings cannot be told from others: no rung up to there ranks it. 0 where they always can."""
    return max(wait.end for wait in _waits(config))


class _Wait(NamedTuple):
    """Up to which epoch a run is like others, and as parts of a sentence: until when that is, by which field, and what else to do."""

    end: int
    law: str
    name: str
    remedy: str


def _waits(config: TrainConfig) -> tuple[_Wait, ...]:
    warm_up = getattr(config.method, "warm_up", 0.0)
    start = config.averaging.start if config.averaging.name == "swa" else 0.0
    return (
        _Wait(
            round(warm_up * config.training.epochs),
            "the end of a method's warm-up, where all settings look alike",
            f"warm_up {warm_up:g}",
            "shorten the warm-up",
        ),
        _Wait(
            round(start * config.training.epochs),
            "averages begin, where swa is the student itself",
            f"averaging.start {start:g}",
            "average from earlier on",
        ),
    )

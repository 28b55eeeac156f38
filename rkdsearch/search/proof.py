"""The proof that every corner of a search space is a legal run, before any compute: both ends of every parameter, `first`, random samples."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rkdsearch.config import TrainConfig
from rkdsearch.errors import ConfigError, SpaceError
from rkdsearch.search.parameter import Parameter, Scalar

if TYPE_CHECKING:
    from rkdsearch.search.space import SearchSpace


def check(space: "SearchSpace", samples: int = 100) -> int:
    """Build the run of every case; returns how many were built. Raises SpaceError with the parameter and the value that break a law."""
    built = 0
    for case, overrides in cases(space, samples):
        try:
            config = space.config(overrides, case)
        except ConfigError as error:
            raise SpaceError(str(error)) from None
        if space.scheduler.name != "none" and not case.startswith("first"):  # those run to full length, whatever a rung says
            _laws_of_the_ladder(space, case, config)
        built += 1
    return built


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


def _with(space: "SearchSpace", target: Parameter, value: object, rng: np.random.Generator) -> dict[str, Any]:
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
    warm_up = getattr(config.method, "warm_up", 0.0)
    start = config.averaging.start if config.averaging.name == "swa" else 0.0
    laws = (
        (warm_up, "the end of a method's warm-up, where all settings look alike", f"warm_up {warm_up:g}", "shorten the warm-up"),
        (start, "averages begin, where swa is the student itself", f"averaging.start {start:g}", "average from earlier on"),
    )
    for share, law, name, remedy in laws:
        end = round(share * space.epochs)
        early = [rung.epochs for rung in space.rungs if rung.epochs <= end]
        if share and early:
            raise SpaceError(
                f"{case}: no rung may stand before {law}: "
                f"{name} of {space.epochs} epochs is {end}, and a rung stands at {early[-1]}; {remedy} or raise the rung"
            )

"""Searched parameters without an effect: legal values that nothing reads in some runs.

`training.label_smoothing` softens hard labels, so it does nothing under a method whose loss has
none. A search would spend trials on a number that changes no run, and learn from noise.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from optuna.distributions import CategoricalDistribution

from rkdsearch import methods
from rkdsearch.config import TrainConfig
from rkdsearch.errors import SpaceError
from rkdsearch.space.space import SearchSpace


class Unread(NamedTuple):
    """A field that nothing reads in a run: `field` has a `value` that makes it so, and why."""

    name: str
    field: str
    value: Any
    why: str


def unread(config: TrainConfig) -> Iterator[Unread]:
    """The fields of this run that change nothing."""
    yield from _unread_attack(config)
    if not config.method.reads_labels:
        why = "whose loss has no hard-label term"
        yield Unread("training.label_smoothing", "method.name", _method(config), why)
    schedule, average = config.schedule.name, config.averaging.name
    if not schedule.startswith("multistep"):
        for name in ("milestones", "factor"):
            yield Unread(f"schedule.{name}", "schedule.name", schedule, "which has no milestones")
    for name, user in (("decay", "ema"), ("start", "swa")):
        if average != user:
            yield Unread(f"averaging.{name}", "averaging.name", average, f"and {user} alone has it")
    if config.student.name in ("small_cnn", "mlp"):
        for name in ("attack.batchnorm", "training.batchnorm_across"):
            yield Unread(name, "student.name", config.student.name, "which has no BatchNorm")


def _unread_attack(config: TrainConfig) -> Iterator[Unread]:
    if not config.method.attacks:
        for name in type(config.attack).model_fields:
            yield Unread(f"attack.{name}", "method.name", _method(config), "which attacks no image")
    elif config.attack.steps == 0:
        yield Unread("attack.relative_step_size", "attack.steps", 0, "a start without a step")


def _method(config: TrainConfig) -> str:
    return methods.name_of(config.method)


class Effects:
    """Searched parameters that had an effect in the runs that were added."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._read: set[str] = set()
        self._unread: dict[str, dict[Unread, None]] = defaultdict(dict)

    def add(self, config: TrainConfig, sampled: Mapping[str, Any]) -> None:
        """Note what one run reads of its sampled hyperparameters."""
        found = {one.name: one for one in unread(config)}
        for name in sampled:
            if name in found:
                self._unread[name][found[name]] = None
            else:
                self._read.add(name)

    def check(self) -> None:
        """Raise SpaceError for a parameter that no run reads."""
        for name, reasons in self._unread.items():
            if name not in self._read:
                raise SpaceError(
                    f"search.{name}: has no effect in any run: {self._reasons(reasons)}; leave it"
                    " out"
                )

    def notices(self) -> list[str]:
        """Sentences about parameters that some runs do not read."""
        return [
            f"search.{name}: has no effect where {self._reasons(reasons)}: {self._remedy(reasons)}"
            for name, reasons in self._unread.items()
        ]

    def _reasons(self, reasons: Mapping[Unread, None]) -> str:
        grouped: dict[tuple[str, str], list[str]] = defaultdict(list)
        for one in reasons:
            grouped[one.field, one.why].append(str(one.value))
        return ", and ".join(
            f"{field} is {' or '.join(sorted(values))}, {why}"
            for (field, why), values in grouped.items()
        )

    def _remedy(self, reasons: Mapping[Unread, None]) -> str:
        """The condition to add, where one field decides."""
        fields = {one.field for one in reasons}
        above = next((p for p in self._space.parameters if p.name in fields), None)
        if (
            len(fields) > 1
            or above is None
            or not isinstance(above.distribution, CategoricalDistribution)
        ):
            return "make it depend on that by `when`"
        void = {one.value for one in reasons}
        kept = ", ".join(str(choice) for choice in above.ends() if choice not in void)
        return f"add `when: {{{above.name}: [{kept}]}}`"

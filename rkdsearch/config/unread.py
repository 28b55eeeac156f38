"""Fields without an effect: legal values that nothing reads in this run.

`training.label_smoothing` softens hard labels, so it does nothing under a method whose loss has
none.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from rkdsearch import methods
from rkdsearch.config.dotted import flatten_tree
from rkdsearch.config.run import TrainConfig
from rkdsearch.config.typed import default
from rkdsearch.teacher import ROLES


class Unread(NamedTuple):
    """A field that nothing reads in a run: `field` has a `value` that makes it so, and why."""

    name: str
    field: str
    value: Any
    why: str


def unread(config: TrainConfig) -> Iterator[Unread]:
    """The fields of this run that change nothing."""
    yield from _unread_attack(config)
    yield from _unread_teachers(config)
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
    if config.data.image_size is None:
        yield Unread("data.resize", "data.image_size", None, "and no image is resized")


def unread_settings(config: TrainConfig) -> list[str]:
    """Sentences about values of this run that are not the default and have no effect."""
    values = flatten_tree(config.to_dict())
    paper = config.method.attack_defaults  # fills in these two where they are not given
    filled = {"attack.start": paper.start, "attack.batchnorm": paper.batchnorm}
    return [
        f"{one.name} {values[one.name]}: has no effect, because {one.field} is {one.value},"
        f" {one.why}"
        for one in unread(config)
        if values.get(one.name) not in (_default(one.name), filled.get(one.name))
    ]


def _default(name: str) -> Any:
    """The default as `to_dict` has it: a tuple is a list."""
    value = default(name)
    return [*value] if isinstance(value, tuple) else value


def _unread_attack(config: TrainConfig) -> Iterator[Unread]:
    if not config.method.attacks:
        for name in type(config.attack).model_fields:
            yield Unread(f"attack.{name}", "method.name", _method(config), "which attacks no image")
    elif config.attack.steps == 0:
        yield Unread("attack.relative_step_size", "attack.steps", 0, "a start without a step")


def _unread_teachers(config: TrainConfig) -> Iterator[Unread]:
    for role in ROLES:
        if config.teachers.get(role) is not None and role not in config.teacher_roles:
            why = f"which learns from no {role} teacher"
            for name in ("path", "recipe.method.name"):
                yield Unread(f"teachers.{role}.{name}", "method.name", _method(config), why)


def _method(config: TrainConfig) -> str:
    return methods.name_of(config.method)

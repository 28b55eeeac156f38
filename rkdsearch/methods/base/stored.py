"""A stranger's method in a finished run, known by its name and fields and without its code.

The run's network is evaluated and exported, never trained: no import is needed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import ConfigDict, create_model
from typing_extensions import override

from rkdsearch.methods.base.method import Loss, Method
from rkdsearch.methods.base.step import Step
from rkdsearch.teacher import Role


class StoredMethod(Method):
    """Stands for a method whose code is not imported. `roles` are the teachers that it had."""

    model_config = ConfigDict(extra="allow")

    roles: ClassVar[tuple[Role, ...]] = ()

    @override
    def teachers(self) -> tuple[Role, ...]:
        return self.roles

    @override
    def loss(self, step: Step) -> Loss:
        raise NotImplementedError("a stored method is not trained: its code is elsewhere")

    @override
    def __reduce__(self) -> tuple[Callable[..., Method], tuple[object, ...]]:
        # By its values: a worker has no such module to import the class from.
        kind = type(self)
        return stand_in, (kind.__module__, self.model_dump(), kind.roles, kind.reconstructed)


def stand_in(
    name: str, fields: Mapping[str, Any], roles: Sequence[Role], reconstructed: str | None
) -> Method:
    """A method of this dotted name with these fields and teachers, for reading alone."""
    kind = create_model("StoredMethod", __base__=StoredMethod, __module__=name)
    kind.roles, kind.reconstructed = tuple(roles), reconstructed
    return kind(**fields)

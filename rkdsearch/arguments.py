"""Arguments of the functions for notebooks, checked by their annotations before anything begins."""

import inspect
import reprlib
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from rkdsearch.errors import ConfigError
from rkdsearch.section import KINDS, holds_numbers

P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which raises ConfigError for an argument that is not as annotated."""
    signature = inspect.signature(function)

    @cache  # at the first call: building one takes its time
    def kind(name: str) -> TypeAdapter[Any]:
        annotation = signature.parameters[name].annotation
        own = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        return TypeAdapter(
            annotation, config=None if own else ConfigDict(arbitrary_types_allowed=True)
        )

    def fitting(name: str, value: Any) -> Any:
        """The value as its annotation has it. Raises ConfigError."""
        plain = _plain(value)
        parameter = signature.parameters[name]
        try:
            if isinstance(plain, bool) and holds_numbers(parameter.annotation):
                raise ConfigError(f"{function.__name__}: {name} must be a number, got {plain}")
            if parameter.kind is parameter.VAR_POSITIONAL:
                return tuple(map(kind(name).validate_python, plain))
            return kind(name).validate_python(plain)
        except ValidationError as error:
            raise ConfigError(
                f"{function.__name__}: {name} {_law(error)}, got {reprlib.repr(plain)}"
            ) from None

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs)  # Python's own TypeError for an unknown name
        for name in given.arguments:
            given.arguments[name] = fitting(name, given.arguments[name])
        return function(*given.args, **given.kwargs)

    return call


def _plain(value: Any) -> Any:
    """The value with Python's own numbers in place of NumPy's, also inside lists and mappings.

    A float of 32 bits is the number that it is written as: 0.05 and not 0.05000000074505806.
    """
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value
    if type(value) is dict:
        return {name: _plain(one) for name, one in value.items()}
    if getattr(value, "ndim", None) != 0:
        return value
    number = value.item()
    if isinstance(number, float) and str(value.dtype).endswith("float32"):
        import numpy as np  # imported here: whoever calls without its numbers needs none of it

        return float(str(np.float32(number)))
    return number


def _law(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    if first["type"] in KINDS:
        return f"must be {KINDS[first['type']]}"
    match first["type"]:
        case "is_instance_of" if first["ctx"]["class"] == "Sequence":
            return f"must be a list, such as [{first['input']!r}]"
        case "sequence_str":
            return f"must be a list, such as [{first['input']!r}]"
        case "too_long" | "missing":
            return "has not as many parts as it must have"
        case _:
            return first["msg"].replace("Input should be", "must be")

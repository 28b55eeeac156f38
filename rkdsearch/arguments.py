"""Arguments of the functions for notebooks, checked by their annotations before anything begins."""

import inspect
import reprlib
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from rkdsearch.errors import ConfigError
from rkdsearch.section import holds_numbers

P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which raises ConfigError for an argument that is not as annotated."""
    signature = inspect.signature(function)

    @cache  # at the first call: building one takes its time
    def kind(name: str) -> TypeAdapter[Any]:
        return TypeAdapter(
            signature.parameters[name].annotation, config=ConfigDict(arbitrary_types_allowed=True)
        )

    def fitting(name: str, value: Any) -> Any:
        """The value as its annotation has it. Raises ConfigError."""
        plain = value.item() if getattr(value, "ndim", None) == 0 else value  # a number of NumPy's
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


def _law(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    match first["type"]:
        case "sequence_str":
            return f"must be a list, such as [{first['input']!r}]"
        case "too_long" | "missing":
            return "has not as many parts as it must have"
        case _:
            return first["msg"].replace("Input should be", "must be")

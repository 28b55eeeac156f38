"""The base class of everything that users write in YAML or on a command line."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

# What a value must be, by pydantic's name of the error.
KINDS = {
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "a text",
    "list_type": "a list",
    "tuple_type": "a list",
}


class Section(BaseModel):
    """A part of a description. It is immutable.

    Unknown names are errors, and so are infinite numbers, and true or false where a number belongs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[info.field_name or ""].annotation
        return no_truth_value(value) if holds_numbers(annotation) else value


def no_truth_value(value: Any) -> Any:
    """The value as it is. Raises PydanticCustomError where it is true or false, or has them.

    pydantic would read true as 1.
    """
    if isinstance(value, bool):
        raise PydanticCustomError(
            "truth_value", "must be a number; YAML reads true, yes and on as a truth value"
        )
    if isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            no_truth_value(each)
    return value


def holds_numbers(annotation: object) -> bool:
    """True where a field of this type holds a number, or several, and never a truth value."""
    held = _held(annotation)
    return bool(held & {int, float}) and not held & {bool, Any}


@lru_cache(maxsize=None, typed=True)  # 1 and True are equal
def _held(annotation: object) -> frozenset[object]:
    """The type and all types in it: of `tuple[int, ...] | None` int, ..., None and itself.

    Of `Literal[1, 3]` int: those of its values.
    """
    if isinstance(annotation, int | float):
        return frozenset({type(annotation)})
    return frozenset({annotation}).union(*map(_held, get_args(annotation)))

"""Errors of pydantic as one sentence: place, law, value and way out."""

import re
import types
from collections.abc import Iterable
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from rkdsearch.config.dotted import section_not_value
from rkdsearch.errors import did_you_mean


def sentence(error: ValidationError, kind: type[BaseModel], place: str, prefix: str = "") -> str:
    """The first error as `place: field law, got value; way out`, and the number of others."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    name = prefix + ".".join(path)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"{place}: {unknown_field(name, _fields_at(kind, path[:-1]))}{more}"
    if first["type"] == "missing":
        return f"{place}: {name} is required{more}"
    if first["type"] in ("model_type", "model_attributes_type") and (
        fields := _fields_at(kind, path)
    ):
        return f"{place}: {section_not_value(name, fields, first['input'])}{more}"
    law = first["msg"].removeprefix("Value error, ")
    law = re.sub(r"^Input should be ", "must be ", law)
    for words, sign in {
        "greater than or equal to": ">=",
        "less than or equal to": "<=",
        "greater than": ">",
        "less than": "<",
    }.items():
        law = law.replace(words, sign)
    if first["type"] == "value_error" and not path:
        return f"{place}: {law}{more}"
    if first["type"] == "value_error":
        return f"{place}: {name}: {law}{more}"
    return f"{place}: {name} {law}, got {first['input']!r}{more}"


def unknown_field(name: str, known: Iterable[str]) -> str:
    """Error text for an unknown dotted name, with the field of its section that may be meant."""
    known = sorted(known)
    return f"unknown field {name}; " + did_you_mean(
        name.rpartition(".")[2], known, f"there are {', '.join(known)}"
    )


def _fields_at(kind: type[BaseModel], path: Iterable[str]) -> list[str]:
    """The field names of the section that `path` leads to."""
    for part in path:
        field = kind.model_fields.get(part)
        inside = (
            next(
                (
                    t
                    for t in members(field.annotation)
                    if isinstance(t, type) and issubclass(t, BaseModel)
                ),
                None,
            )
            if field
            else None
        )
        if inside is None:
            return []
        kind = inside
    return list(kind.model_fields)


def members(annotation: object) -> tuple[Any, ...]:
    """The members of a union, without annotations: `X | None` has X and None."""
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(m for a in get_args(annotation) for m in members(a))
    return (annotation,)

"""Errors of pydantic as one sentence: place, law, value and way out."""

import re
import types
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, takewhile
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rkdsearch import methods
from rkdsearch.config.dotted import section_not_value
from rkdsearch.errors import closest, did_you_mean
from rkdsearch.methods import Method


def sentence(error: ValidationError, kind: type[BaseModel], place: str, prefix: str = "") -> str:
    """The first error as `place: field law, got value; way out`, and the number of others."""
    errors = error.errors(include_url=False)
    first = _first(errors)
    path = [str(part) for part in first["loc"]]
    if len(alternatives := _alternatives(errors)) > 1:
        law = f"must be {', '.join(alternatives[:-1])} or {alternatives[-1]}"
        return f"{place}: {prefix}{'.'.join(path[:-1])} {law}, got {first['input']!r}"
    name = prefix + ".".join(path)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known, everywhere = _fields_at(kind, path[:-1]), () if prefix else _leaves(kind)
        return f"{place}: {unknown_field(name, known, everywhere)}{more}"
    if first["type"] == "missing":
        return f"{place}: {name} is required{more}"
    if first["type"] in ("model_type", "model_attributes_type") and (
        fields := _fields_at(kind, path)
    ):
        return f"{place}: {section_not_value(name, fields, first['input'])}{more}"
    if first["type"] == "literal_error":
        # one of a few words: the near miss is named
        choices = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        near = closest(str(first["input"]), choices)
        more = f"; did you mean '{near}'?{more}" if near is not None else more
    if (count := _count_law(first)) is not None:
        return f"{place}: {name} {count}{more}"
    law = first["msg"].removeprefix("Value error, ")
    law = re.sub(r"^Input should be ", "must be ", law)
    for words, said in {
        "be a valid dictionary": "hold names and values, as in {name: value}",
        "greater than or equal to": ">=",
        "less than or equal to": "<=",
        "greater than": ">",
        "less than": "<",
    }.items():
        law = law.replace(words, said)
    if first["type"] == "value_error" and not path:
        return f"{place}: {law}{more}"
    if first["type"] == "value_error":
        return f"{place}: {name}: {law}{more}"
    return f"{place}: {name} {law}, got {first['input']!r}{more}"


def _first(errors: Sequence[ErrorDetails]) -> ErrorDetails:
    """The error to tell: before a missing field a typo, which is the likelier reason."""
    typos = (e for e in errors if e["type"] == "extra_forbidden")
    return next(typos, errors[0]) if errors[0]["type"] == "missing" else errors[0]


def _count_law(error: ErrorDetails) -> str | None:
    """The law of a list with too few or too many entries; None for any other error."""
    if error["type"] == "too_short" and isinstance(error["input"], list):
        return f"must have {error['ctx']['min_length']} entry at least, got none"
    if error["type"] == "too_long":
        at_most, there = error["ctx"]["max_length"], error["ctx"]["actual_length"]
        return f"must have {at_most} entries at most, got {there}"
    return None


def _alternatives(errors: Sequence[ErrorDetails]) -> list[str]:
    """Kinds that the value might have, where all errors are of one value that no union takes.

    pydantic names each member behind the field: `prior.int`, `prior.float`.
    """
    said = "Input should be "
    same = len({(error["loc"][:-1], id(error["input"])) for error in errors}) == 1
    each = {kind for error in errors for kind in error["loc"][-1:]} <= {
        "bool",
        "int",
        "float",
        "str",
    }
    found = [error["msg"].removeprefix(said) for error in errors if error["msg"].startswith(said)]
    return list(dict.fromkeys(found)) if same and each else []


def unknown_field(name: str, known: Iterable[str], everywhere: Iterable[str] = ()) -> str:
    """Error text for an unknown dotted name, with the field of its section that may be meant.

    Else a field of that name in another section, the nearest of the dotted names `everywhere`.
    """

    def distance(dotted: str) -> tuple[int, int]:
        pairs = zip(name.split("."), dotted.split("."), strict=False)
        shared = list(takewhile(lambda pair: pair[0] == pair[1], pairs))
        return -len(shared), dotted.count(".")

    known, last = sorted(known), name.rpartition(".")[2]
    elsewhere = [dotted for dotted in everywhere if dotted.rpartition(".")[2] == last]
    elsewhere.sort(key=distance)
    names = f"there are {', '.join(known)}" if known else "nothing can be set there"
    if elsewhere and closest(last, known) is None:
        return f"unknown field {name}; did you mean '{elsewhere[0]}'?"
    return f"unknown field {name}; {did_you_mean(last, known, names)}"


def _fields_at(kind: type[BaseModel], path: Iterable[str]) -> list[str]:
    """The field names, as they are written, of the section that `path` leads to."""
    steps = list(path)
    while steps:
        field = next(
            (f for name, f in kind.model_fields.items() if steps[0] in (name, f.alias)), None
        )
        taken, inside = section_of(field.annotation) if field else (1, None)
        if inside is None:
            return []
        kind, steps = inside, steps[taken:]
    return [field.alias or name for name, field in kind.model_fields.items()]


def section_of(annotation: object) -> tuple[int, type[BaseModel] | None]:
    """The section that a field of this type holds, and the steps of a path that lead into it.

    Two steps lead into a section of a list or of a mapping.
    """
    for member in members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            return 1, member
        if get_origin(member) in (list, dict):
            return 2, section_of(get_args(member)[-1])[1]
    return 1, None


def _leaves(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields that are no sections."""
    for name, field in kind.model_fields.items():
        inside = section_of(field.annotation)[1]
        if inside is Method:
            each = (methods.load(method).model_fields for method in methods.names())
            yield from (f"{prefix}{name}.{own}" for own in dict.fromkeys(chain(*each)))
        elif inside is None:
            yield prefix + name
        else:
            yield from _leaves(inside, f"{prefix}{name}.")


def members(annotation: object) -> tuple[Any, ...]:
    """The members of a union, without annotations: `X | None` has X and None."""
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(m for a in get_args(annotation) for m in members(a))
    return (annotation,)

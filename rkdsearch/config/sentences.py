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
from rkdsearch.section import KINDS

# Members of a union: pydantic names each behind the field, as in `prior.int`.
_MEMBERS = re.compile(r"bool|int|float|str|(list|tuple)\[.*")


def sentence(error: ValidationError, kind: type[BaseModel], place: str, prefix: str = "") -> str:
    """The first error as `place: field law, got value; way out`, and the number of others."""
    errors = error.errors(include_url=False)
    by_path: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for each in errors:
        by_path.setdefault(_path(kind, each), []).append(each)
    first = _first(errors)
    # of a list that a union takes, the entry that it does not take
    path = max((one for one in by_path if _within(one, _path(kind, first))), key=len)
    others = sum(not any(_within(two, one) for two in by_path if two != one) for one in by_path) - 1
    first = first if path == _path(kind, first) else by_path[path][0]
    more = f" (and {others} more)" if others else ""
    return f"{place}: {_law(kind, prefix, path, by_path[path], first)}{more}"


def _path(kind: type[BaseModel], error: ErrorDetails) -> tuple[str, ...]:
    """The names that lead to the value, without the members of a union."""
    parts = [str(part) for part in error["loc"]]
    sections = takewhile(lambda end: _fields_at(kind, parts[:end]), range(1, len(parts) + 1))
    leaf = 1 + sum(1 for _ in sections)
    inside = [part for part in parts[leaf:] if not _MEMBERS.fullmatch(part)]
    return (*parts[:leaf], *inside)


def _within(path: Sequence[str], section: Sequence[str]) -> bool:
    return tuple(path[: len(section)]) == tuple(section)


def _law(
    kind: type[BaseModel],
    prefix: str,
    path: Sequence[str],
    errors: Sequence[ErrorDetails],
    first: ErrorDetails,
) -> str:
    """The end of the sentence: field, law, value, and the way out where there is one."""
    name, given = prefix + ".".join(path), first["input"]
    if first["type"] == "extra_forbidden":
        everywhere = () if prefix else _leaves(kind)
        if len(path) > 2:  # a field of that name in another section is not what is meant
            everywhere = (leaf for leaf in everywhere if leaf.startswith(f"{path[0]}."))
        return unknown_field(name, _fields_at(kind, path[:-1]), everywhere)
    if first["type"] == "missing":
        return f"{name} is required"
    if first["type"] == "invalid_key" or path[-1:] == ("[key]",):
        path = tuple(part for part in path if part != "[key]")
        return f"{prefix + '.'.join(path[:-1])} has a name that is no text: {path[-1]}; quote it"
    if first["type"] in ("model_type", "model_attributes_type") and (
        fields := _fields_at(kind, path)
    ):
        return section_not_value(name, fields, given)
    if (count := _count_law(first)) is not None:
        return f"{name} {count}"
    if all(each["type"] in KINDS for each in errors):
        kinds = list(dict.fromkeys(KINDS[each["type"]] for each in errors))
        said = kinds[0] if len(kinds) == 1 else f"{', '.join(kinds[:-1])} or {kinds[-1]}"
        return f"{name} must be {said}, got {given!r}"
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
    if first["type"] == "value_error":
        return f"{name}: {law}" if path else law
    return f"{name} {law}, got {given!r}{_near_miss(first)}"


def _near_miss(error: ErrorDetails) -> str:
    """The end of a sentence: of a few words, the one that may be meant."""
    if error["type"] != "literal_error":
        return ""
    near = closest(str(error["input"]), re.findall(r"'([^']*)'", error["ctx"]["expected"]))
    return "" if near is None else f"; did you mean '{near}'?"


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
        steps, inside = section_of(field.annotation)
        if steps == 2:
            continue  # of a list or a mapping: its sections have names of their own
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

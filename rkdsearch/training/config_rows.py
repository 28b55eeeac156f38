"""The `config.*` columns of `trials`: every leaf of `TrainConfig`, every field of every method."""

import json
from collections.abc import Iterable
from typing import Literal, get_args, get_origin

from pydantic import BaseModel

from rkdsearch import methods
from rkdsearch.config import Recipe, TrainConfig, flatten_tree, members
from rkdsearch.errors import ConfigError
from rkdsearch.methods import Method
from rkdsearch.results.columns import Column

# A number or a list of numbers: one column has one type, so both are JSON text.
_NUMBER_OR_LIST = frozenset({"config.data.image_size"})


def columns(extra_methods: Iterable[str] = ()) -> tuple[Column, ...]:
    """The `config.*` columns; `extra_methods` are dotted paths of methods that are not built in.

    Raises ConfigError where two methods have a field of one name and of different types.
    """
    found = list(_columns_of(TrainConfig, "config."))
    found.append(
        Column("config.method.name", "string", "", "the method's file, or its dotted path")
    )
    by_name = {c.name: c for c in found}
    for name in (*methods.names(), *extra_methods):
        for column in _columns_of(methods.load(name), "config.method."):
            known = by_name.setdefault(column.name, column)
            if known.type != column.type:
                raise ConfigError(
                    f"method '{name}': {column.name} is {column.type} here and {known.type} in"
                    " another method; rename the field"
                )
    return tuple(sorted(by_name.values(), key=lambda c: c.name))


def row(config: TrainConfig) -> dict[str, object]:
    """The `config.*` cells of a run; lists become JSON text.

    A teacher's recipe is left out: the teacher's sha256 stands for it.
    """
    values: dict[str, object] = {}
    for name, value in flatten_tree({"config": config.to_dict()}).items():
        if value is not None and ".recipe." not in name:
            as_text = isinstance(value, list) or name in _NUMBER_OR_LIST
            values[name] = json.dumps(value) if as_text else value
    return values


def _columns_of(kind: type[BaseModel], prefix: str) -> Iterable[Column]:
    for name, field in kind.model_fields.items():
        kinds = [m for m in members(field.annotation) if m is not type(None)]
        section = next((m for m in kinds if isinstance(m, type) and issubclass(m, BaseModel)), None)
        if section is not None:
            if not issubclass(section, Method | Recipe):
                yield from _columns_of(section, f"{prefix}{name}.")
            continue
        types = {_column_type(kind) for kind in kinds}
        if prefix + name in _NUMBER_OR_LIST:
            types = {"string"}
        yield Column(
            prefix + name,
            "float" if types == {"int", "float"} else types.pop(),
            "",
            field.description or "",
        )


def _column_type(annotation: object) -> Literal["string", "int", "float", "bool"]:
    kinds = (
        {type(value) for value in get_args(annotation)}
        if get_origin(annotation) is Literal
        else {annotation}
    )
    if kinds == {bool}:
        return "bool"
    if kinds == {int}:
        return "int"
    if kinds == {float}:
        return "float"
    return "string"  # names, and lists as JSON text

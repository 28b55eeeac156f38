"""Columns derived from row classes: a field's annotation holds type, unit, meaning and source.

A row class is a frozen dataclass. Its fields are one of

- `Annotated[type, Cell(...)]`: one column,
- another row class, or None for nulls: its columns, with the field's name and a dot before theirs,
- `Annotated[Mapping[str, ...], Group(...)]`: cells by column name that another writer made.
"""

import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

Type = Literal["string", "int", "float", "bool", "time"]
_TYPES: Mapping[type, Type] = types.MappingProxyType(
    {str: "string", bool: "bool", int: "int", float: "float", datetime: "time"}
)
JSON = "JSON"


@dataclass(frozen=True)
class Column:
    """One column. Unit `JSON`: the text of a value; writers give the value itself."""

    name: str
    type: Type
    unit: str
    meaning: str
    source: str = ""


@dataclass(frozen=True)
class Cell:
    """Meaning and unit of a field's column, and the source of its value."""

    meaning: str
    source: str
    unit: str = ""


@dataclass(frozen=True)
class Group:
    """Columns of a field that is a mapping of cells. `prefix` stands before the mapping's keys."""

    columns: tuple[Column, ...]
    prefix: str = ""


def columns_of(row_class: type, prefix: str = "") -> tuple[Column, ...]:
    """The columns of a row class in the order of its fields."""
    found: list[Column] = []
    for field, kind, about in _fields(row_class):
        if isinstance(about, Group):
            found += about.columns
        elif isinstance(about, Cell):
            name = prefix + field
            found.append(Column(name, _type(kind, about), about.unit, about.meaning, about.source))
        else:
            found += columns_of(kind, f"{prefix}{field}.")
    return tuple(found)


def cells_of(row: Any, prefix: str = "") -> dict[str, object]:
    """The values of a row by column name."""
    row_class: type = type(row)
    cells: dict[str, object] = {}
    for field, _, about in _fields(row_class):
        value = getattr(row, field)
        if isinstance(about, Group):
            cells |= {about.prefix + name: cell for name, cell in value.items()}
        elif isinstance(about, Cell):
            cells[prefix + field] = value
        elif value is not None:
            cells |= cells_of(value, f"{prefix}{field}.")
    return cells


@cache  # every row that is written asks
def _fields(row_class: type) -> tuple[tuple[str, Any, Cell | Group | None], ...]:
    """Name, type without None, and what is said about it, of each field of a row class."""
    hints = get_type_hints(row_class, include_extras=True)
    return tuple((field.name, *_parts(hints[field.name])) for field in fields(row_class))


def _parts(hint: Any) -> tuple[Any, Cell | Group | None]:
    """The annotated type without None, and what is said about it."""
    about = None
    if get_origin(hint) is Annotated:
        hint, about = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (kind for kind in get_args(hint) if kind is not type(None))
    assert about is not None or is_dataclass(hint), f"no Cell, Group or row class: {hint}"
    return hint, about


def _type(kind: Any, cell: Cell) -> Type:
    if cell.unit == JSON:
        return "string"
    return next(name for base, name in _TYPES.items() if issubclass(kind, base))

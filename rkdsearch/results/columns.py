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
    hints = get_type_hints(row_class, include_extras=True)
    found: list[Column] = []
    for field in fields(row_class):
        kind, about = _parts(hints[field.name])
        if isinstance(about, Group):
            found += about.columns
        elif isinstance(about, Cell):
            name = prefix + field.name
            found.append(Column(name, _type(kind, about), about.unit, about.meaning, about.source))
        else:
            found += columns_of(kind, f"{prefix}{field.name}.")
    return tuple(found)


def cells_of(row: Any, prefix: str = "") -> dict[str, object]:
    """The values of a row by column name."""
    hints = get_type_hints(type(row), include_extras=True)
    cells: dict[str, object] = {}
    for field in fields(row):
        value, about = getattr(row, field.name), _parts(hints[field.name])[1]
        if isinstance(about, Group):
            cells |= {about.prefix + name: cell for name, cell in value.items()}
        elif isinstance(about, Cell):
            cells[prefix + field.name] = value
        elif value is not None:
            cells |= cells_of(value, f"{prefix}{field.name}.")
    return cells


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

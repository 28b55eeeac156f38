"""Dotted names and nested sections: `{"attack.eps": 0.1}` is `{"attack": {"eps": 0.1}}`."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rkdsearch.data.config import kept_for
from rkdsearch.errors import ConfigError


def nest(values: Mapping[str, Any], place: str = "config") -> dict[str, Any]:
    """`{"method.name": "rslad", "data": {"name": "digits"}}` as one nested tree.

    Raises ConfigError where a name is given twice with different values.
    """
    tree: dict[str, Any] = {}
    for name, value in _leaves(values):
        *sections, last = name.split(".")
        here = tree
        for section in sections:
            here = here.setdefault(section, {})
            if not isinstance(here, dict):
                raise ConfigError(
                    f"{place}: {name} needs a section '{section}', which already holds the value"
                    f" {here!r}"
                )
        if isinstance(here.get(last), dict):
            raise ConfigError(f"{place}: {section_not_value(name, here[last], value)}")
        if last in here and here[last] != value:
            raise ConfigError(f"{place}: {name} is given twice, as {here[last]!r} and as {value!r}")
        here[last] = value
    return tree


def section_not_value(name: str, fields: Iterable[str], value: object) -> str:
    """Error text for a value in place of a section, with a field of it that may be meant."""
    fields = list(fields)
    meant = f"name={value}" if "name" in fields and isinstance(value, str) else fields[0]
    return f"{name} is a section, not the value {value!r}; set its fields, such as {name}.{meant}"


def merge(
    base: Mapping[str, Any], overrides: Mapping[str, Any], place: str = "config"
) -> dict[str, Any]:
    """`overrides` over `base`, leaf by leaf; null removes a whole section.

    Another `*.name` discards the rest of its section, whose fields belong to the old name; another
    `data.name` only what describes the old set, or has no meaning for the new one.
    """
    below, above = flatten_tree(nest(base, place)), flatten_tree(nest(overrides, place))
    for name, value in above.items():
        section = name.removesuffix(".name")
        if section != name and below.get(name, value) != value:
            below = {k: v for k, v in below.items() if not _of_old_name(k, section, value)}
        if value is None:
            below = {k: v for k, v in below.items() if not k.startswith(name + ".")}
        below = {k: v for k, v in below.items() if v is not None or not name.startswith(k + ".")}
    return nest({**below, **above}, place)


def _of_old_name(field: str, section: str, new: object) -> bool:
    """True where another name of the section takes this field away."""
    if not field.startswith(section + "."):
        return False
    return section != "data" or not kept_for(str(new), field.removeprefix(section + "."))


def flatten_tree(tree: Mapping[str, Any]) -> dict[str, Any]:
    """All leaves by dotted name; an empty section is no leaf."""
    return dict(_leaves(tree))


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

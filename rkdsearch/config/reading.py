"""A checked `TrainConfig` from values or from a YAML file.

`build` is the only way from plain values to a config: of a file, of a search space, and of JSON at
the border of a process. Everything else is given the `TrainConfig` itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from typing_extensions import override

from rkdsearch import methods
from rkdsearch.config.dotted import merge, nest, section_not_value
from rkdsearch.config.run import TrainConfig
from rkdsearch.config.sentences import sentence
from rkdsearch.errors import ConfigError
from rkdsearch.local_path import local_path
from rkdsearch.methods import Method


def build(values: Mapping[str, Any], place: str = "config") -> TrainConfig:
    """A checked config from nested or dotted names.

    Raises ConfigError: `place: field must ..., got ...`.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{place}: must hold names and values, such as {{'method.name': 'rslad'}}, got"
            f" {values!r}"
        )
    tree = nest(values, place)
    tree["method"] = _build_method(tree.get("method"), place, "method")
    teachers = tree.get("teachers")
    for role, teacher in teachers.items() if isinstance(teachers, dict) else ():
        if isinstance(teacher, dict) and isinstance(teacher.get("recipe"), dict):
            where = f"teachers.{role}.recipe.method"
            recipe = {
                **teacher["recipe"],
                "method": _build_method(teacher["recipe"].get("method"), place, where),
            }
            tree["teachers"] = {**tree["teachers"], role: {**teacher, "recipe": recipe}}
    try:
        return TrainConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(sentence(error, TrainConfig, place)) from None


def load(file: str | Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """A config from a YAML file, with `section.field` overrides over it."""
    return build(merge(read_yaml(file), overrides or {}, str(file)), str(file))


class _Loader(yaml.SafeLoader):
    """YAML without tags and code. A name given twice is an error: YAML would take the last one."""

    @override
    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for name, line in [
            (key.value, key.start_mark.line + 1)
            for key, _ in node.value
            if isinstance(key, yaml.ScalarNode) and key.value != "<<"
        ]:
            if name in lines:
                raise ConfigError(
                    f"line {line}: {name} is given twice in one section, first in line"
                    f" {lines[name]}; keep one of them"
                )
            lines[name] = line
        return node


def read_yaml(file: str | Path) -> dict[str, Any]:
    """A mapping from a YAML file: no tags, no code, no name twice in a section.

    Raises ConfigError, or FileError where the path is a URL or cannot be reached.
    """
    try:
        text = local_path(file).read_text(encoding="utf-8")
        values = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
        _refuse_endless(values)
    except RecursionError:
        raise ConfigError(
            f"{file}: its sections are nested without an end: an alias such as *a must not stand"
            " inside its own anchor &a; write the values out"
        ) from None
    except ConfigError as error:
        raise ConfigError(f"{file}, {error}") from None
    except FileNotFoundError:
        raise ConfigError(f"{file}: there is no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{file}: is a folder, not a YAML file") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}; is it yours?") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        found = "it is empty" if values is None else f"got a {type(values).__name__}"
        raise ConfigError(f"{file}: must hold names and values, as `seed: 1`; {found}")
    return values


def _refuse_endless(values: object) -> None:
    """Raise RecursionError where a value holds itself."""
    seen = set[int]()  # an alias stands for one object: each is looked into once

    def look(inside: object, above: frozenset[int]) -> None:
        if id(inside) in above:
            raise RecursionError
        if isinstance(inside, dict | list) and id(inside) not in seen:
            for each in inside.values() if isinstance(inside, dict) else inside:
                look(each, above | {id(inside)})
            seen.add(id(inside))

    look(values, frozenset())


def _build_method(section: object, place: str, where: str) -> Method:
    if isinstance(section, Method):
        return section
    if section is not None and not isinstance(section, dict):
        raise ConfigError(f"{place}: {section_not_value(where, ['name'], section)}")
    if section is None or "name" not in section:
        raise ConfigError(
            f"{place}: {where}.name is required; choose one of {', '.join(methods.names())}"
        )
    try:
        kind = methods.load(str(section["name"]))
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None
    fields = {k: v for k, v in section.items() if k != "name"}
    if fields and not kind.model_fields:
        raise ConfigError(
            f"{place}: unknown field {where}.{next(iter(fields))}; {section['name']} has no fields"
            " of its own"
        )
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(sentence(error, kind, place, where + ".")) from None

"""Code from outside the package: imported only where the user allowed its prefix.

A config file from a stranger may name `their_lab.net`; nothing is imported until `allow_import`
(the command line's `--allow-import their_lab`) or an installed entry point of the groups
`rkdsearch.methods` and `rkdsearch.models` names that prefix.
"""

import importlib
import re
from importlib.metadata import entry_points
from types import ModuleType

from rkdsearch.errors import ConfigError

GROUPS = ("rkdsearch.methods", "rkdsearch.models")

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_allowed: set[str] = set()


def allow_import(*prefixes: str) -> None:
    """Permit modules whose dotted name is, or lies below, one of these. Raises ConfigError for what names no module."""
    for prefix in prefixes:
        if not _MODULE.fullmatch(prefix):
            raise ConfigError(
                f"--allow-import must name a package, such as my_lab or my_lab.nets, got '{prefix}'"
            )
    _allowed.update(prefixes)


def allowed_imports() -> tuple[str, ...]:
    """What `allow_import` and installed entry points permit: workers of a search are told the same."""
    installed = {
        point.value.partition(":")[0] for group in GROUPS for point in entry_points(group=group)
    }
    return tuple(sorted(_allowed | installed))


def is_dotted(name: str) -> bool:
    """Whether `name` is a dotted path of two identifiers or more, as `my_lab.nets`."""
    return "." in name and _MODULE.fullmatch(name) is not None


def load_module(name: str, *, place: str) -> ModuleType:
    """The user's module. Raises ConfigError, which begins with `place`, where it is no module's name, not allowed or not there."""
    if not _MODULE.fullmatch(name):
        raise ConfigError(f"{place} must be a dotted path of Python names, got '{name}'")
    if not any(name == prefix or name.startswith(prefix + ".") for prefix in allowed_imports()):
        raise ConfigError(
            f"{place}: '{name}' would import code; allow it with --allow-import"
            f" {name.partition('.')[0]}"
        )
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A module that exists and misses one of its own imports is the user's traceback to read.
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise
        raise ConfigError(
            f"{place}: no module '{name}' (looked for '{error.name}'); is its folder on PYTHONPATH?"
        ) from None

"""User code, imported only where the user allowed its prefix.

A config file from elsewhere may name `their_lab.net`. Nothing is imported until `allow_import` (the
command line's `--allow-import their_lab`) or an installed entry point of the groups
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
    """Permit modules whose dotted name equals one of these prefixes or lies below it.

    Raises ConfigError where a prefix is no module's name.
    """
    for prefix in prefixes:
        if not _MODULE.fullmatch(prefix):
            raise ConfigError(
                f"--allow-import must name a package, such as my_lab or my_lab.nets, got '{prefix}'"
            )
    _allowed.update(prefixes)


def allowed_imports() -> tuple[str, ...]:
    """Prefixes that `allow_import` and installed entry points permit.

    A search hands them to its workers.
    """
    installed = {
        point.value.partition(":")[0] for group in GROUPS for point in entry_points(group=group)
    }
    return tuple(sorted(_allowed | installed))


def is_dotted(name: str) -> bool:
    """True for a dotted path of two identifiers or more, such as `my_lab.nets`."""
    return "." in name and _MODULE.fullmatch(name) is not None


def load_module(name: str, *, place: str) -> ModuleType:
    """The user's module.

    Raises ConfigError, which begins with `place`, where `name` is no module's name, is not allowed,
    or does not exist.
    """
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
        # The module exists and one of its imports is missing: the user needs that traceback.
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise
        raise ConfigError(
            f"{place}: no module '{name}' (looked for '{error.name}'); is its folder on PYTHONPATH?"
        ) from None

"""Methods: one file per paper, found by its name. Nothing is registered.

`load("rslad")` is the class in `rkdsearch/methods/rslad.py`. A name with a dot (`my_lab.soft_at`) is a module of the user's:
it is imported only when `allow_imports` (the command line's `--allow-import my_lab`) or an installed entry point of the group
`rkdsearch.methods` names its prefix, so that a config file from a stranger imports nothing.
"""

import difflib
import importlib
import importlib.util
import pkgutil
import re
from importlib.metadata import entry_points

from rkdsearch.errors import ConfigError
from rkdsearch.methods.base import Companion, Loss, Method, Step, Student, name_of

__all__ = ["Companion", "Loss", "Method", "Step", "Student", "allow_import", "load", "name_of", "names"]

_NOT_METHODS = {"base", "describe", "inner"}
_allowed: set[str] = set()


def names() -> tuple[str, ...]:
    """The built-in methods, by file name."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _NOT_METHODS and not m.name.startswith("_")))


def allow_import(*prefixes: str) -> None:
    """Permit methods whose dotted name starts with one of these packages."""
    _allowed.update(prefixes)


def allowed_imports() -> tuple[str, ...]:
    """What `allow_import` and installed entry points permit: workers of a search are told the same."""
    return tuple(sorted(_allowed | {e.value.partition(":")[0] for e in entry_points(group="rkdsearch.methods")}))


def load(name: str) -> type[Method]:
    """The method's class. Raises ConfigError for a name that is unknown or may not be imported."""
    if name in names():
        return _only_method(f"rkdsearch.methods.{name}")
    if "." not in name:
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"choose one of {', '.join(names())}"
        raise ConfigError(f"method.name: unknown method '{name}'; {hint}")
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name):
        raise ConfigError(f"method.name must be a method's name or a module's dotted path, got '{name}'")
    if not any(name == prefix or name.startswith(prefix + ".") for prefix in allowed_imports()):
        raise ConfigError(f"method.name: '{name}' would import code; allow it with --allow-import {name.partition('.')[0]}")
    return _only_method(name)


def _only_method(module_name: str) -> type[Method]:
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise
        raise ConfigError(f"method.name: no module '{module_name}' (looked for '{error.name}'); is its folder on PYTHONPATH?") from None
    found = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, Method) and c.__module__ == module_name]
    if len(found) != 1:
        raise ConfigError(f"{module_name} must define exactly one subclass of Method, found {len(found)}: {[c.__name__ for c in found]}")
    return found[0]

"""Methods: one file per paper, found by its name. Nothing is registered.

`load("rslad")` is the class in `rkdsearch/methods/rslad.py`. A dotted name (`my_lab.soft_at`) is a
module of the user's. It is imported only if `allow_import` (the command line's `--allow-import
my_lab`) or an installed entry point of the group `rkdsearch.methods` names its prefix: a config
file from a stranger imports nothing. A method's file imports what it needs from this package.
"""

import importlib
import pkgutil
from functools import cache
from types import ModuleType

from rkdsearch.errors import ConfigError, did_you_mean
from rkdsearch.methods import inner
from rkdsearch.methods.base.conditional import UNUSED, ConditionalMethod, When
from rkdsearch.methods.base.fields import Factor, KLScale, Parity, Temperature, WarmUp, Weight
from rkdsearch.methods.base.method import AttackDefaults, Companion, Loss, Method
from rkdsearch.methods.base.networks import BatchNormMode, Precision, Student, Teacher
from rkdsearch.methods.base.step import Step
from rkdsearch.methods.base.stored import stand_in
from rkdsearch.plugins import allow_import, allowed_imports, load_module
from rkdsearch.teacher import Role

__all__ = [
    "UNUSED",
    "AttackDefaults",
    "BatchNormMode",
    "Companion",
    "ConditionalMethod",
    "Factor",
    "KLScale",
    "Loss",
    "Method",
    "Parity",
    "Precision",
    "Role",
    "Step",
    "Student",
    "Teacher",
    "Temperature",
    "WarmUp",
    "Weight",
    "When",
    "allow_import",
    "allowed_imports",
    "inner",
    "load",
    "name_of",
    "names",
    "stand_in",
]

_NOT_METHODS = {"base", "describe", "inner"}


@cache  # every build of a config asks
def names() -> tuple[str, ...]:
    """Names of the built-in methods: their files' names."""
    return tuple(
        sorted(
            m.name
            for m in pkgutil.iter_modules(__path__)
            if m.name not in _NOT_METHODS and not m.name.startswith("_")
        )
    )


def load(name: str) -> type[Method]:
    """The method's class. Raises ConfigError for a name that is unknown or may not be imported."""
    if name in names():
        return _only_method(importlib.import_module(f"rkdsearch.methods.{name}"))
    if "." not in name:
        hint = did_you_mean(name, names(), f"choose one of {', '.join(names())}")
        raise ConfigError(f"method.name: unknown method '{name}'; {hint}")
    return _only_method(load_module(name, place="method.name"))


def name_of(method: type[Method] | Method) -> str:
    """`rslad` for rkdsearch/methods/rslad.py; the dotted path for a method outside the package."""
    module = (method if isinstance(method, type) else type(method)).__module__
    return module.removeprefix("rkdsearch.methods.")


def _only_method(module: ModuleType) -> type[Method]:
    found = [
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, Method) and c.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ConfigError(
            f"{module.__name__} must define exactly one subclass of Method, found {len(found)}:"
            f" {[c.__name__ for c in found]}"
        )
    return found[0]

"""A run's config as an earlier version stored it, in a checkpoint for example."""

import copy
from collections.abc import Mapping
from typing import Any

from rkdsearch import methods
from rkdsearch.config.reading import build
from rkdsearch.config.run import TrainConfig
from rkdsearch.config.teachers import CLAIMS
from rkdsearch.data import DataConfig
from rkdsearch.errors import ConfigError
from rkdsearch.plugins import is_dotted
from rkdsearch.teacher import ROLES

# Fields of `data` that earlier versions did not have, and what those versions did.
_LATER_DATA = {
    name: DataConfig.model_fields[name].default
    for name in ("resize", "sampling", "image_column", "label_column", "test_split")
}


def stored_identity(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored `TrainConfig.identity`, as this version writes it."""
    values = upgraded(stored)
    for teacher in (values.get("teachers") or {}).values():
        if isinstance(teacher, dict):
            teacher.update(dict.fromkeys(CLAIMS))  # part of it in earlier versions
    return values


def upgraded(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The nested values of a whole stored config, with the fields that came later."""
    values = copy.deepcopy(dict(stored))
    if isinstance(values.get("data"), dict):
        values["data"] = {**_LATER_DATA, **values["data"]}
    for teacher in (values.get("teachers") or {}).values():
        if isinstance(teacher, dict):
            teacher.setdefault("key", None)
            teacher.setdefault("ignore", [])
    # Before ADR 14 the validation attack was PGD on the cross-entropy, and had no such field.
    attack = values.get("validation", {}).get("attack")
    if attack is not None:
        attack.setdefault("objective", "cross_entropy")
    return values


def build_stored(stored: Mapping[str, Any], place: str) -> TrainConfig:
    """The config of a run that was stored whole, to read its network and not to train.

    A method of the user's is taken by its name and fields: its code is not needed. Raises
    ConfigError.
    """
    values = upgraded(stored)
    method = values.get("method")
    if isinstance(method, dict) and is_dotted(str(method.get("name"))):
        name = method.pop("name")
        teachers = values.get("teachers") or {}
        roles = [role for role in ROLES if teachers.get(role) is not None]
        values["method"] = methods.stand_in(name, method, roles, _reconstructed(name))
    return build(values, place)


def _reconstructed(name: str) -> str | None:
    """The method's own note on its origin, where its code may be imported."""
    try:
        return methods.load(name).reconstructed
    except (ConfigError, ImportError):
        return None

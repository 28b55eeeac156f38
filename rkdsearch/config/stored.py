"""A run's config as an earlier version stored it, in a checkpoint for example."""

import copy
from collections.abc import Mapping
from typing import Any

from rkdsearch.config.reading import build
from rkdsearch.config.run import TrainConfig


def upgraded(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The nested values of a whole stored config, with the fields that came later."""
    values = copy.deepcopy(dict(stored))
    # Before ADR 14 the validation attack was PGD on the cross-entropy, and had no such field.
    attack = values.get("validation", {}).get("attack")
    if attack is not None:
        attack.setdefault("objective", "cross_entropy")
    return values


def build_stored(stored: Mapping[str, Any], place: str) -> TrainConfig:
    """The config of a run that was stored whole. Raises ConfigError."""
    return build(upgraded(stored), place)

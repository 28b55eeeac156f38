"""Accuracies that are no better than chance: a constant prediction reaches them."""

from collections.abc import Mapping
from typing import Any

from rkdsearch.results.cells import CLEAN
from rkdsearch.results.intervals import wilson


def is_chance(value: float | None, images: int | None, chance: float | None) -> bool:
    """True where an accuracy may be chance: its 95 % interval over `images` reaches down to it.

    `chance` is the accuracy of the best constant prediction on these images. False where one of the
    three is not known, or impossible.
    """
    if value is None or images is None or chance is None or not (0 <= value <= 1 <= images):
        return False
    return wilson(round(value * images), images).low <= chance


def worthless(
    role: str, clean: float | None, robust: float | None, images: int | None, chance: float | None
) -> bool:
    """True for a teacher no better than a constant prediction at what its role asks of it.

    That is clean images for the natural teacher, and attacked ones too for the robust one.
    """
    asked = (clean,) if role == "natural" else (clean, robust)
    return any(is_chance(value, images, chance) for value in asked)


def at_chance(row: Mapping[str, Any], chance: float | None) -> bool:
    """True for a trial whose student predicts clean images no better than a constant.

    Its robust accuracy says nothing: no attack moves a constant prediction.
    """
    return is_chance(row[CLEAN], row["fidelity.validation_images"], chance)

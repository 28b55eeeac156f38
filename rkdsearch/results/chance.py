"""Accuracies that are no better than chance: a constant prediction reaches them."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from rkdsearch.results.cells import CLEAN, ROBUST, WORST_CLASS, shares_of
from rkdsearch.results.intervals import wilson

BY_CLASS, IMAGES = "metric.by_class.clean_accuracy", "fidelity.validation_images"


def is_chance(value: float | None, images: int | None, chance: float | None) -> bool:
    """True where an accuracy may be chance: its 95 % interval over `images` reaches down to it.

    `chance` is the accuracy of the best constant prediction on these images. False where one of the
    three is not known, or impossible.
    """
    if value is None or images is None or chance is None or not (0 <= value <= 1 <= images):
        return False
    return wilson(round(value * images), images).low <= chance


Classes = Sequence[float | None]  # clean accuracy of each class; None for one without images


def is_constant(clean: float, robust: float, worst: float, classes: Classes | None) -> bool:
    """True where a network gives every image one class: no other has images that are right.

    Without `classes`, which earlier versions did not measure: where no attack changes its accuracy,
    and that of the worst class is 0.
    """
    if classes is not None and sum(map(bool, classes)) > 1:
        return False
    return robust == clean and worst == 0


def never_learned(
    clean: float, robust: float, worst: float, classes: Classes | None, images: int | None
) -> bool:
    """True where a student is constant, or its mean over K classes on `images` may be 1 / K."""
    constant = is_constant(clean, robust, worst, classes)
    if constant or classes is None:
        return constant
    known = [share for share in classes if share is not None]
    return bool(known) and is_chance(fmean(known), images, 1 / len(classes))


def row_never_learned(row: Mapping[str, Any]) -> bool:
    """`never_learned` of a trial's row; False where it was not measured."""
    clean, robust, worst = (row.get(name) for name in (CLEAN, ROBUST, WORST_CLASS))
    if clean is None or robust is None or worst is None:
        return False
    return never_learned(clean, robust, worst, shares_of(row.get(BY_CLASS)), row.get(IMAGES))


def teacher_at_chance(
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
    return is_chance(row[CLEAN], row[IMAGES], chance)

"""Cells of accuracies by class, the same in rows of epochs and of trials."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from rkdsearch.results.columns import JSON, Cell
from rkdsearch.results.rows.units import FRACTION


@dataclass(frozen=True, kw_only=True)
class ClassCells:
    """Validation accuracies of the classes, at one epoch."""

    balanced_clean_accuracy: Annotated[
        float, Cell("validation, clean images, mean over classes", "`ByClass`", FRACTION)
    ]
    balanced_robust_accuracy: Annotated[
        float, Cell("validation, under attack, mean over classes", "`ByClass`", FRACTION)
    ]
    clean_accuracy: Annotated[
        Sequence[float | None],
        Cell(
            "validation, clean images, list in the order of the labels: fractions of 1, null for a"
            " class without images",
            "`ByClass`",
            JSON,
        ),
    ]
    robust_accuracy: Annotated[
        Sequence[float | None],
        Cell("validation, under attack, the same", "`ByClass`", JSON),
    ]

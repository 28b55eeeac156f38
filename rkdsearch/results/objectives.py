"""Objectives of a search: accuracies on validation images (maximised), costs (minimised).

A new cost is one entry of `OBJECTIVES` and one field of `models.size.Size` of the same name: its
columns, the space check, the journal, rungs, the front and the page follow. Fronts, hypervolumes,
rungs and samplers see merits in [0, 1], all maximised, so that no objective drowns another.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Objective:
    """One objective: its column in `trials`, and its heading, unit and meaning for people.

    A cost has merit 1 at 1 and merit 0 at `zero_merit_at` or more; an accuracy has none.
    """

    column: str
    heading: str
    zero_merit_at: float | None = None
    unit: str = ""
    meaning: str = ""

    @property
    def title(self) -> str:
        """The heading with its unit."""
        return self.heading if self.minimised else f"{self.heading} %"

    @property
    def minimised(self) -> bool:
        """True for a cost."""
        return self.zero_merit_at is not None

    def merits(self, values: ArrayLike) -> NDArray[np.float64]:
        """Score in [0, 1] of values (N,), higher is better; costs on a logarithmic scale.

        NaN stays NaN.
        """
        found = np.asarray(values, dtype=float)
        return (
            found
            if self.zero_merit_at is None
            else np.maximum(1 - np.log(np.maximum(found, 1)) / math.log(self.zero_merit_at), 0)
        )

    def holds(self, values: ArrayLike, limit: float) -> NDArray[np.bool_]:
        """True where values (N,) satisfy the limit: an accuracy at least, a cost at most.

        An unknown cost (NaN) satisfies it; an unknown accuracy does not.
        """
        found = np.asarray(values, dtype=float)
        return ~(found > limit) if self.minimised else found >= limit

    def shown(self, value: float | None) -> str:
        """Text of a value: an accuracy in percent, a cost with separated thousands."""
        if value is None:
            return "–"
        return f"{int(value):,}" if self.minimised else f"{100 * value:.1f}"


def _accuracy(name: str, heading: str, meaning: str) -> Objective:
    return Objective(f"metric.{name}", heading, unit="fraction of 1", meaning=meaning)


def _cost(name: str, heading: str, zero_merit_at: float, *, unit: str, meaning: str) -> Objective:
    return Objective(f"run.{name}", heading, zero_merit_at, unit, meaning)


OBJECTIVES: Mapping[str, Objective] = MappingProxyType(
    {
        "clean_accuracy": _accuracy("clean_accuracy", "clean", "validation, clean images"),
        "robust_accuracy": _accuracy("robust_accuracy", "robust", "validation, under attack"),
        "worst_class_accuracy": _accuracy(
            "worst_class_accuracy", "worst class", "validation, robust accuracy of the worst class"
        ),
        "parameters": _cost(
            "parameters",
            "parameters",
            1e9,
            unit="parameters",
            meaning="trainable parameters of the student",
        ),
        "multiply_adds": _cost(
            "multiply_adds",
            "multiply-adds",
            1e12,
            unit="multiply-adds",
            meaning="of the student's convolutions and matrix products for one image",
        ),
    }
)
COSTS = tuple(name for name, objective in OBJECTIVES.items() if objective.minimised)
ACCURACIES = tuple(name for name in OBJECTIVES if name not in COSTS)
if TYPE_CHECKING:
    Name = str
else:
    Name = Literal[tuple(OBJECTIVES)]  # pydantic checks names in YAML by it
USUAL: tuple[Name, ...] = ("clean_accuracy", "robust_accuracy")


def merits(values: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
    """Points (N, D) to be maximised, of D objectives' values (N,) by name."""
    return np.stack([OBJECTIVES[name].merits(found) for name, found in values.items()], axis=-1)

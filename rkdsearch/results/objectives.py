"""What a search may be after: accuracies on validation images, which are maximised, and costs of the delivered student, which are minimised.

Fronts, hypervolumes, rungs and samplers see `merits`: numbers of [0, 1], all maximised, so that no
objective drowns another.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Name = Literal[
    "clean_accuracy", "robust_accuracy", "worst_class_accuracy", "parameters", "multiply_adds"
]
USUAL: tuple[Name, ...] = ("clean_accuracy", "robust_accuracy")


@dataclass(frozen=True)
class Objective:
    """One of them: its column in `trials`, and its name for the eye. A cost of 1 has merit 1, one of `worthless` or more has merit 0."""

    column: str
    heading: str
    worthless: float | None = None

    @property
    def title(self) -> str:
        """The same with its unit, for a table's head."""
        return self.heading if self.minimised else f"{self.heading} %"

    @property
    def minimised(self) -> bool:
        """Whether it is a cost."""
        return self.worthless is not None

    def merits(self, values: ArrayLike) -> NDArray[np.float64]:
        """Of values (N,): an accuracy is its own; a tenth of a cost is worth as much, whether of a thousand or of a million. NaN stays NaN."""
        found = np.asarray(values, dtype=float)
        return (
            found
            if self.worthless is None
            else np.maximum(1 - np.log(np.maximum(found, 1)) / math.log(self.worthless), 0)
        )

    def holds(self, values: ArrayLike, limit: float) -> NDArray[np.bool_]:
        """Which of the values (N,) keep to the limit: at least an accuracy, at most a cost. A cost that nobody counted does."""
        found = np.asarray(values, dtype=float)
        return ~(found > limit) if self.minimised else found >= limit

    def shown(self, value: float | None) -> str:
        """For the eye: an accuracy in percent, a cost as a number with its thousands apart."""
        if value is None:
            return "–"
        return f"{int(value):,}" if self.minimised else f"{100 * value:.1f}"


OBJECTIVES: Mapping[str, Objective] = MappingProxyType(
    {
        "clean_accuracy": Objective("metric.clean_accuracy", "clean"),
        "robust_accuracy": Objective("metric.robust_accuracy", "robust"),
        "worst_class_accuracy": Objective("metric.worst_class_accuracy", "worst class"),
        "parameters": Objective("run.parameters", "weights", worthless=1e9),
        "multiply_adds": Objective("run.multiply_adds", "multiply-adds", worthless=1e12),
    }
)
COSTS = tuple(name for name, objective in OBJECTIVES.items() if objective.minimised)
assert set(OBJECTIVES) == set(get_args(Name)), "the type and the table name the same"


def merits(values: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
    """Points (N, D) to be maximised, of D objectives' values (N,) by name."""
    return np.stack([OBJECTIVES[name].merits(found) for name, found in values.items()], axis=-1)

"""The results of a run: of each epoch, and of the best epoch so far."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rkdsearch.accuracy import TeacherReliability


@dataclass(frozen=True)
class Best:
    """The best epoch so far, by `validation.select`, and its accuracies (fractions of 1)."""

    epoch: int
    clean_accuracy: float
    robust_accuracy: float
    worst_class_accuracy: float

    def merit(self, select: str) -> float:
        """The value that selects an epoch: the accuracy `select`, or `mean` of clean and robust."""
        return (
            (self.clean_accuracy + self.robust_accuracy) / 2
            if select == "mean"
            else float(getattr(self, select))
        )


@dataclass(frozen=True)
class EpochResult:
    """One finished epoch. `epoch` counts from 1; `finished` is a Unix time in seconds.

    Accuracies are on validation images, fractions of 1; None where the epoch was not validated.
    """

    epoch: int
    epochs: int
    loss: float
    terms: dict[str, float]
    lr: float
    seconds: float
    images_per_second: float
    training_attack_steps: int
    clean_accuracy: float | None = None
    robust_accuracy: float | None = None
    worst_class_accuracy: float | None = None
    reliability: TeacherReliability | None = None
    best: Best | None = None
    robust_peak: float | None = None
    images: int | None = None
    validation_attack_steps: int | None = None
    finished: float = 0.0
    processes: int | None = None

    @property
    def robust_overfitting_gap(self) -> float | None:
        """Highest robust accuracy so far minus this epoch's, a fraction of 1."""
        return (
            None
            if self.robust_accuracy is None or self.robust_peak is None
            else self.robust_peak - self.robust_accuracy
        )

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "EpochResult":
        """The inverse of `dataclasses.asdict`."""
        reliability, best = values["reliability"], values["best"]
        return EpochResult(
            **{k: v for k, v in values.items() if k not in ("reliability", "best")},
            reliability=None if reliability is None else TeacherReliability(**reliability),
            best=None if best is None else Best(**best),
        )

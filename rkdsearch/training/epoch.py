"""The results of a run: of each epoch, and of the best epoch so far."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rkdsearch.accuracy import ByClass, TeacherReliability
from rkdsearch.results.chance import is_constant, never_learned
from rkdsearch.results.objectives import ACCURACIES
from rkdsearch.results.rows import Checks


@dataclass(frozen=True)
class Best:
    """The best epoch so far, by `validation.select`, and its accuracies (fractions of 1)."""

    epoch: int
    clean_accuracy: float
    robust_accuracy: float
    worst_class_accuracy: float
    by_class: ByClass | None = None  # None where an earlier version measured

    @property
    def accuracies(self) -> dict[str, float]:
        """The accuracies among the objectives, by name."""
        return {name: getattr(self, name) for name in ACCURACIES}

    @property
    def constant(self) -> bool:
        """True where the network gives every image one class."""
        return is_constant(
            self.clean_accuracy, self.robust_accuracy, self.worst_class_accuracy, self._classes
        )

    def never_learned(self, images: int | None) -> bool:
        """True where it has learned nothing of the classes: its robust accuracy says nothing.

        The mean over K classes of its clean accuracies on `images` may be 1 / K.
        """
        return never_learned(
            self.clean_accuracy,
            self.robust_accuracy,
            self.worst_class_accuracy,
            self._classes,
            images,
        )

    @property
    def _classes(self) -> tuple[float | None, ...] | None:
        return None if self.by_class is None else self.by_class.clean

    def selection_score(self, select: str) -> float:
        """The value that selects an epoch: the accuracy `select`, or `mean` of clean and robust.

        A constant prediction's is below every other's: at a hard eps a network that has begun to
        learn may have less of both together.
        """
        value = (
            (self.clean_accuracy + self.robust_accuracy) / 2
            if select == "mean"
            else float(getattr(self, select))
        )
        return value - self.constant


@dataclass(frozen=True)
class EpochResult:
    """One finished epoch, trained on `node`. `finished` is a Unix time in seconds.

    `epoch` counts from 1. Accuracies are on validation images, fractions of 1; None where the epoch
    was not validated. `checks` are of the best epoch's network, on validation images, and come with
    a full run's last epoch.
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
    by_class: ByClass | None = None
    reliability: TeacherReliability | None = None
    best: Best | None = None
    robust_peak: float | None = None
    images: int | None = None
    validation_attack_steps: int | None = None
    finished: float = 0.0
    processes: int | None = None
    checks: Checks | None = None
    node: str | None = None

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
        reliability, best, checks = values["reliability"], values["best"], values.get("checks")
        nested = ("reliability", "best", "by_class", "checks")
        return EpochResult(
            **{k: v for k, v in values.items() if k not in nested},
            by_class=_by_class(values.get("by_class")),
            reliability=None if reliability is None else TeacherReliability(**reliability),
            best=None
            if best is None
            else Best(**{**best, "by_class": _by_class(best.get("by_class"))}),
            checks=None if checks is None else Checks(**checks),
        )


def _by_class(values: Mapping[str, Any] | None) -> ByClass | None:
    return None if values is None else ByClass(tuple(values["clean"]), tuple(values["robust"]))

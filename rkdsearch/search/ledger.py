"""The ledger: every configuration of a study, its state and its epochs; the one truth, from which all else is derived.

It is kept in Parquet (`trials/`, `epochs/`, `rungs/`) and in the trials' own checkpoints, which carry their history. Every start reconciles:
rows first, then checkpoints, which may know an epoch more. Finished trials stay finished, paused ones stay paused until they may go on, and
only those that were interrupted go on from their last epoch. Ray and Optuna remember nothing for us.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from rkdsearch.config import TrainConfig
from rkdsearch.errors import CheckpointError
from rkdsearch.results.store import Store
from rkdsearch.results.summary import records
from rkdsearch.training import rows
from rkdsearch.training.teacher import history_of
from rkdsearch.training.trainer import Best, EpochResult

Origin = Literal["first", "search", "replicate"]
Status = Literal["running", "paused", "stopped", "finished", "failed"]


@dataclass
class Trial:
    """One configuration and what became of it."""

    trial_id: str
    ordinal: int
    origin: Origin
    label: str
    overrides: dict[str, Any]
    config: TrainConfig
    notes: dict[str, Any] = field(default_factory=dict)
    status: Status = "running"
    error: str | None = None
    epochs: list[EpochResult] = field(default_factory=list)
    decisions: list[dict[str, object]] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)  # run.*: what the worker says of itself
    executing: bool = False
    written: Status | None = None  # what its row says

    @property
    def best(self) -> Best | None:
        """The epoch by which the trial is judged so far."""
        return self.epochs[-1].best if self.epochs else None

    @property
    def full(self) -> bool:
        """Whether it has reached full length."""
        return bool(self.epochs) and self.epochs[-1].epoch >= self.config.training.epochs

    def values_at(self, epoch: int, objectives: tuple[str, ...]) -> tuple[float, ...] | None:
        """The objectives of the best epoch up to `epoch`, all from that one; None where that was not measured."""
        reached = next((e for e in self.epochs if e.epoch == epoch), None)
        return None if reached is None or reached.best is None else tuple(float(getattr(reached.best, name)) for name in objectives)

    @property
    def device_seconds(self) -> float:
        """What it has cost so far: seconds of training and validation times processes."""
        processes = self.facts.get("run.processes", 1)
        assert isinstance(processes, int)
        return processes * sum(e.seconds for e in self.epochs)

    def record(self, result: EpochResult) -> None:
        """Add an epoch; one that is already known is replaced by the same."""
        self.epochs = [e for e in self.epochs if e.epoch < result.epoch] + [result]


def trial_id_of(ordinal: int) -> str:
    """`t00007`: also the name of the trial's files and folder."""
    return f"t{ordinal:05d}"


def folder_of(study: Path, trial_id: str) -> Path:
    """Where the trial keeps its checkpoints."""
    return study / "checkpoints" / trial_id


def row_of(trial: Trial, study: str, config_row: Mapping[str, object]) -> dict[str, object]:
    """The trial's row in `trials/`."""
    return {
        "trial_id": trial.trial_id,
        "study": study,
        "ordinal": trial.ordinal,
        "origin": trial.origin,
        "label": trial.label,
        "status": trial.status,
        "error": trial.error,
        "sampled": trial.overrides,
        "notes": trial.notes,
        **config_row,
        **rows.measured(trial.config, trial.epochs, trial.facts),
    }


class Rows:
    """A study's rows as they lie on disk, for a search that goes on."""

    def __init__(self, store: Store) -> None:
        self.trials = records(store.trials())
        self._rungs = records(store.rungs())
        self._epochs = records(store.epochs())

    def decisions(self, trial_id: str) -> list[dict[str, object]]:
        """The rows of `rungs/` of one trial."""
        return [{k: plain(v) for k, v in row.items() if k != "trial_id"} for row in self._rungs if row["trial_id"] == trial_id]

    def epochs(self, trial_id: str, config: TrainConfig, images: int | None = None) -> list[EpochResult]:
        """The rows of `epochs/` of one trial, as far as they were written; best epochs are found again. `images` were validated on."""
        found: list[EpochResult] = []
        best: Best | None = None
        peak: float | None = None
        for row in self._epochs:
            if row["trial_id"] != trial_id:
                continue
            epoch = rows.read_epoch({k: plain(v) for k, v in row.items()})
            if epoch.clean_accuracy is not None and epoch.robust_accuracy is not None and epoch.worst_class_accuracy is not None:
                judged = Best(epoch.epoch, epoch.clean_accuracy, epoch.robust_accuracy, epoch.worst_class_accuracy)
                best = judged if best is None or _merit(judged, config) > _merit(best, config) else best
                peak = max(peak or 0.0, judged.robust_accuracy)
            found.append(replace(epoch, epochs=config.training.epochs, best=best, robust_peak=peak, images=images))
        return found


def known_epochs(folder: Path) -> list[EpochResult]:
    """The history in the trial's own checkpoint; none where there is no checkpoint, or a damaged one, which is put aside."""
    try:
        return history_of(folder)
    except CheckpointError:
        # The run starts afresh: a half-written file must not stop the search for good, and is kept for who wants to look.
        (folder / "last.safetensors").rename(folder / "last.safetensors.damaged")
        return []


def put_aside(study: Path, file: Path) -> None:
    """A damaged row is kept, hidden from readers; where it was a trial's own, its checkpoints and epochs too: that number is asked again."""
    if file.parent.name == "trials":
        checkpoints = folder_of(study, file.stem)
        if checkpoints.exists():
            checkpoints.rename(checkpoints.with_name(f".{checkpoints.name}.damaged-{time.time_ns()}"))
        for table in ("epochs", "rungs"):
            (study / table / file.name).unlink(missing_ok=True)
    file.rename(file.with_name(f".{file.name}.damaged-{time.time_ns()}"))


def _merit(best: Best, config: TrainConfig) -> float:
    select = config.validation.select
    return (best.clean_accuracy + best.robust_accuracy) / 2 if select == "mean" else float(getattr(best, select))


def plain(value: Any) -> Any:
    """A cell of a data frame as Python has it."""
    if hasattr(value, "to_pydatetime"):
        return value.to_pydatetime()
    return value.item() if hasattr(value, "item") else value

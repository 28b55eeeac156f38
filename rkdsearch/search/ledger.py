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
from rkdsearch.search.ladder import Leg
from rkdsearch.training import rows
from rkdsearch.training.stages import at
from rkdsearch.training.teacher import history_of
from rkdsearch.training.trainer import Best, EpochResult

Origin = Literal["first", "search", "replicate"]
Status = Literal["running", "paused", "stopped", "finished", "failed"]


@dataclass
class Trial:
    """One configuration and what became of it.

    It climbs the ladder in one training run or more (`legs`); `runs` has the epochs of each that has begun.
    """

    trial_id: str
    ordinal: int
    origin: Origin
    label: str
    overrides: dict[str, Any]
    config: TrainConfig
    legs: tuple[Leg, ...]
    notes: dict[str, Any] = field(default_factory=dict)
    status: Status = "running"
    error: str | None = None
    runs: list[list[EpochResult]] = field(default_factory=lambda: [[]])
    decisions: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)  # run.*: what the worker says of itself
    executing: bool = False
    written: Status | None = None  # what its row says

    @property
    def leg(self) -> Leg:
        """The training run that it is in."""
        return self.legs[len(self.runs) - 1]

    @property
    def folder(self) -> str:
        """Where the run that it is in keeps its checkpoints, below the trial's folder."""
        return self.folder_of(len(self.runs) - 1)

    def folder_of(self, leg: int) -> str:
        """The same of one of its runs: the last one, which is delivered, has the trial's folder itself."""
        return "." if leg == len(self.legs) - 1 else f"leg-{leg}"

    @property
    def run(self) -> list[EpochResult]:
        """The epochs of the run that it is in."""
        return self.runs[-1]

    @property
    def epochs(self) -> list[EpochResult]:
        """The epochs of the latest run that has any: what is known of the trial."""
        return next((run for run in reversed(self.runs) if run), [])

    @property
    def trained(self) -> int:
        """Epochs over all its runs."""
        return sum(len(run) for run in self.runs)

    @property
    def place(self) -> tuple[int, int]:
        """How far it has come: the number of its run, and the epochs there."""
        return len(self.runs) - 1, self.run[-1].epoch if self.run else 0

    @property
    def best(self) -> Best | None:
        """The epoch by which the trial is judged so far."""
        return self.epochs[-1].best if self.epochs else None

    @property
    def full(self) -> bool:
        """Whether it has reached full length, by its last run."""
        return len(self.runs) == len(self.legs) and bool(self.run) and self.run[-1].epoch >= self.config.training.epochs

    def place_of(self, epochs: int) -> tuple[int, int]:
        """Where the rung of this length stands; beyond the last run where the trial passes it by."""
        return next((i for i, leg in enumerate(self.legs) if leg.has(epochs)), len(self.legs)), epochs

    def at(self, epochs: int) -> EpochResult | None:
        """The last epoch before the rung of this length, as the run that climbs it had it; None where it did not come there."""
        number = self.place_of(epochs)[0]
        return next((e for e in self.runs[number] if e.epoch == epochs), None) if number < len(self.runs) else None

    def values_at(self, epochs: int, objectives: tuple[str, ...]) -> tuple[float, ...] | None:
        """The objectives of the best epoch up to the rung of this length, all from that one; None where that was not measured."""
        reached = self.at(epochs)
        return None if reached is None or reached.best is None else tuple(float(getattr(reached.best, name)) for name in objectives)

    @property
    def device_seconds(self) -> float:
        """What it has cost so far: seconds of training and validation times processes."""
        processes = self.facts.get("run.processes", 1)
        assert isinstance(processes, int)
        return processes * sum(e.seconds for run in self.runs for e in run)

    def record(self, result: EpochResult) -> None:
        """Add an epoch; one that is already known is replaced by the same."""
        while self.run and self.run[-1].epoch >= result.epoch:
            self.run.pop()
        self.run.append(result)

    def goes_up(self) -> None:
        """It has gone on from a rung: where that was the last of its run, the next run begins."""
        if self.run and self.run[-1].epoch == self.leg.end and len(self.runs) < len(self.legs):
            self.runs.append([])


def trial_id_of(ordinal: int, repeat: int = 0) -> str:
    """`t00007`, and `t00007-r2` for its second repeat: also the name of the trial's files and folder."""
    return f"t{ordinal:05d}" + (f"-r{repeat}" if repeat else "")


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
        **rows.measured(trial.config, trial.epochs, trial.facts, earlier=[e for run in trial.runs if run is not trial.epochs for e in run]),
    }


class Rows:
    """A study's rows as they lie on disk, for a search that goes on."""

    def __init__(self, store: Store) -> None:
        self.trials = records(store.trials())
        self._rungs = records(store.rungs())
        self._epochs = records(store.epochs())

    def decisions(self, trial_id: str) -> list[dict[str, Any]]:
        """The rows of `rungs/` of one trial."""
        return [{k: plain(v) for k, v in row.items() if k != "trial_id"} for row in self._rungs if row["trial_id"] == trial_id]

    def epochs(self, trial: Trial, leg: int, images: int | None = None) -> list[EpochResult]:
        """The rows of `epochs/` of one run of a trial, as far as they were written; best epochs are found again. `images` were validated on."""
        config, stages = trial.config, trial.legs[leg].stages
        found: list[EpochResult] = []
        best: Best | None = None
        peak: float | None = None
        for row in self._epochs:
            if row["trial_id"] != trial.trial_id or (row["leg"] or 0) != leg:
                continue
            epoch = rows.read_epoch({k: plain(v) for k, v in row.items()})
            if not at(stages, epoch.epoch).judged_like(at(stages, epoch.epoch - 1)):
                best = peak = None
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

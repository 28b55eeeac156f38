"""The ledger: every configuration of a study, its state and its epochs; the one truth, from which all else is derived.

It is kept in Parquet (`trials/`, `epochs/`, `rungs/`) and in the trials' own checkpoints, which carry their history. Every start reconciles:
rows first, then checkpoints, which may know an epoch more. Finished trials stay finished, paused ones stay paused until they may go on, and
only those that were interrupted go on from their last epoch. Ray and Optuna remember nothing for us.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from rkdsearch.config import TrainConfig
from rkdsearch.errors import CheckpointError
from rkdsearch.evaluation import Reliability
from rkdsearch.results.store import Store
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
        self._trials = store.trials()
        self._rungs = store.rungs()
        self._epochs = store.epochs()

    def trial_rows(self) -> list[dict[str, Any]]:
        """The rows of `trials/`, in ordinal order, nulls as None."""
        return [{k: (None if _null(v) else v) for k, v in row.items()} for row in self._trials.to_dict("records")]

    def decisions(self, trial_id: str) -> list[dict[str, object]]:
        """The rows of `rungs/` of one trial."""
        found = self._rungs[self._rungs["trial_id"] == trial_id].drop(columns="trial_id")
        return [{k: (None if _null(v) else plain(v)) for k, v in row.items()} for row in found.to_dict("records")]

    def epochs(self, trial_id: str) -> list[EpochResult]:
        """The rows of `epochs/` of one trial, as far as they were written."""
        found: list[EpochResult] = []
        for row in self._epochs[self._epochs["trial_id"] == trial_id].to_dict("records"):
            values = {k: (None if _null(v) else plain(v)) for k, v in row.items()}
            shares = [values[f"teacher.{name}"] for name in ("right_on_adversarial", "right_on_clean_only", "wrong_on_both")]
            found.append(
                EpochResult(
                    epoch=values["epoch"],
                    epochs=0,
                    loss=values["loss"],
                    terms=json.loads(values["terms"] or "{}"),
                    lr=values["lr"],
                    seconds=values["seconds"],
                    images_per_second=values["images_per_second"],
                    training_attack_steps=values["training_attack_steps"],
                    clean_accuracy=values["clean_accuracy"],
                    robust_accuracy=values["robust_accuracy"],
                    worst_class_accuracy=values["worst_class_accuracy"],
                    reliability=None if shares[0] is None else Reliability(*shares),
                    finished=values["finished"].timestamp(),
                )
            )
        return found


def known_epochs(folder: Path) -> list[EpochResult]:
    """The history in the trial's own checkpoint; none where there is no checkpoint, or a damaged one, which is put aside."""
    try:
        return history_of(folder)
    except CheckpointError:
        # The run starts afresh: a half-written file must not stop the search for good, and is kept for who wants to look.
        (folder / "last.safetensors").rename(folder / "last.safetensors.damaged")
        return []


def _null(value: object) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)  # noqa: PLR0124 - NaN


def plain(value: Any) -> Any:  # noqa: ANN401 - any cell
    """A cell of a data frame as Python has it."""
    return value.to_pydatetime() if isinstance(value, pd.Timestamp) else value.item() if hasattr(value, "item") else value

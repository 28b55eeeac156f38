"""What a study's folder holds, for a search that goes on: rows first, then the trials' own checkpoints, which may know an epoch more.

A file that is damaged is put aside, and its part of the search is done again.
"""

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rkdsearch.config import TrainConfig
from rkdsearch.config.fidelity import fidelity_at
from rkdsearch.results.store import Store
from rkdsearch.results.summary import records
from rkdsearch.search.ledger import BY_MACHINE, Trial, folder_of
from rkdsearch.space.ladder import Segment
from rkdsearch.training import checkpoint, rows
from rkdsearch.training.epoch import Best, EpochResult
from rkdsearch.training.teacher import history_of

_DERIVED = {"run.seed", "run.wall_seconds", "run.device_seconds", "run.updated"}


class Rows:
    """A study's rows as they lie on disk."""

    def __init__(self, store: Store) -> None:
        self._folder = store.folder
        self.trials = records(store.trials())
        self._rungs = _by_trial(records(store.rungs()))
        self._epochs = _by_trial(records(store.epochs()))

    def trial(
        self,
        row: Mapping[str, Any],
        config: TrainConfig,
        segments: tuple[Segment, ...],
        costs: Mapping[str, int],
    ) -> Trial:
        """The trial of one of the rows, with what its checkpoints know."""
        again = row["status"] == "failed" and row["failure"] in BY_MACHINE
        trial = Trial(
            trial_id=row["trial_id"],
            ordinal=int(row["ordinal"]),
            origin=row["origin"],
            label=row["label"] or "",
            overrides=json.loads(row["hyperparameters"] or "{}"),
            config=config,
            segments=segments,
            costs=costs,
            notes=json.loads(row["notes"] or "{}"),
            status="running" if again else row["status"],
            error=None if again else row["error"],
            failure=None if again else row["failure"],
            written=row["status"],
            asked=_plain(row["asked"] or row["run.updated"]),
            decisions=self._decisions(row["trial_id"]),
            facts={
                k: _plain(v)
                for k, v in row.items()
                if k.startswith("run.") and k not in _DERIVED and v is not None
            },
        )
        home, images = (
            folder_of(self._folder, trial.trial_id),
            row.get("fidelity.validation_images"),
        )
        for number, segment in enumerate(trial.segments):
            trial.runs[number:] = [known_epochs(home / trial.folder_of(number))]
            last = next(
                (d["decision"] for d in reversed(trial.decisions) if d["epochs"] == segment.epochs),
                None,
            )
            # Whether the next run has begun; of this one, a checkpoint that is lost is not needed
            # any more. The decision's row may be lost too.
            later = [
                home / trial.folder_of(n) / "last.safetensors"
                for n in range(number + 1, len(trial.segments))
            ]
            begun = bool(later) and (
                last in ("continued", "promoted")
                or trial.status == "finished"
                or any(f.exists() for f in later)
            )
            if not trial.run and trial.status == "running" and not begun:
                # Without a checkpoint this run starts afresh, and its rungs are decided again.
                trial.decisions = [d for d in trial.decisions if not segment.has(d["epochs"])]
            elif not trial.run:
                trial.runs[number] = self._epochs_of(
                    trial, number, None if images is None else int(images)
                )
            if not begun:
                break
        trial.lost_seconds = max(0.0, (row["run.wall_seconds"] or 0.0) - trial.seconds)
        return trial

    def _decisions(self, trial_id: str) -> list[dict[str, Any]]:
        """The rows of `rungs/` of one trial."""
        return [
            {k: _plain(v) for k, v in row.items() if k != "trial_id"}
            for row in self._rungs[trial_id]
        ]

    def _epochs_of(
        self, trial: Trial, segment: int, images: int | None = None
    ) -> list[EpochResult]:
        """The rows of `epochs/` of one run of a trial, as far as they were written; best epochs are found again. `images` were validated on."""
        select, fidelities = trial.config.validation.select, trial.segments[segment].fidelities
        found: list[EpochResult] = []
        best: Best | None = None
        peak: float | None = None
        for row in self._epochs[trial.trial_id]:
            if (row["segment"] or 0) != segment:
                continue
            epoch = rows.read_epoch({k: _plain(v) for k, v in row.items()})
            if not fidelity_at(fidelities, epoch.epoch).same_validation(
                fidelity_at(fidelities, epoch.epoch - 1)
            ):
                best = peak = None
            if (
                epoch.clean_accuracy is not None
                and epoch.robust_accuracy is not None
                and epoch.worst_class_accuracy is not None
            ):
                judged = Best(
                    epoch.epoch,
                    epoch.clean_accuracy,
                    epoch.robust_accuracy,
                    epoch.worst_class_accuracy,
                )
                best = judged if best is None or judged.merit(select) > best.merit(select) else best
                peak = max(peak or 0.0, judged.robust_accuracy)
            found.append(
                replace(
                    epoch,
                    epochs=trial.config.training.epochs,
                    best=best,
                    robust_peak=peak,
                    images=images,
                )
            )
        return found


def known_epochs(folder: Path) -> list[EpochResult]:
    """The history in the trial's own checkpoint; none where there is no checkpoint, or a damaged one, which is put aside."""
    # a half-written file must not stop the search for good
    checkpoint.put_aside(folder / "last.safetensors")
    return history_of(folder)


def put_aside(study: Path, file: Path) -> None:
    """A damaged row is kept, hidden from readers; where it was a trial's own, its checkpoints and epochs too: that number is asked again."""
    if file.parent.name == "trials":
        checkpoints = folder_of(study, file.stem)
        if checkpoints.exists():
            checkpoints.rename(
                checkpoints.with_name(f".{checkpoints.name}.damaged-{time.time_ns()}")
            )
        for table in ("epochs", "rungs"):
            (study / table / file.name).unlink(missing_ok=True)
    file.rename(file.with_name(f".{file.name}.damaged-{time.time_ns()}"))


def _by_trial(found: Iterable[dict[str, Any]]) -> defaultdict[str, list[dict[str, Any]]]:
    by_trial: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in found:
        by_trial[row["trial_id"]].append(row)
    return by_trial


def _plain(value: Any) -> Any:
    """A cell of a data frame as Python has it."""
    if hasattr(value, "to_pydatetime"):
        return value.to_pydatetime()
    return value.item() if hasattr(value, "item") else value

"""Trials of a study as its folder has them: rows first, then checkpoints, which may have more.

A damaged file is put aside, and its part of the search is done again.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rkdsearch.config import TrainConfig
from rkdsearch.config.fidelity import fidelity_at
from rkdsearch.errors import MACHINE_FAILURES, Failure
from rkdsearch.results.cells import FULL_EPOCHS, METHOD, records
from rkdsearch.results.packs import is_pack
from rkdsearch.results.rows import DecisionRow
from rkdsearch.results.states import Origin, ProposedBy, Status
from rkdsearch.results.store import Store
from rkdsearch.search.ledger import folder_of
from rkdsearch.search.trial import Trial
from rkdsearch.space.ladder import Segment
from rkdsearch.space.space import SearchSpace
from rkdsearch.training import checkpoint, rows
from rkdsearch.training.epoch import Best, EpochResult
from rkdsearch.training.teacher import history_of

LAST = "last.safetensors"
# columns `run.*` that follow from others
_DERIVED = {"run.seed", "run.wall_seconds", "run.device_seconds", "run.updated"}


class StoredTrials:
    """Rows of a study as they are on disk, and the trials that they describe.

    Of the columns `config.*`, rows have the method, the full length and the searched parameters of
    `space`.
    """

    def __init__(
        self, store: Store, space: SearchSpace, notice: Callable[[str], None] = lambda _: None
    ) -> None:
        self._folder = store.folder
        self._notice = notice  # is told of damaged checkpoints
        read = {
            METHOD,
            FULL_EPOCHS,
            *(f"config.{parameter.name}" for parameter in space.parameters),
        }
        self.rows = records(store.trials(lambda c: not c.startswith("config.") or c in read))
        # a decision that is not there is made again
        made = (row for row in records(store.rungs()) if row["decision"] is not None)
        self._rungs = _by_trial(made)
        self._epochs = _by_trial(records(store.epochs()))

    def trial(
        self,
        row: Mapping[str, Any],
        config: TrainConfig,
        segments: tuple[Segment, ...],
        costs: Mapping[str, int],
        *,
        may_retry: bool = True,
    ) -> Trial:
        """Trial of one of the rows, with the epochs of its checkpoints.

        A trial that failed in a way that may not happen again is running once more, if it may.
        """
        failed_so = row["status"] == Status.FAILED and row["failure"] in MACHINE_FAILURES
        retried = failed_so and may_retry
        failed = row["failure"] is not None and not retried
        trial = Trial(
            trial_id=row["trial_id"],
            ordinal=int(row["ordinal"]),
            origin=Origin(row["origin"]),
            label=row["label"] or "",
            hyperparameters=hyperparameters_of(row),
            config=config,
            segments=segments,
            costs=costs,
            notes=json.loads(row["notes"] or "{}"),
            proposed_by=ProposedBy(row["proposed_by"]) if row["proposed_by"] else None,
            status=Status.RUNNING if retried else Status(row["status"]),
            error=None if retried else row["error"],
            failure=Failure(row["failure"]) if failed else None,
            written_status=Status(row["status"]),
            written_label=row["label"] or "",
            asked=_plain(row["asked"] or row["run.updated"]),
            placed=_plain(row["placed"]),
            decisions=[
                DecisionRow.from_row({k: _plain(v) for k, v in rung.items()})
                for rung in self._rungs[row["trial_id"]]
            ],
            facts={
                k: _plain(v)
                for k, v in row.items()
                if k.startswith("run.") and k not in _DERIVED and v is not None
            },
        )
        self._fill_segments(trial, row)
        known = row["run.wall_seconds"] or 0.0
        trial.lost_seconds = max(0.0, known - trial.seconds)
        # its row may be some epochs behind its checkpoint
        behind = rows.devices(trial.facts) * (trial.seconds - known)
        trial.earlier_device_seconds = (row["run.device_seconds"] or 0.0) + behind
        trial.earlier_seconds = trial.seconds
        return trial

    def _fill_segments(self, trial: Trial, row: Mapping[str, Any]) -> None:
        """Add the epochs of every segment that has begun: its checkpoint's, or else its rows'."""
        home = folder_of(self._folder, trial.trial_id)
        _rename_segments(home, len(trial.segments))
        for number, segment in enumerate(trial.segments):
            epochs = checkpoint_history(home / trial.folder_of_segment(number), self._notice)
            trial.epochs_by_segment[number:] = [epochs]
            next_begun = _next_begun(trial, number, home)
            if not epochs and trial.status == Status.RUNNING and not next_begun:
                # without a checkpoint this segment starts afresh, and its rungs are decided again
                trial.decisions = [d for d in trial.decisions if not segment.has(d.epochs)]
            elif not epochs:
                trial.epochs_by_segment[number] = self._epochs_of(trial, number, row)
            if not next_begun:
                break

    def _epochs_of(
        self, trial: Trial, number: int, trial_row: Mapping[str, Any]
    ) -> list[EpochResult]:
        """Epochs of one segment by the rows of `epochs/`; best epochs are determined again."""
        known = trial_row["fidelity.validation_images"]
        images = None if known is None else int(known)
        validation, fidelities = trial.config.validation, trial.segments[number].fidelities
        found: list[EpochResult] = []
        best: Best | None = None
        peak: float | None = None
        for row in self._epochs[trial.trial_id]:
            if (row["segment"] or 0) != number:
                continue
            epoch = rows.read_epoch({k: _plain(v) for k, v in row.items()})
            if epoch.epoch > 1 and not fidelity_at(fidelities, epoch.epoch).same_validation(
                fidelity_at(fidelities, epoch.epoch - 1), validation, images
            ):
                best = peak = None
            if (
                epoch.clean_accuracy is not None
                and epoch.robust_accuracy is not None
                and epoch.worst_class_accuracy is not None
            ):
                measured = Best(
                    epoch.epoch,
                    epoch.clean_accuracy,
                    epoch.robust_accuracy,
                    epoch.worst_class_accuracy,
                    epoch.by_class,
                )
                select = validation.select
                if best is None or measured.selection_score(select) > best.selection_score(select):
                    best = measured
                peak = max(peak or 0.0, measured.robust_accuracy)
            found.append(
                replace(
                    epoch,
                    epochs=trial.config.training.epochs,
                    best=best,
                    robust_peak=peak,
                    images=images,
                )
            )
        if found and number == len(trial.segments) - 1:
            found[-1] = replace(found[-1], checks=rows.read_checks(trial_row))
        return found


def hyperparameters_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Chosen values of a row of `trials/`, by dotted name."""
    found: dict[str, Any] = json.loads(row["hyperparameters"] or "{}")
    return found


def checkpoint_history(
    folder: Path, notice: Callable[[str], None] = lambda _: None
) -> list[EpochResult]:
    """Epochs in the last checkpoint of this folder; empty where there is none.

    A damaged checkpoint is put aside, which `notice` is told: a half-written file must not stop the
    search for good. Raises FileError where the system does not give the file.
    """
    if (damage := checkpoint.put_aside(folder / LAST)) is not None:
        notice(damage)
    return history_of(folder)


def hide_damaged(study: Path, file: Path, known: Collection[str]) -> str:
    """Hide a damaged file of rows from readers. Returns a sentence about it.

    Where it is of `trials/`, checkpoints of trials that are not among the `known` ones are hidden
    too, and the other rows of its trial are deleted: these ordinals are asked for again.
    """
    hidden = _hide(file)
    again = []
    if file.parent.name == "trials":
        if file.stem not in known and not is_pack(file):
            for table in ("epochs", "rungs"):
                (study / table / file.name).unlink(missing_ok=True)
        again = [c for c in (study / "checkpoints").glob("[!.]*") if c.name not in known]
        for checkpoints in again:
            _hide(checkpoints)
    names = ", ".join(sorted(checkpoints.name for checkpoints in again))
    trained = f"; trained again, with their checkpoints put aside too: {names}" if again else ""
    return f"{file}: is damaged, and put aside as {hidden.name}{trained}"


def _hide(path: Path) -> Path:
    return path.rename(path.with_name(f".{path.name}.damaged-{time.time_ns()}"))


def _rename_segments(home: Path, segments: int) -> None:
    """Rename the folders of an earlier version, which called a segment a leg."""
    for number in range(segments - 1):
        old, new = home / f"leg-{number}", home / f"segment-{number}"
        if old.exists() and not new.exists():
            old.rename(new)


def _next_begun(trial: Trial, number: int, home: Path) -> bool:
    """True where the segment after this one has begun: then this one's checkpoint is not needed.

    Its decision may be lost, so that later checkpoints are looked for as well.
    """
    later = range(number + 1, len(trial.segments))
    last = next(
        (d for d in reversed(trial.decisions) if d.epochs == trial.segments[number].epochs), None
    )
    return bool(later) and (
        (last is not None and last.trains_on)
        or trial.status == Status.FINISHED
        or any((home / trial.folder_of_segment(n) / LAST).exists() for n in later)
    )


def _by_trial(found: Iterable[dict[str, Any]]) -> defaultdict[str, list[dict[str, Any]]]:
    by_trial: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in found:
        by_trial[row["trial_id"]].append(row)
    return by_trial


def _plain(value: Any) -> Any:
    """Value of a data frame's cell as a plain Python type."""
    if hasattr(value, "to_pydatetime"):
        return value.to_pydatetime()
    return value.item() if hasattr(value, "item") else value

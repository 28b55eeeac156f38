"""A trial trained again, and compared with what the study has of it.

On a CPU, with the same code, packages and threads, the weights are the same bit for bit.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rkdsearch import config as run
from rkdsearch.config import TrainConfig
from rkdsearch.config.fidelity import Fidelity
from rkdsearch.errors import CheckpointError, StudyError
from rkdsearch.plugins import changed_packages
from rkdsearch.results.cells import records
from rkdsearch.results.states import Status
from rkdsearch.results.study import read_study
from rkdsearch.search.ledger import folder_of
from rkdsearch.task import ImageTask
from rkdsearch.teacher import load
from rkdsearch.training import checkpoint, rows
from rkdsearch.training.epoch import EpochResult
from rkdsearch.training.teacher import with_present_files
from rkdsearch.training.trainer import Trainer

_IMAGES = {
    "run.split_sha256": "the training and validation split",
    "run.pixels_sha256": "the pixels",
    "run.extra_sha256": "the images of data.extra",
    "run.teacher_sha256": "the robust teacher",
    "run.natural_teacher_sha256": "the natural teacher",
}
_MACHINE = (
    "run.device",
    "run.threads",
    "run.processes",
    "run.git_commit",
    "run.git_diff_sha256",
)
_MEASURED = ("loss", "clean_accuracy", "robust_accuracy", "worst_class_accuracy")


@dataclass(frozen=True)
class Recorded:
    """A trial as its study has it: its row, its run, and the network that it delivered."""

    row: Mapping[str, Any]
    config: TrainConfig
    fidelities: tuple[Fidelity, ...]
    epochs: tuple[EpochResult, ...]  # of the segment that delivered the network
    weights: Mapping[str, torch.Tensor]


def recorded(study: Path, trial_id: str) -> Recorded:
    """The trial as its study has it.

    Raises StudyError for an unknown trial, one whose network was not kept, or one without epochs,
    CheckpointError where its files are gone, TeacherError where its weights do not fit.
    """
    found = read_study(study)
    row = found.trial(trial_id)
    folder = folder_of(study, trial_id)
    if row["status"] != Status.FINISHED and not (folder / "best.safetensors").exists():
        raise StudyError(
            f"{study}: trial {trial_id} is {row['status']}, and its network was not kept: there is"
            " nothing to compare with; name a finished trial"
        )
    weights, state = checkpoint.read(folder / "best.safetensors")
    if "config" not in state:
        raise CheckpointError(f"{folder / 'best.safetensors'}: holds no description of its run")
    config = run.build_stored(state["config"], trial_id)
    if "task" in state:  # before anything is trained: weights that do not fit cannot be compared
        load(folder / "best.safetensors", config.student, ImageTask(**state["task"]))
    last = checkpoint.state_of(folder / "last.safetensors")
    of_trial = found.epochs[found.epochs["trial_id"] == trial_id]
    segment = of_trial["segment"].fillna(0)
    epochs = [rows.read_epoch(r) for r in records(of_trial[segment == segment.max()])]
    if not epochs:
        raise StudyError(f"{study}: trial {trial_id} has no finished epoch to compare with")
    return Recorded(
        row,
        with_present_files(config, study),
        tuple(Fidelity(**values) for values in last.get("fidelities", ())),
        tuple(epochs),
        weights,
    )


def trainer_of(was: Recorded, folder: Path) -> Trainer:
    """The trainer of the same run in a folder of its own, with as many threads.

    Raises StudyError where images or teachers are others: there would be nothing to compare.
    """
    if was.row["run.threads"]:
        torch.set_num_threads(int(was.row["run.threads"]))
    trainer = Trainer(was.config, folder, fidelities=was.fidelities)
    now = rows.facts_of(trainer)
    for column, words in _IMAGES.items():
        if was.row[column] is not None and was.row[column] != now[column]:
            raise StudyError(
                f"{was.row['trial_id']}: {words} were others: {column} was {was.row[column]}, is"
                f" {now[column]}; put the right ones back"
            )
    return trainer


def other_conditions(was: Recorded, now: Mapping[str, object]) -> Iterator[str]:
    """Conditions of the run that are others now, each as a sentence's part.

    `now` are the cells of `RunFacts` of the run that repeats it.
    """
    known = json.loads(was.row["run.versions"] or "{}")
    current: Any = now["run.versions"]
    for name in sorted(known.keys() | current.keys() if known else ()):
        if known.get(name) != current.get(name):
            yield f"{name} was {known.get(name)}, is {current.get(name)}"
    if was.row["run.seed"] not in (None, was.config.training.seed):
        yield f"seed was {was.row['run.seed']}, is {was.config.training.seed}"
    if not known:
        yield "the row is of an earlier version, which recorded few versions"
    for sentence in changed_packages(json.loads(was.row["run.packages"] or "{}")):
        yield sentence.partition(";")[0]
    for column in _MACHINE:
        if was.row[column] != now[column]:
            yield f"{column.removeprefix('run.')} was {was.row[column]}, is {now[column]}"


def differences(was: Recorded, trainer: Trainer) -> Iterator[str]:
    """Differences between the recorded and the repeated run; none where they agree bit for bit."""
    for old, new in zip(was.epochs, trainer.history, strict=False):
        apart = [
            f"{name} was {getattr(old, name):.6g}, is {getattr(new, name):.6g}"
            for name in _MEASURED
            if getattr(old, name) != getattr(new, name)
        ]
        if apart:
            yield f"epoch {old.epoch}: {', '.join(apart)}"
            break
    if len(was.epochs) != len(trainer.history):
        yield f"epochs were {len(was.epochs)}, are {len(trainer.history)}"
    assert trainer.folder is not None
    weights, state = checkpoint.read(trainer.folder / "best.safetensors")
    best = state["best"]["epoch"]
    if best != was.row["metric.best_epoch"]:
        yield f"the best epoch was {was.row['metric.best_epoch']}, is {best}"
    unequal = [name for name in was.weights if not torch.equal(was.weights[name], weights[name])]
    if unequal:
        largest = max(
            float((was.weights[name].double() - weights[name].double()).abs().max())
            for name in unequal
        )
        yield (
            f"{len(unequal)} of {len(was.weights)} tensors of the network, by {largest:.3g} at most"
        )
    for name in ("clean_accuracy", "robust_accuracy"):
        before, after = was.row[f"metric.{name}"], state["best"][name]
        if before != after:
            yield f"{name} of the best epoch was {before:.4f}, is {after:.4f}"

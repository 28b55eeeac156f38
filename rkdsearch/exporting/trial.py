"""Export of one trial: weights, model card, RobustBench entry, the run's YAML, and ONNX."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rkdsearch import config as run
from rkdsearch import data
from rkdsearch.atomic_file import replace_file
from rkdsearch.errors import CheckpointError, StudyError
from rkdsearch.exporting import onnx_model
from rkdsearch.exporting.card import model_card
from rkdsearch.exporting.exported_network import WEIGHTS, ExportedNetwork
from rkdsearch.exporting.robustbench import entry
from rkdsearch.exporting.run_file import RUN, run_yaml
from rkdsearch.exporting.weights import read_back, write_weights
from rkdsearch.models import ModelConfig
from rkdsearch.results.cells import CLEAN, ROBUST, records
from rkdsearch.results.seed_means import over_seeds
from rkdsearch.results.seed_noise import replicated
from rkdsearch.results.states import Status
from rkdsearch.results.study import StudyResults, read_study
from rkdsearch.task import ImageTask
from rkdsearch.teacher import fingerprint, header, load
from rkdsearch.training import checkpoint

CARD, ENTRY, ONNX = "README.md", "robustbench.json", "student.onnx"
# Images that network and ONNX file are compared on; not 2, the number that the exporter traces.
COMPARED_IMAGES = 5


def export_trial(
    study: Path, trial_id: str, weights: Path, out: Path, *, onnx: bool = False
) -> tuple[Path, ...]:
    """Write all files of a trial's best network into `out`; returns their paths.

    `weights` is the trial's `best.safetensors`. Raises StudyError for an unknown trial,
    CheckpointError for missing weights, TeacherError for weights that do not fit, DataError where
    the file is of an earlier version, which does not know the shape of its images, and these are
    gone, RkdError where `onnx` is requested and not installed, or where its file computes other
    logits than the network.
    """
    if onnx:
        onnx_model.require_packages()
    rows = read_study(study)
    trial = rows.trial(trial_id)
    tensors, state = checkpoint.read(weights)
    if "config" not in state:
        raise CheckpointError(
            f"{weights}: holds no description of its run; name the trial's best.safetensors"
        )
    config = run.build_stored(state["config"], str(weights))
    # An earlier version's file does not describe its images.
    about = state if "task" in state else data.load_training(config.data).train.described
    task = ImageTask(**about["task"])
    _refuse_other_weights(weights, trial, state.get("best"))
    _refuse_foreign(out)
    load(weights, config.student, task)  # weights that do not fit replace no earlier export
    network = _write_network(weights, tensors, state, about, config.student, task, out)
    sums = fingerprint(weights), fingerprint(out / WEIGHTS)
    delivery = _gathered(study, rows, trial, config, task, about, *sums)
    replace_file(out / CARD, model_card(delivery))
    replace_file(out / ENTRY, (json.dumps(entry(delivery), indent=2) + "\n"))
    replace_file(out / RUN, run_yaml(delivery))
    files = [out / WEIGHTS, out / CARD, out / ENTRY, out / RUN]
    if onnx:
        onnx_model.write(network, _noise(task), out / ONNX)
        files.append(out / ONNX)
    return tuple(files)


def _refuse_other_weights(weights: Path, trial: Mapping[str, Any], best: object) -> None:
    """Raise StudyError where the checkpoint's own accuracies are not those of the trial's row.

    Of a run that is not over the row may be some epochs behind.
    """
    if not isinstance(best, dict) or trial["status"] != Status.FINISHED:
        return
    for name, column in (("clean_accuracy", CLEAN), ("robust_accuracy", ROBUST)):
        if trial[column] is not None and abs(best[name] - trial[column]) > 1e-9:
            raise StudyError(
                f"{weights}: is not the network of trial {trial['trial_id']}: its {name} on"
                f" validation images was {best[name]:.4f}, and the trial's {trial[column]:.4f}; put"
                " the trial's own file back"
            )


def _refuse_foreign(out: Path) -> None:
    """Raise StudyError where files in the folder would be overwritten that no export made."""
    there = [name for name in (WEIGHTS, CARD, ENTRY, RUN, ONNX) if (out / name).exists()]
    if there and "network" not in header(out / WEIGHTS):
        raise StudyError(
            f"{out / there[0]}: is there already, beside no earlier export, and is not"
            " overwritten; name a folder of its own with --out"
        )


def _write_network(
    source: Path,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    about: Mapping[str, Any],
    student: ModelConfig,
    task: ImageTask,
    out: Path,
) -> nn.Module:
    """Write the weights, and return the network as the file gives it.

    An ONNX file of another network, which an earlier export left there, is removed.
    """
    file = out / WEIGHTS
    # Whoever uses it as a teacher must know which images it was trained on.
    described = {
        "network": student.model_dump(mode="json"),
        "state": {"split_sha256": state.get("split_sha256")},
        "task": about["task"],
        "classes": about["classes"],
    }
    metadata = {name: json.dumps(value, sort_keys=True) for name, value in described.items()}
    before = fingerprint(file) if file.exists() else None
    write_weights(file, tensors, metadata)
    if fingerprint(file) != before:
        (out / ONNX).unlink(missing_ok=True)
    return read_back(file, source, student, task, tensors)


def _gathered(
    home: Path,
    rows: StudyResults,
    trial: Mapping[str, Any],
    config: run.TrainConfig,
    task: ImageTask,
    about: Mapping[str, Any],
    source: str,
    sha256: str,
) -> ExportedNetwork:
    """Everything that card, entry and YAML say about the network.

    `source` and `sha256` are the sha256 of the checkpoint and of the exported file: test results of
    other weights are not this network's.
    """
    ordinal = trial["ordinal"]
    teachers = rows.description.get("teachers") or {}
    return ExportedNetwork(
        home=home,
        study=rows.name,
        trial=trial,
        config=config,
        task=task,
        classes=tuple(map(str, about["classes"])),
        preprocessing=about["preprocessing"],
        sha256=sha256,
        evaluations=[row for row in records(rows.tests) if row["weights_sha256"] in (None, source)],
        training_attack_steps=_distinct(rows, trial["trial_id"], "training_attack_steps"),
        processes=_distinct(rows, trial["trial_id"], "processes")
        or [int(n) for n in (trial["run.processes"],) if n],
        on_rungs=bool((rows.rungs["trial_id"] == trial["trial_id"]).any()),
        teachers=teachers if isinstance(teachers, dict) else {},
        replicates=next(
            (
                row
                for row in records(replicated(rows.trials).reset_index())
                if row["ordinal"] == ordinal
            ),
            None,
        ),
        openings=len(rows.test_openings),
        opened=rows.opened,
        over_seeds=[
            mean for mean in over_seeds(rows.tests, rows.trials) if mean.ordinal == ordinal
        ],
    )


def _noise(task: ImageTask) -> Tensor:
    """Images (N, C, H, W) of uniform noise: the data set need not be on this machine."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(COMPARED_IMAGES, *task.shape, generator=generator)


def _distinct(study: StudyResults, trial_id: str, column: str) -> list[int]:
    """Distinct values of this column in the epochs of the trial's last segment, in their order."""
    epochs = study.epochs[study.epochs["trial_id"] == trial_id]
    last = epochs[epochs["segment"].fillna(0) == epochs["segment"].fillna(0).max()]
    return list(dict.fromkeys(int(n) for n in last[column].dropna()))

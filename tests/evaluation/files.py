"""Runs without training, their networks, and images for evaluations."""

from pathlib import Path
from typing import Any

import torch

from rkdsearch import config as run
from rkdsearch import data, models
from rkdsearch.evaluation.images import EvaluatedImages, ImageSet, evaluated_images
from rkdsearch.evaluation.targets import EvaluationTarget
from rkdsearch.results.store import Store
from rkdsearch.teacher import Role
from rkdsearch.training import checkpoint
from tests.tasks import DIGITS

ACCURACIES = {"metric.clean_accuracy": 0.9, "metric.robust_accuracy": 0.5}
VALUES = {
    "method.name": "natural",
    "data.name": "digits",
    "student": {"name": "small_cnn", "width": 4},
    "training.device": "cpu",
    "validation.attack": {"eps": 8 / 255, "steps": 3},
}
CONFIG = run.build(VALUES)


def write_network(file: Path, config: run.TrainConfig = CONFIG, seed: int = 0) -> None:
    """A checkpoint of random weights."""
    torch.manual_seed(seed)
    network = models.build(config.student, DIGITS)
    checkpoint.write(file, network.state_dict(), {"config": config.to_dict()})


def run_alone(
    folder: Path,
    config: run.TrainConfig = CONFIG,
    *,
    status: str = "finished",
    seed: int = 0,
    **more: Any,
) -> None:
    """Write the files of a single run, without training it."""
    row = {
        "trial_id": "run",
        "ordinal": 0,
        "origin": "baseline",
        "label": "natural",
        "status": status,
        **ACCURACIES,
    }
    Store(folder).write_trial(row | more)
    write_network(folder / "best.safetensors", config, seed)


def write_trials(folder: Path, rows: list[dict[str, Any]]) -> None:
    """A study of these trials, each with a network of its own."""
    for number, row in enumerate(rows):
        known = {"ordinal": number, "origin": "search", "status": "finished", **ACCURACIES}
        Store(folder).write_trial(known | row)
        file = folder / "checkpoints" / row["trial_id"] / "best.safetensors"
        write_network(file, seed=number)


def target(trial_id: str, role: Role | None = None) -> EvaluationTarget:
    """A target whose file does not exist."""
    return EvaluationTarget(
        trial_id, "", CONFIG, Path("best.safetensors"), "ab" * 32, DIGITS, role=role
    )


def digits(count: int | None = None) -> EvaluatedImages:
    """So many test images of digits."""
    return evaluated_images(ImageSet.of_test(data.load_test(CONFIG.data)), count, seed=0)

"""A teacher is measured before it is believed: trained once from its recipe or read from its file, then examined on the user's images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from scipy.stats import binomtest

from rkdsearch import data, models
from rkdsearch.config import Recipe, TeacherConfig, TrainConfig, ValidationConfig
from rkdsearch.errors import TeacherError
from rkdsearch.evaluation import Verdict, judge
from rkdsearch.teacher import fingerprint, load
from rkdsearch.training import checkpoint
from rkdsearch.training.trainer import VALIDATION_SEED, EpochResult

Role = Literal["robust", "natural"]
CPU = torch.device("cpu")
ROLES: tuple[Role, ...] = ("robust", "natural")


@dataclass(frozen=True)
class Measured:
    """What a teacher reached on validation images, by the study's own exam. Accuracies are fractions of 1."""

    sha256: str
    clean_accuracy: float
    robust_accuracy: float
    images: int


def recipe_run(config: TrainConfig, role: Role) -> TrainConfig | None:
    """The run that makes this teacher: the recipe's method and loop, the study's data and exam. None where a file is given, or no teacher."""
    teacher: TeacherConfig | None = getattr(config.teachers, role)
    if teacher is None or teacher.path is not None or teacher.recipe is None:
        return None
    own = {name: getattr(teacher.recipe, name) for name in Recipe.model_fields}
    return TrainConfig(data=config.data, validation=config.validation, student=teacher.network, **own)


def folder_of(run: TrainConfig, cache: Path) -> Path:
    """Where this run's teacher is cached: by the fingerprint of its whole config, so that any change is another teacher."""
    return cache / run.fingerprint()[:16]


def is_trained(run: TrainConfig, folder: Path) -> bool:
    """Whether the run in this folder is complete."""
    last = folder / "last.safetensors"
    return last.exists() and len(checkpoint.read(last)[1]["history"]) == run.training.epochs


def history_of(folder: Path) -> list[EpochResult]:
    """The finished epochs of the run in this folder."""
    last = folder / "last.safetensors"
    return [EpochResult.from_dict(epoch) for epoch in checkpoint.read(last)[1]["history"]] if last.exists() else []


def from_folder(teacher: TeacherConfig, folder: Path) -> TeacherConfig:
    """The same teacher as a file with a hash: what trials are given in place of the recipe."""
    path = folder / "best.safetensors"
    return teacher.model_copy(update={"path": str(path), "sha256": fingerprint(path), "recipe": None})


def measure(teacher: TeacherConfig, splits: data.Splits, validation: ValidationConfig, device: torch.device = CPU) -> Measured:
    """Clean and PGD accuracy on the validation images. Raises TeacherError for a file that cannot be trusted or does not fit."""
    assert teacher.path is not None
    path = Path(teacher.path)
    verdict = examine(teacher, splits.validation, validation, len(splits.train.classes), device)
    return Measured(fingerprint(path), verdict.clean_accuracy, verdict.robust_accuracy, len(verdict.y))


def examine(teacher: TeacherConfig, images: data.Images, validation: ValidationConfig, classes: int, device: torch.device = CPU) -> Verdict:
    """The study's exam of this teacher on these images."""
    assert teacher.path is not None
    network = load(Path(teacher.path), teacher.network, classes=classes, channels=images.channels, size=images.size, sha256=teacher.sha256)
    x, y = images.floats(slice(0, validation.images), device=device)
    exam = validation.attack
    verdict, _ = judge(models.fold(network.to(device)), x, y, exam.build(), restarts=exam.restarts, seed=VALIDATION_SEED)
    return verdict


def check_claims(teacher: TeacherConfig, measured: Measured, place: str) -> None:
    """Raise TeacherError where a claimed accuracy lies above the 99 % interval of the measured one, plus a point for another PGD.

    Below it, nothing is refuted: claims are of test images, and a published teacher has often been trained on what is validation here.
    """
    for name in ("clean_accuracy", "robust_accuracy"):
        claimed, found = getattr(teacher, name), getattr(measured, name)
        if claimed is None:
            continue
        interval = binomtest(round(found * measured.images), measured.images).proportion_ci(0.99)
        if claimed > interval.high + 0.01:
            raise TeacherError(
                f"{place}: {name} is claimed to be {claimed:.3f} and was measured as {found:.3f} on {measured.images} validation images; "
                f"wrong file, wrong network, or wrong normalisation (network.mean, network.std)? Without the claim, the check is not made"
            )

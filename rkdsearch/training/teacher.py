"""A teacher is measured before it is believed: trained once from its recipe or read from its file, then examined on the user's images."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rkdsearch import data, models
from rkdsearch.accuracy import BATCH, evaluate_accuracy
from rkdsearch.config import Recipe, TeacherConfig, TrainConfig
from rkdsearch.data.splits import stratified_subset
from rkdsearch.errors import OutOfMemoryError, TeacherError
from rkdsearch.pace import Pace
from rkdsearch.teacher import Role, fingerprint, load, split_of
from rkdsearch.training import checkpoint
from rkdsearch.training.epoch import EpochResult
from rkdsearch.training.validation import VALIDATION_SEED

# What the validation images are to a teacher.
HELD_OUT = "validation images, held out from its training"
DECLARED = "validation images, held out from its training as trained_on declares"
SEEN = (
    "validation images; flagged: it was trained on all training images, these among them, and its"
    " accuracy here is optimistic"
)
UNKNOWN = (
    "validation images; flagged: these images may be among those it was trained on, and its"
    " accuracy here may be optimistic"
)


@dataclass(frozen=True)
class Measured:
    """What a teacher reached on validation images, by the study's own exam, and what these images are to it. Accuracies are fractions of 1."""

    sha256: str
    clean_accuracy: float
    robust_accuracy: float
    images: int
    measured_on: str


def recipe_run(config: TrainConfig, role: Role) -> TrainConfig | None:
    """The run that makes this teacher: the recipe's method and loop, the study's data and exam. None where a file is given, or no teacher."""
    teacher: TeacherConfig | None = config.teachers.get(role)
    if teacher is None or teacher.path is not None or teacher.recipe is None:
        return None
    own = {name: getattr(teacher.recipe, name) for name in Recipe.model_fields}
    return TrainConfig(
        data=config.data, validation=config.validation, student=teacher.network, **own
    )


def folder_of(run: TrainConfig, cache: Path, *others: Path) -> Path:
    """Where this run's teacher is cached: by the fingerprint of its whole config, so that any change is another teacher.

    In the first of these caches where it is trained to the end; where it is in none, in `cache`.
    """
    places = [each / run.fingerprint()[:16] for each in (cache, *others)]
    return next((place for place in places if others and is_trained(run, place)), places[0])


def is_trained(run: TrainConfig, folder: Path) -> bool:
    """Whether the run in this folder is complete."""
    last = folder / "last.safetensors"
    return last.exists() and len(checkpoint.read(last)[1]["history"]) == run.training.epochs


def history_of(folder: Path) -> list[EpochResult]:
    """The finished epochs of the run in this folder."""
    last = folder / "last.safetensors"
    return (
        [EpochResult.from_dict(epoch) for epoch in checkpoint.state_of(last)["history"]]
        if last.exists()
        else []
    )


def from_folder(teacher: TeacherConfig, folder: Path) -> TeacherConfig:
    """The same teacher as a file with a hash: what trials are given in place of the recipe."""
    path = folder / "best.safetensors"
    return teacher.model_copy(
        update={"path": str(path), "sha256": fingerprint(path), "recipe": None}
    )


def found_in(study: Path, path: str) -> Path | None:
    """Where a teacher's file lies now: in the study's (or run's) own `teachers/`, which moves with it; else at its path; None where it is gone."""
    own = study / "teachers" / Path(*Path(path).parts[-2:])
    return next((place for place in (own, Path(path)) if place.is_file()), None)


def opened(teacher: TeacherConfig, splits: data.Splits) -> nn.Module:
    """The network in the teacher's file, for these images. Raises TeacherError for a file that cannot be trusted or does not fit."""
    assert teacher.path is not None
    return load(
        Path(teacher.path),
        teacher.network,
        splits.train.task,
        sha256=teacher.sha256,
    )


def measure(teacher: TeacherConfig, config: TrainConfig) -> Measured:
    """Clean and PGD accuracy on the run's validation images, by its exam and on its device. Raises TeacherError as `opened` does."""
    *_, (measured, _) = measuring(teacher, config)
    return measured


def measuring(teacher: TeacherConfig, config: TrainConfig) -> Iterator[tuple[Measured, int]]:
    """After every batch what is measured so far, and of how many images it will be: the last one is the measurement."""
    assert teacher.path is not None
    path, splits, exam, device = (
        Path(teacher.path),
        data.load_training(config.data),
        config.validation.attack,
        device_of(config),
    )
    sha256, said = fingerprint(path), measured_on(teacher, path, splits)
    with OutOfMemoryError.told(f"{path}, to be measured", "does another program use it?"):
        network = opened(teacher, splits).to(device)
        if config.training.channels_last:
            models.check_channels_last(teacher.network, network, splits.train.task)
        network = models.fold(network)
        images = splits.validation.take(torch.from_numpy(_examined(config, splits))).to(device)
        x, y = (
            data.FloatImages(images, device, channels_last=config.training.channels_last),
            images.labels.to(device),
        )
    clean, robust = torch.zeros(2, len(y), dtype=torch.bool)
    batches, pace = math.ceil(len(y) / BATCH), Pace("measuring a teacher: {} images", len(y))
    for batch in range(batches):
        # As one of so many processes: an image's random start is seeded by its batch's place,
        # whoever takes it.
        verdict, _ = evaluate_accuracy(
            network,
            x,
            y,
            exam.build(),
            restarts=exam.restarts,
            seed=VALIDATION_SEED,
            rank=batch,
            processes=batches,
        )
        clean |= verdict.clean
        robust |= verdict.robust
        done = min(len(y), (batch + 1) * BATCH)
        pace.at(done)
        yield (
            Measured(sha256, float(clean.sum()) / done, float(robust.sum()) / done, done, said),
            len(y),
        )


def known_measurement(
    described: Mapping[str, Any], role: Role, teacher: TeacherConfig, config: TrainConfig
) -> Measured | None:
    """What `study.json` says of this very file, network, exam and images; None where any of these is another, or nothing is said."""
    assert teacher.path is not None
    path, splits = Path(teacher.path), data.load_training(config.data)
    try:
        facts = described["teachers"][role]
        there = (
            facts["sha256"],
            facts["network"],
            facts["images"],
            described["validation_attack"],
            described["split_sha256"],
        )
        measured = Measured(**{field.name: facts[field.name] for field in fields(Measured)})
    except (KeyError, TypeError):
        return None
    exam, network = (
        config.validation.attack.model_dump(mode="json"),
        teacher.network.model_dump(mode="json"),
    )
    if there != (
        fingerprint(path),
        network,
        len(_examined(config, splits)),
        exam,
        splits.fingerprint,
    ):
        return None
    return replace(measured, measured_on=measured_on(teacher, path, splits))


def _examined(config: TrainConfig, splits: data.Splits) -> NDArray[np.int64]:
    """Positions of the validation images that a teacher is measured on."""
    return stratified_subset(
        splits.validation.labels.numpy(),
        config.validation.images,
        seed=config.data.split_seed,
        field="validation.images",
    )


def device_of(config: TrainConfig) -> torch.device:
    """Where this run computes: a GPU where there is one and `training.device` allows it."""
    return torch.device(
        "cuda" if torch.cuda.is_available() and config.training.device != "cpu" else "cpu"
    )


def measured_on(teacher: TeacherConfig, path: Path, splits: data.Splits) -> str:
    """What the validation images are to this teacher: by its declaration, else by what its file says; in doubt, flagged."""
    if teacher.trained_on == "train":
        return SEEN
    if teacher.trained_on == "other":
        return DECLARED
    return HELD_OUT if split_of(path) == splits.fingerprint else UNKNOWN


def check_claims(teacher: TeacherConfig, measured: Measured, place: str) -> None:
    """Raise TeacherError where a claimed accuracy lies above the 99 % interval of the measured one, plus a point for another PGD.

    Below it, nothing is refuted: claims are of test images, and a published teacher has often been
    trained on what is validation here.
    """
    from scipy.stats import binomtest  # where used: a run that checks no claim must not wait for it

    for name in ("clean_accuracy", "robust_accuracy"):
        claimed, found = getattr(teacher, name), getattr(measured, name)
        if claimed is None:
            continue
        interval = binomtest(round(found * measured.images), measured.images).proportion_ci(0.99)
        if claimed > interval.high + 0.01:
            raise TeacherError(
                f"{place}: {name} is claimed to be {claimed:.3f} and was measured as {found:.3f} on"
                f" {measured.images} validation images; wrong file, wrong network, or wrong"
                " normalisation (network.mean, network.std)? Without the claim, the check is not"
                " made"
            )

"""Teachers of a run: trained from a recipe or read from a file, then measured by the validation."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rkdsearch import data, flags, models
from rkdsearch.accuracy import BATCH, evaluate_accuracy
from rkdsearch.config import Recipe, TeacherConfig, TeachersConfig, TrainConfig, stored_identity
from rkdsearch.data.splits import stratified_subset
from rkdsearch.errors import CheckpointError, FileError, OutOfMemoryError, TeacherError
from rkdsearch.pace import Pace
from rkdsearch.results.flags import raised, sentence
from rkdsearch.results.rows import Checks
from rkdsearch.teacher import ROLES, Role, check_class_order, fingerprint, load, split_of
from rkdsearch.training import checkpoint
from rkdsearch.training.epoch import EpochResult
from rkdsearch.training.validation import VALIDATION_SEED

# Relation of the validation images to a teacher's training images.
HELD_OUT = "validation images, held out from its training"
DECLARED = "validation images, held out from its training as trained_on declares"
SEEN = (
    "validation images, not held out: it was trained on all training images, these among them, and"
    " its accuracy here is optimistic"
)
UNKNOWN = (
    "validation images, perhaps not held out: these images may be among those it was trained on,"
    " and its accuracy here may be optimistic"
)


@dataclass(frozen=True)
class TeacherAccuracy:
    """A teacher's accuracies by the study's validation, fractions of 1.

    `measured_on` says whether the images were held out from its training.
    """

    sha256: str
    clean_accuracy: float
    robust_accuracy: float
    images: int
    measured_on: str
    contents: str = ""  # which entries of the file were read, and which were left
    checks: Checks | None = None  # those behind flags; None: nobody looked

    @property
    def doubt(self) -> str | None:
        """A sentence's part about the flags of its checks; None where they raise none."""
        if self.checks is None or not (signs := [sentence(flag) for flag in raised(self.checks)]):
            return None
        return f"its robust accuracy is not to be believed: {'; '.join(signs)}"


def recipe_run(config: TrainConfig, role: Role) -> TrainConfig | None:
    """The run that trains this teacher: the recipe's method and loop, the study's data.

    None without a teacher, or where its file is given.
    """
    teacher: TeacherConfig | None = config.teachers.get(role)
    if teacher is None or teacher.path is not None or teacher.recipe is None:
        return None
    own = {name: getattr(teacher.recipe, name) for name in Recipe.model_fields}
    return TrainConfig(
        data=config.data, validation=config.validation, student=teacher.network, **own
    )


def folder_of(run: TrainConfig, cache: Path, *others: Path) -> Path:
    """Folder of the teacher that this run trains, named by the fingerprint of its whole config.

    In the first of these caches that has it completely trained; else in `cache`. A folder of an
    earlier version, whose configs had fewer fields, has another name and the same run.
    """
    places = [_place(run, each) for each in (cache, *others)]
    return next((place for place in places if others and is_trained(run, place)), places[0])


def folder_name(run: TrainConfig) -> str:
    """Name of the folder of the teacher that this run trains."""
    return run.fingerprint()[:16]


def _place(run: TrainConfig, cache: Path) -> Path:
    own = cache / folder_name(run)
    if own.exists():
        return own
    identity = run.identity()
    for last in sorted(cache.glob("*/last.safetensors")):
        with suppress(CheckpointError, FileError):  # another run's damaged file is none of ours
            if stored_identity(checkpoint.state_of(last).get("run", {})) == identity:
                return last.parent
    return own


def is_trained(run: TrainConfig, folder: Path) -> bool:
    """True where the run in this folder is complete."""
    return len(history_of(folder)) == run.training.epochs


def history_of(folder: Path) -> list[EpochResult]:
    """The finished epochs of the run in this folder."""
    last = folder / "last.safetensors"
    return (
        [EpochResult.from_dict(epoch) for epoch in checkpoint.state_of(last)["history"]]
        if last.exists()
        else []
    )


def from_folder(teacher: TeacherConfig, folder: Path) -> TeacherConfig:
    """The same teacher as a file with a hash, which trials are given in place of the recipe."""
    path = folder / "best.safetensors"
    return teacher.model_copy(
        update={"path": str(path), "sha256": fingerprint(path), "recipe": None}
    )


def find_file(study: Path, path: str) -> Path | None:
    """Present path of a teacher's file: in the study's own `teachers/`, or `path` from there.

    The folder `teachers/` moves with the study. None where the file is in neither place.
    """
    own = study / "teachers" / Path(*Path(path).parts[-2:])
    return next((place for place in (own, study / path, Path(path)) if place.is_file()), None)


def with_present_files(config: TrainConfig, study: Path) -> TrainConfig:
    """The run with its teachers' present paths; that of a missing file stays as it was."""
    found = {}
    for role in ROLES:
        teacher = config.teachers.get(role)
        if teacher is not None and teacher.path is not None:
            file = find_file(study, teacher.path)
            teacher = teacher.model_copy(update={"path": str(file.absolute())}) if file else teacher
        found[role] = teacher
    return config.model_copy(update={"teachers": TeachersConfig(**found)})


def load_network(
    teacher: TeacherConfig, splits: data.Splits, notice: Callable[[str], None] = lambda _: None
) -> nn.Module:
    """The network in the teacher's file, for these images. `notice` is told as `load` tells it.

    Raises TeacherError for a file that cannot be trusted, does not fit, or has these classes in
    another order.
    """
    assert teacher.path is not None
    path = Path(teacher.path)
    check_class_order(path, splits.train.classes)
    return load(
        path,
        teacher.network,
        splits.train.task,
        sha256=teacher.sha256,
        key=teacher.key,
        ignore=teacher.ignore,
        notice=notice,
    )


def measure(teacher: TeacherConfig, config: TrainConfig) -> TeacherAccuracy:
    """Clean and robust accuracy by the run's validation, on its device.

    Raises TeacherError as `load_network` does.
    """
    *_, (measured, _) = measuring(teacher, config)
    return measured


def refuse_flagged(measured: TeacherAccuracy, place: str) -> None:
    """Raise TeacherError where its checks raise flags."""
    if measured.doubt is not None:
        raise TeacherError(
            f"{place}: {measured.doubt}; choose another teacher (does its network round, draw"
            " random numbers, end in a softmax, or give one class?)"
        )


def measuring(teacher: TeacherConfig, config: TrainConfig) -> Iterator[tuple[TeacherAccuracy, int]]:
    """Measure batch by batch: the accuracies so far, and the number of images in the end.

    The last item is the measurement, with the checks behind flags on some of the images.
    """
    assert teacher.path is not None
    path, splits, attack, device = (
        Path(teacher.path),
        data.load_training(config.data),
        config.validation.attack,
        device_of(config),
    )
    sha256, said = fingerprint(path), measured_on(teacher, path, splits)
    contents: list[str] = []
    with OutOfMemoryError.in_block(f"{path}, to be measured", "does another program use it?"):
        network = load_network(teacher, splits, contents.append).to(device)
        if config.training.channels_last:
            models.check_channels_last(teacher.network, network, splits.train.task)
        network = models.fold(network)
        images = splits.validation.take(torch.from_numpy(_validation_rows(config, splits))).to(
            device
        )
        x, y = (
            data.FloatImages(images, device, channels_last=config.training.channels_last),
            images.labels.to(device),
        )
    clean, robust = torch.zeros(2, len(y), dtype=torch.bool)
    so_far = TeacherAccuracy(sha256, 0.0, 0.0, 0, said, contents[0])
    batches, pace = math.ceil(len(y) / BATCH), Pace("measuring a teacher: {} images", len(y))
    for batch in range(batches):
        # One batch as one of `batches` processes: the position of a batch seeds its random start.
        results, _ = evaluate_accuracy(
            network,
            x,
            y,
            attack.build(),
            restarts=attack.restarts,
            seed=VALIDATION_SEED,
            rank=batch,
            processes=batches,
        )
        clean |= results.clean
        robust |= results.robust
        done = min(len(y), (batch + 1) * BATCH)
        pace.at(done)
        so_far = TeacherAccuracy(
            sha256, float(clean.sum()) / done, float(robust.sum()) / done, done, said, contents[0]
        )
        yield so_far, len(y)
    some = images.take(flags.spread(len(y)))
    pixels = data.FloatImages(some, device, channels_last=config.training.channels_last)[:]
    found = flags.check(network, pixels, some.labels.to(device), attack.build()).counts
    yield replace(so_far, checks=found), len(y)


def known_measurement(
    described: Mapping[str, Any], role: Role, teacher: TeacherConfig, config: TrainConfig
) -> TeacherAccuracy | None:
    """The measurement in `study.json`, for the same file, network, validation attack and images.

    None where one of them differs, or nothing is recorded.
    """
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
        values = {field.name: facts[field.name] for field in fields(TeacherAccuracy)}
        measured = TeacherAccuracy(**{**values, "checks": Checks(**facts["checks"])})
    except (KeyError, TypeError):
        return None
    attack, network = (
        config.validation.attack.model_dump(mode="json"),
        teacher.network.model_dump(mode="json"),
    )
    if there != (
        fingerprint(path),
        network,
        len(_validation_rows(config, splits)),
        attack,
        splits.fingerprint,
    ):
        return None
    return replace(measured, measured_on=measured_on(teacher, path, splits))


def _validation_rows(config: TrainConfig, splits: data.Splits) -> NDArray[np.int64]:
    """Positions of the validation images that a teacher is measured on."""
    return stratified_subset(
        splits.validation.labels.numpy(),
        config.validation.images,
        seed=config.data.split_seed,
        field="validation.images",
    )


def device_of(config: TrainConfig) -> torch.device:
    """Device of this run: the accelerator of this machine, where `training.device` allows it."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return torch.device("cpu") if found is None or config.training.device == "cpu" else found


def measured_on(teacher: TeacherConfig, path: Path, splits: data.Splits) -> str:
    """Relation of the validation images to this teacher's training images; in doubt not held out.

    From its declaration `trained_on`, else from the split that its file names.
    """
    if teacher.trained_on == "train":
        return SEEN
    if teacher.trained_on == "other":
        return DECLARED
    return HELD_OUT if split_of(path) == splits.fingerprint else UNKNOWN


def check_claims(teacher: TeacherConfig, measured: TeacherAccuracy, place: str) -> None:
    """Raise TeacherError where a claim exceeds the measured accuracy by too much.

    A claim may exceed the 99 % interval of the measured accuracy by one percentage point, because
    the publisher's PGD may differ from ours. A lower claim is not refused: claims are of test
    images, and a published teacher may have been trained on images that are validation images here.
    """
    from scipy.stats import binomtest  # imported here: slow, and most runs check no claim

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

"""The parts of a run, built from its config: data, student, teachers, companions, optimizers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rkdsearch import data, models
from rkdsearch.config import TeacherConfig, TrainConfig
from rkdsearch.errors import ConfigError
from rkdsearch.methods import Companion, Method
from rkdsearch.teacher import Role, check_class_order, fingerprint
from rkdsearch.training.accelerator import accelerator_for
from rkdsearch.training.averaging import Average
from rkdsearch.training.objective import TrainingObjective
from rkdsearch.training.optimizers import build_optimizers
from rkdsearch.training.precision import WEIGHT_DTYPES
from rkdsearch.training.process_cache import CACHE, load_unfolded
from rkdsearch.training.student import build_student

OwnSchedule = Callable[[int, int], float]


@dataclass(frozen=True)
class RunParts:
    """All that a run is made of, on its device, in its precision and memory layout."""

    accelerator: Accelerator
    splits: data.Splits
    batches: data.Batches
    student: nn.Module
    size: models.Size
    teachers: dict[Role, nn.Module]
    teacher_hashes: dict[Role, str]
    objective: TrainingObjective
    optimizers: list[torch.optim.Optimizer]
    # One for each optimizer: a companion's own schedule, or None for the run's.
    own_schedules: list[OwnSchedule | None]
    average: Average | None


def build_run(config: TrainConfig, splits: data.Splits | None = None) -> RunParts:
    """Build every part; all weights are drawn from the global generator, seeded by `training.seed`.

    `splits` are the images where `data.name` is `arrays`, and None otherwise. Raises ConfigError,
    DataError or TeacherError where a part cannot be built as the config says.
    """
    if not isinstance(config, TrainConfig):
        raise ConfigError(
            f"a Trainer takes a TrainConfig, got {config!r}; `load_config` reads one from a file"
        )
    accelerator = accelerator_for(config)
    device = accelerator.device
    splits = _splits(config, splits)
    torch.manual_seed(config.training.seed)
    student = _student(config, splits.train, accelerator)
    size = models.size_of(config.student, splits.train.task)
    teachers = {
        role: _frozen_teacher(config, role, splits, device) for role in config.teacher_roles
    }
    hashes = {role: _sha256(config.teachers.of(role)) for role in teachers}
    place(student, config, device)
    companions = _companions(config, student, splits, device)
    modules = {name: companion.module for name, companion in companions.items()}
    return RunParts(
        accelerator=accelerator,
        splits=splits,
        batches=_batches(config, splits, accelerator),
        student=student,
        size=size,
        teachers=teachers,
        teacher_hashes=hashes,
        objective=TrainingObjective(config, student, modules, teachers, accelerator.num_processes),
        optimizers=build_optimizers(config.optimizer, student, companions),
        own_schedules=[None, *(c.schedule for c in companions.values() if c.own_optimizer)],
        average=(
            None
            if config.averaging.name == "none"
            else Average(config.averaging, student, config.training.epochs)
        ),
    )


def _splits(config: TrainConfig, given: data.Splits | None) -> data.Splits:
    if given is None:
        return data.load_training(config.data)
    if given.train.name != config.data.name:
        raise ConfigError(
            f"data.name must be '{given.train.name}' where the images are given, got"
            f" '{config.data.name}': rows and model card name the images by it"
        )
    return given


def _student(config: TrainConfig, train: data.Images, accelerator: Accelerator) -> nn.Module:
    student = build_student(config, train)
    across = config.training.batchnorm_across
    if accelerator.num_processes == 1 or across != "synchronised":
        return student
    if accelerator.device.type != "cuda":
        raise ConfigError(
            "training.batchnorm_across must be 'averaged' on CPU, got 'synchronised': torch's"
            " SyncBatchNorm needs GPUs"
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(student)  # type: ignore[no-any-return,no-untyped-call]


def _batches(config: TrainConfig, splits: data.Splits, accelerator: Accelerator) -> data.Batches:
    return data.Batches(
        splits.train,
        batch_size=config.training.batch_size,
        seed=config.training.seed,
        augment=config.data.augment,
        sampling=config.data.sampling,
        extra=splits.extra,
        extra_fraction=config.data.extra_fraction,
        device=accelerator.device,
        rank=accelerator.process_index,
        processes=accelerator.num_processes,
    )


@torch.no_grad()
def known_logits(
    config: TrainConfig, splits: data.Splits, teachers: dict[Role, nn.Module]
) -> dict[Role, Tensor]:
    """Each teacher's logits (N, K) for all training images, by role.

    Empty where images change from epoch to epoch: by augmentation, or by extra images, which are
    drawn anew for every batch.
    """
    if config.data.augment != "none" or splits.extra is not None:
        return {}
    return {
        role: CACHE.logits(network, splits.train, config.training.channels_last)
        for role, network in teachers.items()
    }


def place(network: nn.Module, config: TrainConfig, device: torch.device) -> None:
    """Move a network to the run's device, precision and memory layout, in place."""
    network.to(device, WEIGHT_DTYPES[config.training.precision])
    if config.training.channels_last:
        network.to(memory_format=torch.channels_last)


def _frozen_teacher(
    config: TrainConfig, role: Role, splits: data.Splits, device: torch.device
) -> nn.Module:
    teacher: TeacherConfig = config.teachers.of(role)
    if teacher.path is None:
        raise ConfigError(
            f"teachers.{role} has a recipe and no path: `rkdsearch teacher train` makes the"
            " file, and so does `tune`"
        )
    check_class_order(Path(teacher.path), splits.train.classes)
    return CACHE.teacher(
        teacher,
        splits.train.task,
        precision=config.training.precision,
        device=device,
        channels_last=config.training.channels_last,
    )


def _sha256(teacher: TeacherConfig) -> str:
    return teacher.sha256 or fingerprint(Path(str(teacher.path)))


def _companions(
    config: TrainConfig, student: nn.Module, splits: data.Splits, device: torch.device
) -> dict[str, Companion]:
    """The method's companions, which may copy a teacher that still has its BatchNorm."""
    task, precision = splits.train.task, config.training.precision
    unfolded: dict[str, nn.Module] = {}
    if type(config.method).companions is not Method.companions:  # else no method reads them
        unfolded = {
            role: load_unfolded(config.teachers.of(role), task, precision, str(device))
            for role in config.teacher_roles
        }
    example = torch.zeros(1, *task.shape, dtype=WEIGHT_DTYPES[precision])
    companions = config.method.companions(student, unfolded, example.to(device))
    for companion in companions.values():
        place(companion.module, config, device)
    return companions

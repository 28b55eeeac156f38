"""Teachers of a study, prepared before its first trial.

A recipe is trained once, and a teacher's file is measured once. Trials are then given its path and
its hash.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rkdsearch.config import TeacherConfig, TrainConfig
from rkdsearch.errors import RkdError, StudyError
from rkdsearch.execution.trial import see_study
from rkdsearch.file_lock import writer_of
from rkdsearch.plugins import allow_import, allowed_imports
from rkdsearch.results.store import Store
from rkdsearch.search.teachers import TeacherStep, check_same, needed_roles
from rkdsearch.space.settings import Resources
from rkdsearch.space.space import SearchSpace
from rkdsearch.teacher import ROLES, Role
from rkdsearch.training import teacher as files
from rkdsearch.training.trainer import Trainer


@dataclass(frozen=True)
class TeacherOrder:
    """One teacher to train and measure."""

    config: TrainConfig  # of a trial that asks for the teacher
    role: Role
    cache: Path  # folder of trained teachers
    threads: int


Work = Callable[[TeacherOrder], Iterator[TeacherStep]]


def train_and_measure(order: TeacherOrder) -> Iterator[TeacherStep]:
    """Train the teacher where it is a recipe that is not in the cache yet, and measure it."""
    config, role, cache = order.config, order.role, order.cache
    teacher = as_file(config, role, cache)
    trained = teacher is None
    if teacher is None:
        recipe = files.recipe_run(config, role)
        assert recipe is not None, "a teacher is a file or a recipe"
        # As many threads as a trial has: the sums are then equal on every machine, and no two
        # threads compete for one core.
        torch.set_num_threads(order.threads)
        for epoch in Trainer(recipe, files.folder_of(recipe, cache)).epochs():
            yield TeacherStep(role, epoch=epoch)
        teacher = as_file(config, role, cache)
    assert teacher is not None, "it has just been trained"
    for so_far, of_images in files.measuring(teacher, config):
        yield TeacherStep(role, so_far=so_far, of_images=of_images)
    yield TeacherStep(role, measured=so_far, trained=trained, path=str(teacher.path))
    torch.cuda.empty_cache()  # trials need this memory; without a GPU it does nothing


def on_cluster(resources: Resources) -> Work:
    """`train_and_measure` as a Ray task with the resources of one process of a trial.

    The head of a cluster may have no GPU, and no CPU to spare.
    """

    def work(order: TeacherOrder) -> Iterator[TeacherStep]:
        import ray

        # No retry by Ray, which would count every step twice: `--resume` continues after the last
        # epoch.
        task = ray.remote(num_cpus=resources.cpu, num_gpus=resources.gpu, max_retries=0)(
            _remote_work
        ).options(num_returns="streaming")
        try:
            steps: Any = task.remote(
                replace(order, cache=order.cache.resolve()),
                allowed_imports(),
                writer_of(order.cache.parent),
            )
            for step in steps:
                found: TeacherStep = ray.get(step)
                yield found
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, RkdError):
                raise error.cause from None
            raise
        except ray.exceptions.RayError as error:
            raise StudyError(
                f"the worker that made the {order.role} teacher was lost ({type(error).__name__});"
                " start again with --resume: its training resumes from its last epoch"
            ) from error

    return work


def _remote_work(
    order: TeacherOrder, packages: tuple[str, ...], writer: str
) -> Iterator[TeacherStep]:
    see_study(order.cache.parent, writer)
    allow_import(*packages)
    yield from train_and_measure(order)


def as_file(config: TrainConfig, role: Role, cache: Path) -> TeacherConfig | None:
    """The teacher as a file; None where it is a recipe that is not trained to its end."""
    recipe, teacher = files.recipe_run(config, role), config.teachers.get(role)
    assert isinstance(teacher, TeacherConfig)
    if recipe is None:
        return teacher
    home = files.folder_of(recipe, cache)
    return files.from_folder(teacher, home) if files.is_trained(recipe, home) else None


def prepare(
    study: Path, space: SearchSpace, work: Work = train_and_measure
) -> Iterator[TeacherStep]:
    """Prepare the teachers that some run of the space asks for; skip the others.

    A measurement that `study.json` holds already is not repeated. Raises TeacherError where a
    publisher's claim is refuted, StudyError where another file taught this study's trials.
    """
    config, asked, described = space.example(), needed_roles(space), Store(study).description()
    for role in ROLES:
        if config.teachers.get(role) is None:
            continue
        if role not in asked:
            yield TeacherStep(role, skipped=True)
            continue
        teacher = as_file(config, role, cache := study / "teachers")
        known = (
            None if teacher is None else files.known_measurement(described, role, teacher, config)
        )
        steps = work(TeacherOrder(config, role, cache, max(1, int(space.resources.cpu))))
        if teacher is not None and known is not None:
            steps = iter([TeacherStep(role, measured=known, path=str(teacher.path))])
        for step in steps:
            if step.measured is not None:
                files.check_claims(config.teachers.of(role), step.measured, f"teachers.{role}")
                check_same(study, described, role, step.measured.sha256)
            yield step

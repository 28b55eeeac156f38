"""A study's teachers before its first trial: trained where only a recipe is given, measured once, and then a path and a hash for every trial."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from rkdsearch import config as run
from rkdsearch.config import TeacherConfig, TrainConfig
from rkdsearch.errors import RkdError, StudyError
from rkdsearch.plugins import allow_import, allowed_imports
from rkdsearch.results.store import Store
from rkdsearch.search.teachers import TeacherStep, asked_roles, refuse_another
from rkdsearch.space.settings import Resources
from rkdsearch.space.space import SearchSpace
from rkdsearch.teacher import ROLES, Role
from rkdsearch.training import teacher as files
from rkdsearch.training.trainer import Trainer

Work = Callable[[TrainConfig, Role, Path, int], Iterator[TeacherStep]]


def make_ready(config: TrainConfig, role: Role, cache: Path, threads: int) -> Iterator[TeacherStep]:
    """Train the teacher where it is a recipe that nobody has followed (once: the result is cached by its whole config), and measure it."""
    teacher = as_file(config, role, cache)
    trained = teacher is None
    if teacher is None:
        made_by = files.recipe_run(config, role)
        assert made_by is not None, "it is a file or a recipe"
        # As many threads as a trial has: the same sums on any machine, and two busy threads on one
        # shared core wait for each other.
        torch.set_num_threads(threads)
        for epoch in Trainer(made_by, files.folder_of(made_by, cache)).epochs():
            yield TeacherStep(role, epoch=epoch)
        teacher = as_file(config, role, cache)
    assert teacher is not None, "it has just been trained"
    for so_far, of_images in files.measuring(teacher, config):
        yield TeacherStep(role, so_far=so_far, of_images=of_images)
    yield TeacherStep(role, measured=so_far, trained=trained, path=str(teacher.path))
    torch.cuda.empty_cache()  # the trials' processes need the room; without a GPU, nothing


def on_cluster(resources: Resources) -> Work:
    """`make_ready` where one process of a trial would run: the head of a cluster may have no GPU, and no CPU to spare."""

    def work(config: TrainConfig, role: Role, cache: Path, threads: int) -> Iterator[TeacherStep]:
        import ray

        # Not started again by Ray, which would have every step counted twice: `--resume` goes on
        # from the last epoch.
        task = ray.remote(num_cpus=resources.cpu, num_gpus=resources.gpu, max_retries=0)(
            _elsewhere
        ).options(num_returns="streaming")
        try:
            steps: Any = task.remote(
                config.to_dict(), role, str(cache.resolve()), threads, allowed_imports()
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
                f"the worker that made the {role} teacher was lost ({type(error).__name__}); start"
                " again with --resume: its training goes on from its last epoch"
            ) from error

    return work


def _elsewhere(
    values: dict[str, Any], role: Role, cache: str, threads: int, packages: tuple[str, ...]
) -> Iterator[TeacherStep]:
    allow_import(*packages)
    yield from make_ready(run.build(values, role), role, Path(cache), threads)


def as_file(config: TrainConfig, role: Role, cache: Path) -> TeacherConfig | None:
    """The teacher as a file; None where it is a recipe that nobody has followed to its end."""
    made_by, teacher = files.recipe_run(config, role), config.teachers.get(role)
    assert isinstance(teacher, TeacherConfig)
    if made_by is None:
        return teacher
    home = files.folder_of(made_by, cache)
    return files.from_folder(teacher, home) if files.is_trained(made_by, home) else None


def prepare(study: Path, space: SearchSpace, work: Work = make_ready) -> Iterator[TeacherStep]:
    """Make ready the teachers that some run of the space asks; the others are skipped. What `study.json` knows is not measured again.

    Raises TeacherError for a claim that is refuted, StudyError for a teacher that is not the one
    that taught this study's trials.
    """
    config, asked, described = space.example(), asked_roles(space), Store(study).description()
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
        steps = work(config, role, cache, max(1, int(space.resources.cpu)))
        if teacher is not None and known is not None:
            steps = iter([TeacherStep(role, measured=known, path=str(teacher.path))])
        for step in steps:
            if step.measured is not None:
                files.check_claims(config.teachers.of(role), step.measured, f"teachers.{role}")
                refuse_another(study, described, role, step.measured.sha256)
            yield step

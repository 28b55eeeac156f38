"""Expected time of a search, from short timings on this machine before it starts."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file

from rkdsearch import data, models
from rkdsearch.config import TeacherConfig, TeachersConfig, TrainConfig
from rkdsearch.execution.teachers import as_file
from rkdsearch.methods import Method
from rkdsearch.search.teachers import needed_roles
from rkdsearch.space.space import SearchSpace
from rkdsearch.teacher import ROLES, Role
from rkdsearch.training import teacher as files
from rkdsearch.training.timing import expected_seconds

ENOUGH_SECONDS = 20.0  # after which no further method is timed


@dataclass(frozen=True)
class TeacherTime:
    """The expected time of a teacher that the search still has to train."""

    role: Role
    epochs: int
    seconds: float | None  # None as for a full run


@dataclass(frozen=True)
class RunTime:
    """The expected time of a full run: the mean over so many `methods`, of which one run each."""

    seconds: float
    methods: int


def teacher_times(study: Path, space: SearchSpace) -> Iterator[TeacherTime]:
    """The teachers that the search still has to train, by as many threads as that will have."""
    config, asked = space.example(), needed_roles(space)
    for role in ROLES:
        recipe = files.recipe_run(config, role)
        if recipe is None or role not in asked or as_file(config, role, study / "teachers"):
            continue
        torch.set_num_threads(max(1, int(space.resources.cpu)))
        seconds = expected_seconds(recipe) if _can_be_timed(space) else None
        yield TeacherTime(role, recipe.training.epochs, seconds)


def run_time(study: Path, space: SearchSpace) -> RunTime | None:
    """The time of a full run, by as many threads as a trial has.

    None for runs of several processes, and where trials ask for a GPU that this machine has not.

    Method after method is timed for some 20 s in all, by a random run of the space or else by its
    first baseline. A teacher that is not trained yet is timed with weights that mean nothing.
    """
    if not _can_be_timed(space):
        return None
    torch.set_num_threads(max(1, int(space.resources.cpu)))
    started, found = time.perf_counter(), list[float]()
    for config in _one_per_method(space):
        with TemporaryDirectory() as folder:
            seconds = expected_seconds(_with_files(config, study, Path(folder)))
        if seconds is None:
            return None
        found.append(seconds)
        if time.perf_counter() - started > ENOUGH_SECONDS:
            break
    return RunTime(sum(found) / len(found), len(found))


def _can_be_timed(space: SearchSpace) -> bool:
    asked = space.resources
    return asked.processes == 1 and (not asked.gpu or torch.cuda.is_available())


def _one_per_method(space: SearchSpace) -> Iterator[TrainConfig]:
    seen: set[type[Method]] = set()
    baselines = (space.config(baseline.overrides) for baseline in space.baselines)
    for config in (*space.examples(), *baselines):
        if type(config.method) not in seen:
            seen.add(type(config.method))
            yield config


def _with_files(config: TrainConfig, study: Path, folder: Path) -> TrainConfig:
    """The run with a file for each teacher that it asks for."""
    teachers: dict[Role, TeacherConfig] = {}
    for role in config.teacher_roles:
        teacher = as_file(config, role, study / "teachers")
        if teacher is None:
            asked, path = config.teachers.of(role), folder / f"{role}.safetensors"
            network = models.build(asked.network, data.load_training(config.data).train.task)
            # tied weights share memory, which safetensors refuses
            weights = {name: w.clone().contiguous() for name, w in network.state_dict().items()}
            save_file(weights, path)
            teacher = asked.model_copy(update={"path": str(path), "recipe": None})
        teachers[role] = teacher
    return config.model_copy(update={"teachers": TeachersConfig(**teachers)})

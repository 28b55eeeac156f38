"""Teachers of a study: the roles that it needs, and their entries in `study.json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rkdsearch.config import TrainConfig
from rkdsearch.errors import StudyError
from rkdsearch.space import check
from rkdsearch.space.space import SearchSpace
from rkdsearch.teacher import Role
from rkdsearch.training.epoch import EpochResult
from rkdsearch.training.teacher import TeacherAccuracy


@dataclass(frozen=True)
class TeacherStep:
    """Progress of preparing one teacher: an epoch of its training, or a measurement.

    `so_far` is measured on the first of `of_images` images, `measured` on all of them. `skipped` is
    true where no run of the space needs the teacher.
    """

    role: Role
    epoch: EpochResult | None = None
    so_far: TeacherAccuracy | None = None
    of_images: int = 0
    measured: TeacherAccuracy | None = None
    trained: bool = False
    path: str = ""
    skipped: bool = False


def check_same(study: Path | None, described: Mapping[str, Any], role: Role, sha256: str) -> None:
    """Raise StudyError where the trials of this study had another file as teacher."""
    was = (described.get("teachers") or {}).get(role, {}).get("sha256", sha256)
    if was != sha256:
        raise StudyError(
            f"{study}: its trials were taught by another {role} teacher: sha256 was {was}, is"
            f" {sha256}; put the right file back, or give this search a folder of its own with"
            " --study"
        )


def needed_roles(space: SearchSpace) -> set[str]:
    """Roles that some run of the space needs.

    The space check's cases have every choice of every parameter.
    """
    return {
        role
        for case in check.cases(space)
        for role in space.config(case.overrides, case.name).teacher_roles
    }


def overrides_of(ready: Mapping[Role, TeacherStep]) -> dict[str, Any]:
    """Overrides that name the teachers' files and hashes, for every trial."""
    found: dict[str, Any] = {}
    for role, step in ready.items():
        assert step.measured is not None
        found[f"teachers.{role}.path"] = step.path
        found[f"teachers.{role}.sha256"] = step.measured.sha256
    return found


def described(
    study: Path, config: TrainConfig, ready: Mapping[Role, TeacherStep]
) -> dict[str, Any]:
    """Entries of `study.json`, by role.

    A path below the study's folder is relative to it, so that the folder may be moved.
    """
    found: dict[str, Any] = {}
    for role, step in ready.items():
        assert step.measured is not None
        path, home = Path(step.path).resolve(), study.resolve()
        found[role] = {
            "label": f"{role} teacher",
            "network": config.teachers.of(role).network.model_dump(),
            "path": path.relative_to(home).as_posix() if path.is_relative_to(home) else step.path,
            **asdict(step.measured),
        }
    return found

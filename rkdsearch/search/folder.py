"""A study's folder before its first trial: whose it is, its teachers, and `study.json`, which says both."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rkdsearch import data
from rkdsearch.config import TrainConfig
from rkdsearch.errors import StudyError
from rkdsearch.results.store import replace_file
from rkdsearch.search.space import SearchSpace
from rkdsearch.training import teacher as teachers
from rkdsearch.training.teacher import ROLES, Measured, Role
from rkdsearch.training.trainer import EpochResult, Trainer


@dataclass(frozen=True)
class TeacherStep:
    """What is known while a teacher is made ready: an epoch of its training, or, at the end, what it measured; or that nobody asks it."""

    role: Role
    epoch: EpochResult | None = None
    measured: Measured | None = None
    reused: bool = False
    path: str = ""
    skipped: bool = False


def laws(space: SearchSpace) -> dict[str, Any]:
    """What makes trials comparable and proposals repeatable: a search that goes on must not have changed it."""
    found: dict[str, Any] = {f"fixed.{name}": value for name, value in space.fixed.items()}
    for parameter in space.parameters:
        conditions = {parent: list(allowed) for parent, allowed in parameter.when.items()}
        found[f"search.{parameter.name}"] = {"range": repr(parameter.distribution), "when": conditions}
    found["objectives"] = list(space.objectives)
    found["ladder"] = [rung.model_dump(exclude_none=True) for rung in space.ladder]
    if space.scheduler.name == "none" and len(space.ladder) > 1:
        found["scheduler.name"] = "none"  # without one, nobody climbs rungs
    if any(rung.attack_steps for rung in space.ladder):
        found["scheduler.capped"] = space.scheduler.capped  # what a full-length result is
    found["seed"] = space.seed
    found["first"] = [{"label": first.label, **first.overrides} for first in space.first]  # they have the first numbers
    return found


def claim(folder: Path, space: SearchSpace, *, resume: bool) -> bool:
    """Make the folder this search's; returns whether it held trials already. Raises StudyError where it is another's, or `--resume` is missing."""
    file = folder / "study.json"
    if not file.exists():
        return False
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        old = found["laws"]
    except (OSError, ValueError, KeyError):
        raise StudyError(f"{file}: is damaged; give this search a folder of its own") from None
    if not resume:
        raise StudyError(f"{folder}: holds a study already; continue it with --resume, or name another folder with --study")
    new = json.loads(json.dumps(laws(space)))
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if changed:
        name = changed[0]
        raise StudyError(
            f"{folder}: was made by another space: {name} was {_shown(old, name)}, is {_shown(new, name)}"
            + (f" (and {len(changed) - 1} more)" if len(changed) > 1 else "")
            + "; give this search a folder of its own with --study"
        )
    return True


def _shown(law: Mapping[str, Any], name: str) -> str:
    return json.dumps(law[name]) if name in law else "not there"


def prepare_teachers(folder: Path, space: SearchSpace) -> Iterator[TeacherStep]:
    """Make ready the teachers that some run of the space asks; the others are skipped.

    What must be trained is trained (once: the result is cached by its whole config), and all are measured on validation images.
    """
    config, asked = example(space), asked_teachers(space)
    for role in ROLES:
        teacher = getattr(config.teachers, role)
        if teacher is None:
            continue
        if role not in asked:
            yield TeacherStep(role, skipped=True)
            continue
        reused = True
        made_by = teachers.recipe_run(config, role)
        if made_by is not None:
            home = teachers.folder_of(made_by, folder / "teachers")
            reused = teachers.is_trained(made_by, home)
            if not reused:
                # As many threads as a trial has: the same sums on any machine, and two busy threads on one shared core wait for each other.
                torch.set_num_threads(max(1, int(space.resources.cpu)))
                for epoch in Trainer(made_by, home).epochs():
                    yield TeacherStep(role, epoch=epoch)
            teacher = teachers.from_folder(teacher, home)
        measured = teachers.measure(teacher, config)
        teachers.check_claims(teacher, measured, f"teachers.{role}")
        yield TeacherStep(role, measured=measured, reused=reused, path=teacher.path)
    torch.cuda.empty_cache()  # this process computes no more, and the trials' processes need the room; without a GPU, nothing


def asked_teachers(space: SearchSpace) -> set[str]:
    """The roles that some run of the space asks: those that `check` builds, so every choice of every parameter is among them."""
    return {role for case, overrides in space.cases() for role in space.config(overrides, case).asked_teachers}


def overrides_of(ready: Mapping[Role, TeacherStep]) -> dict[str, Any]:
    """The teachers as files with hashes, as every trial is given them."""
    found: dict[str, Any] = {}
    for role, step in ready.items():
        assert step.measured is not None
        found[f"teachers.{role}.path"] = step.path
        found[f"teachers.{role}.sha256"] = step.measured.sha256
    return found


def describe(folder: Path, space: SearchSpace, ready: Mapping[Role, TeacherStep]) -> None:
    """Write `study.json`."""
    config = example(space)
    file = folder / "study.json"
    created = datetime.now(UTC).isoformat(timespec="seconds")
    if file.exists():
        created = json.loads(file.read_text(encoding="utf-8")).get("created", created)
    described = {
        "name": folder.name,
        "space": space.text,
        "laws": laws(space),
        "seed": space.seed,
        "objectives": list(space.objectives),
        "ladder": [rung.model_dump(exclude_none=True) for rung in space.ladder],
        "constraints": space.constraints.model_dump(exclude_none=True),
        "exam": config.validation.attack.model_dump(),
        "data": config.data.model_dump(mode="json"),
        "split_sha256": data.load_training(config.data).fingerprint,
        "teachers": {
            role: {
                "label": f"{role} teacher",
                "network": getattr(config.teachers, role).network.model_dump(),
                "path": step.path,
                **asdict(step.measured),
            }
            for role, step in ready.items()
            if step.measured is not None
        },
        "version": version("rkdsearch"),
        "created": created,
    }
    replace_file(file, json.dumps(described, indent=1))


def example(space: SearchSpace) -> TrainConfig:
    """Any legal run of the space: its data, exam and teachers are every run's."""
    return space.config(space.sample(np.random.default_rng(space.seed)))

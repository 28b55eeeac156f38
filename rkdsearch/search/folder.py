"""A study's folder before its first trial: whose it is, whether all is there that it needs, and `study.json`, which says so."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rkdsearch import data
from rkdsearch.data.config import PLACES
from rkdsearch.errors import StudyError
from rkdsearch.results.record import SCHEMA_VERSION
from rkdsearch.results.store import Store, replace_file
from rkdsearch.results.versions import upgraded_description
from rkdsearch.search import teachers
from rkdsearch.search.teachers import TeacherStep
from rkdsearch.space.space import SearchSpace
from rkdsearch.teacher import ROLES, Role, fingerprint
from rkdsearch.training.student import try_student
from rkdsearch.training.teacher import load_network

# What a search that goes on may change, and what follows from it; `study.json` has each under its
# name.
_SETTINGS = {
    "sampler": "proposals differ from here on",
    "scheduler": "decisions differ from here on",
    "constraints": "the front is named anew, and proposals differ from here on",
    "replicates": "repeats differ from here on, and the front is named anew",
}


def laws(space: SearchSpace) -> dict[str, Any]:
    """What makes trials comparable: a search that goes on must not have changed it.

    Who proposes, who stops and what the front must satisfy may change; `claim` says so.
    """
    found: dict[str, Any] = {
        f"fixed.{name}": value
        for name, value in space.fixed.items()
        if not _may_move(f"fixed.{name}")
    }
    for parameter in space.parameters:
        conditions = {parent: list(allowed) for parent, allowed in parameter.when.items()}
        found[f"search.{parameter.name}"] = {
            "range": repr(parameter.distribution),
            "when": conditions,
        }
    found["objectives"] = list(space.objectives)
    found["ladder"] = [rung.model_dump(exclude_none=True) for rung in space.ladder]
    if space.scheduler.name == "none" and len(space.ladder) > 1:
        found["scheduler.name"] = "none"  # without one, nobody climbs rungs
    if any(rung.training_attack_steps for rung in space.ladder):
        found["scheduler.capped"] = space.scheduler.capped  # what a full-length result is
    if space.scheduler.brackets > 1:
        # where a trial began
        found["scheduler.brackets"] = [space.scheduler.brackets, space.scheduler.reduction]
    # the batch's shares, and BatchNorm over each
    found["resources.processes"] = space.resources.processes
    found["seed"] = space.seed
    # they have the first numbers
    found["first"] = [
        {"label": baseline.label, **baseline.overrides} for baseline in space.baselines
    ]
    return found


def claim(
    folder: Path,
    space: SearchSpace,
    *,
    resume: bool,
    notice: Callable[[str], None] = lambda _: None,
) -> bool:
    """Make the folder this search's; returns whether it is a study already. `notice` is given a sentence for each setting that has changed.

    Raises StudyError where the folder is another's, or `--resume` is missing.
    """
    file = folder / "study.json"
    if not file.exists():
        if any((folder / "trials").glob("[!._]*.parquet")):
            raise StudyError(
                f"{folder}: holds trials but no study.json; put it back, or name another folder"
                " with --study"
            )
        return False
    try:
        found = upgraded_description(dict(json.loads(file.read_text(encoding="utf-8"))))
        old = dict(found["must_match"])
    except (OSError, ValueError, KeyError, TypeError):
        raise StudyError(
            f"{file}: is damaged, and only it says by what laws the trials beside it were made; put"
            " a whole copy of it back, or give this search a folder of its own with --study"
        ) from None
    if not resume:
        raise StudyError(
            f"{folder}: holds a study already; continue it with --resume, or name another folder"
            " with --study"
        )
    new = json.loads(json.dumps(laws(space)))
    old.setdefault("resources.processes", new["resources.processes"])  # older files do not name it
    old = {name: value for name, value in old.items() if not _may_move(name)}
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if changed:
        name = changed[0]
        raise StudyError(
            f"{folder}: was made by another space: {name} was {_shown(old, name)}, is"
            f" {_shown(new, name)}"
            + (f" (and {len(changed) - 1} more)" if len(changed) > 1 else "")
            + "; give this search a folder of its own with --study"
        )
    for section, consequence in _SETTINGS.items():
        setting = getattr(space, section)
        known = found.get(section)
        if known is not None:  # older files have constraints alone
            was, now = {**type(setting)().model_dump(), **known}, setting.model_dump()
            for name in now:
                if was[name] != now[name]:
                    notice(
                        f"{section}.{name} was {_value(was[name])}, is {_value(now[name])}:"
                        f" accepted, {consequence}"
                    )
    return True


def _value(value: object) -> str:
    return "not there" if value is None else str(value)


def _may_move(law: str) -> bool:
    """Whether it says where files lie, or on what to train. Both may be moved: what is in the files is compared in their stead (`check_files`)."""
    teachers = {f"fixed.teachers.{role}.{name}" for role in ROLES for name in ("path", "sha256")}
    return law in {"fixed.training.device"} | {f"fixed.data.{name}" for name in PLACES} | teachers


def _shown(law: Mapping[str, Any], name: str) -> str:
    return json.dumps(law[name]) if name in law else "not there"


def check_files(folder: Path, space: SearchSpace) -> None:
    """Open what the search will read: its images, and the teachers that are files.

    Raises DataError and TeacherError where that cannot be done, StudyError where the study in the
    folder was made of others.
    """
    config, known = space.example(), Store(folder).description()
    splits = data.load_training(config.data)
    for name, now in splits.hashes.items():
        if (was := known.get(name, now)) != now:
            raise StudyError(
                f"{folder}: its trials were trained on other images of {config.data.name}: {name}"
                f" was {was}, is {now}; put the right ones back, or give this search a folder of"
                " its own with --study"
            )
    try_student(config)
    for role in ROLES:
        teacher = config.teachers.get(role)
        if teacher is not None and teacher.path is not None and role in teachers.asked_roles(space):
            load_network(teacher, splits)
            teachers.refuse_another(folder, known, role, fingerprint(Path(teacher.path)))


def describe(folder: Path, space: SearchSpace, ready: Mapping[Role, TeacherStep]) -> None:
    """Write `study.json`."""
    config = space.example()
    known = Store(folder).description()
    described = {
        "schema_version": SCHEMA_VERSION,
        "name": folder.name,
        "space": space.text,
        "must_match": laws(space),
        "seed": space.seed,
        "objectives": list(space.objectives),
        "ladder": [rung.model_dump(exclude_none=True) for rung in space.ladder],
        "sampler": space.sampler.model_dump(),
        "scheduler": space.scheduler.model_dump(),
        "constraints": space.constraints.model_dump(exclude_none=True),
        "replicates": space.replicates.model_dump(),
        "validation_attack": config.validation.attack.model_dump(),
        "data": config.data.model_dump(mode="json"),
        **data.load_training(config.data).hashes,
        "teachers": teachers.described(folder, config, ready),
        "version": version("rkdsearch"),
        "created": known.get("created", datetime.now(UTC).isoformat(timespec="seconds")),
    }
    replace_file(folder / "study.json", json.dumps(described, indent=1))

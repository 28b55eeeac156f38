"""Checks of a study's folder before its first trial, and the file `study.json`."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rkdsearch import config as run
from rkdsearch import data, plugins
from rkdsearch.atomic_file import replace_file
from rkdsearch.config.teachers import CLAIMS
from rkdsearch.data.config import PLACES
from rkdsearch.data.splits import stratified_subset
from rkdsearch.errors import ConfigError, FileError, SpaceError, StudyError
from rkdsearch.provenance import began, provenance
from rkdsearch.results.cells import parse, records
from rkdsearch.results.packs import files_in
from rkdsearch.results.states import Origin
from rkdsearch.results.store import Store
from rkdsearch.results.tables import SCHEMA_VERSION
from rkdsearch.results.versions import upgraded_description
from rkdsearch.search import growth, longer, queue, race, teachers
from rkdsearch.search.teachers import TeacherStep
from rkdsearch.space.space import SearchSpace, refuse_shared
from rkdsearch.teacher import ROLES, Role, fingerprint
from rkdsearch.training.student import try_student
from rkdsearch.training.teacher import load_network

# Sections that may change when a study is resumed, and the consequence.
_SETTINGS = {
    "sampler": "proposals differ from here on",
    "scheduler": "decisions differ from here on",
    "constraints": "the front changes, and proposals differ from here on",
    "replicates": "replicates differ from here on, and the front changes",
}


def must_match(space: SearchSpace) -> dict[str, Any]:
    """Settings that make trials comparable: they must not differ when a study is resumed.

    Sampler, scheduler, constraints and replicates may: `claim` gives notice of it.
    """
    # of what is searched, earlier trials keep the value that they had (`resume.py`)
    searched = {parameter.name for parameter in space.parameters}
    found: dict[str, Any] = {
        f"fixed.{name}": value
        for name, value in space.fixed.items()
        if name not in searched and not _compared_elsewhere(f"fixed.{name}")
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
        found["scheduler.name"] = "none"  # then no trial is compared at a rung
    if any(rung.training_attack_steps for rung in space.ladder):
        found["scheduler.capped"] = space.scheduler.capped  # decides how a result was trained
    if space.scheduler.brackets > 1:
        # decide on which rung a trial begins
        found["scheduler.brackets"] = [space.scheduler.brackets, space.scheduler.reduction]
    # each process has a share of the batch, and BatchNorm's statistics are of the share
    found["resources.processes"] = space.resources.processes
    found["seed"] = space.seed
    # baselines have the first ordinals, so another list would shift all others
    found["first"] = [
        {"label": baseline.label, **baseline.overrides} for baseline in space.baselines
    ]
    return found


def space_of(folder: Path) -> SearchSpace:
    """The space of the study in the folder, without its file. Raises StudyError."""
    described = Store(folder).description()
    merged = described.get("merged")
    if not isinstance(merged, dict):
        why = "has no study" if not described else "was last written by an earlier version"
        raise StudyError(
            f"{folder}: {why}; begin one there, or continue it once, with `rkdsearch tune`"
        )
    return SearchSpace.of(merged, str(folder))


def first_of(folder: Path) -> Sequence[Mapping[str, Any] | str]:
    """The `first` of the study in the folder, as it was read; empty where none has begun."""
    merged = Store(folder).description().get("merged")
    first = merged.get("first") if isinstance(merged, dict) else None
    return first if isinstance(first, list) else []


def enqueuable(space: SearchSpace, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by hand, typed and checked, as hyperparameters of a trial.

    Raises ConfigError where a law of a run is broken, SpaceError where all trials share a value.
    """
    overrides = run.typed_leaves(run.flatten_tree(run.nest(values, "enqueue")), space.method_names)
    refuse_shared(overrides, "enqueue")
    config = space.config(overrides, "enqueue")
    return run.typed_leaves(overrides, [config.to_dict()["method"]["name"]])


def refuse_duplicate(
    folder: Path, space: SearchSpace, overrides: Mapping[str, Any], label: str
) -> None:
    """Raise StudyError where the study has this configuration already, or one of this label.

    A duplicate would be trained to the same bits, and stand on the front beside itself.
    """
    wanted = space.config(overrides).fingerprint()
    known: list[tuple[str, str | None, Mapping[str, Any]]] = [
        (row["trial_id"], row["label"], parse(row["hyperparameters"]))
        for row in records(Store(folder).trials())
        if row["origin"] != Origin.REPLICATE
    ]
    known += [(f"{queue.FOLDER}/{e.name}", e.label, e.overrides) for e in queue.every(folder)]
    for name, other, values in known:
        if label and label == other:
            raise StudyError(f"{folder}: {name} has the label {label!r}; choose another")
        with suppress(ConfigError, SpaceError):  # of a space that has changed since
            if space.config(values).fingerprint() == wanted:
                raise StudyError(
                    f"{folder}: {name} is this configuration; `replicates` in the space train one"
                    " with other seeds"
                )


def claim(
    folder: Path,
    space: SearchSpace,
    *,
    resume: bool,
    notice: Callable[[str], None] = lambda _: None,
) -> bool:
    """Check that this search may use the folder; returns whether it holds a study already.

    `notice` is given a sentence for each setting that has changed. Raises StudyError where the
    study was made by another space, is damaged, or `resume` is missing.
    """
    file = folder / "study.json"
    if not file.exists():
        if files_in(folder / "trials"):
            raise StudyError(
                f"{folder}: holds trials but no study.json; put it back, or name another folder"
                " with --study"
            )
        return False
    found, old = _described(file)
    if not resume:
        raise StudyError(
            f"{folder}: holds a study already; continue it with --resume, or name another folder"
            " with --study"
        )
    new = json.loads(json.dumps(must_match(space)))
    old.setdefault(
        "resources.processes", new["resources.processes"]
    )  # not in files of earlier versions
    old = {name: value for name, value in old.items() if not _compared_elsewhere(name)}
    for said in _growth(folder, space, old, new):
        notice(said)
    _refuse_another_validation_attack(folder, space, found.get("validation_attack"))
    if (found.get("replicates") or {}).get("seeds", 0) > space.replicates.seeds:
        rows = Store(folder).trials(lambda name: name in {"ordinal", "origin"})
        replicates = rows.loc[rows["origin"] == Origin.REPLICATE, "ordinal"]
        race.refuse_fewer(folder, map(int, replicates), space.replicates)
    for section, consequence in _SETTINGS.items():
        setting = getattr(space, section)
        known = found.get(section)
        if known is not None:  # files of earlier versions have constraints only
            was, now = {**type(setting)().model_dump(), **known}, setting.model_dump()
            for name in now:
                if was[name] != now[name]:
                    notice(
                        f"{section}.{name} was {_value(was[name])}, is {_value(now[name])}:"
                        f" accepted, {consequence}"
                    )
    return True


def _refuse_newer(file: Path, version: object) -> None:
    """Raise StudyError for a study of a schema version that this release does not know."""
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise StudyError(
            f"{file}: schema_version is {version}, and this rkdsearch knows versions to"
            f" {SCHEMA_VERSION}: continue the study with the newer release that began it"
        )


def _described(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content of `study.json`, and what of it must match the space."""
    try:
        found = dict(json.loads(file.read_text(encoding="utf-8")))
        _refuse_newer(file, found.get("schema_version", 1))
        found = upgraded_description(found)
        return found, dict(found["must_match"])
    except OSError as error:
        raise FileError(f"{file}: cannot be read: {error.strerror}; mend that first") from error
    except (ValueError, KeyError, TypeError):
        raise StudyError(
            f"{file}: is damaged, and only this file has the settings of the trials beside it; put"
            " a whole copy of it back, or give this search a folder of its own with --study"
        ) from None


def _growth(
    folder: Path, space: SearchSpace, old: Mapping[str, Any], new: Mapping[str, Any]
) -> list[str]:
    """Sentences about how the space has grown. Raises StudyError where it changed otherwise."""
    names = sorted(old.keys() | new.keys())
    was = {name: growth.typed(name, old[name], space) for name in names if name in old}
    now = {name: growth.typed(name, new[name], space) for name in names if name in new}
    changed = [name for name in names if was.get(name) != now.get(name)]
    said, refused = dict[str, str](), dict[str, growth.ForbiddenChange]()
    for name in changed:
        try:
            said[name] = growth.accepted(name, was.get(name), now.get(name), space)
        except growth.ForbiddenChange as reason:
            refused[name] = reason
    for name, why in refused.items():
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise StudyError(
            f"{folder}: was made by another space: {name} was {_shown(old, name)}, is"
            f" {_shown(new, name)}{more}: {why}; or give this search a folder of its own with"
            f" --study, and --warm-start {folder}, so that its sampler learns from these trials"
        )
    return [f"{name} {text}: accepted" for name, text in said.items() if text]


def _refuse_another_validation_attack(folder: Path, space: SearchSpace, was: object) -> None:
    """Raise StudyError where trials of the study were validated by another attack."""
    now = space.example().validation.attack.model_dump(mode="json")
    if not isinstance(was, dict) or was == now:
        return
    name = next(name for name in now if was.get(name) != now[name])
    place = f"fixed.validation.attack.{name}"
    way_out = f"set {place} to {_shown(was, name)}" if name in was else f"leave {place} out"
    raise StudyError(
        f"{folder}: its trials were validated by another attack: validation.attack.{name} was"
        f" {_shown(was, name)}, is {_shown(now, name)}; {way_out} in"
        f" the space, or give this search a folder of its own with --study"
    )


def _value(value: object) -> str:
    return "not there" if value is None else str(value)


def _compared_elsewhere(name: str) -> bool:
    """True for settings that are not compared by name.

    Paths and the device may change: `check_files` compares the files. What is said of a teacher has
    no effect on a trial, and is checked where the teacher is measured. The validation attack is
    compared whole, with the fields that the space leaves to their defaults.
    """
    if name.startswith("fixed.validation.attack."):
        return True
    fields = ("path", "sha256", "trained_on", *CLAIMS)
    teachers = {f"fixed.teachers.{role}.{name}" for role in ROLES for name in fields}
    return name in {"fixed.training.device"} | {f"fixed.data.{name}" for name in PLACES} | teachers


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name]) if name in settings else "not there"


def check_files(
    folder: Path | None, space: SearchSpace, notice: Callable[[str], None] = lambda _: None
) -> None:
    """Open the images and the teachers' files that the search will read.

    Without a folder they are compared with no earlier study's. `notice` is told where there are no
    test images to evaluate on later. Raises DataError and TeacherError where a file cannot be read,
    or test images do not belong to the training images; StudyError where the study in the folder
    used others.
    """
    config, known = space.example(), {} if folder is None else Store(folder).description()
    splits = data.load_training(config.data)
    for name, now in splits.hashes.items():
        if (was := known.get(name, now)) != now:
            raise StudyError(
                f"{folder}: its trials were trained on other images of {config.data.name}: {name}"
                f" was {was}, is {now}; put the right ones back, or give this search a folder of"
                " its own with --study"
            )
    labels = splits.validation.labels.numpy()
    for number, rung in enumerate(space.ladder):
        stratified_subset(
            labels,
            rung.validation_images,
            seed=config.data.split_seed,
            field=f"ladder.{number}.validation_images",
        )
    stratified_subset(
        labels, config.validation.images, seed=config.data.split_seed, field="validation.images"
    )
    try_student(config)
    if untested := data.check_test(config.data):
        notice(untested)
    for role in ROLES:
        teacher = config.teachers.get(role)
        if (
            teacher is not None
            and teacher.path is not None
            and role in teachers.needed_roles(space)
        ):
            load_network(teacher, splits)
            teachers.check_same(folder, known, role, fingerprint(Path(teacher.path)))
    for changed in plugins.changed_packages(known.get("packages")):
        notice(f"{folder}: {changed}")


def describe(folder: Path, space: SearchSpace, ready: Mapping[Role, TeacherStep]) -> None:
    """Write `study.json`."""
    config = space.example()
    known, images = Store(folder).description(), data.load_training(config.data)
    described = {
        "schema_version": SCHEMA_VERSION,
        "name": Store(folder).name,
        "space": space.text,
        "merged": space.merged,
        "must_match": must_match(space),
        "seed": space.seed,
        "objectives": list(space.objectives),
        "ladder": [rung.model_dump(exclude_none=True) for rung in space.ladder],
        "earlier_ladders": longer.ladders(known, space),
        "sampler": space.sampler.model_dump(),
        "scheduler": space.scheduler.model_dump(),
        "constraints": space.constraints.model_dump(exclude_none=True),
        "replicates": space.replicates.model_dump(),
        "validation_attack": config.validation.attack.model_dump(),
        "data": config.data.model_dump(mode="json"),
        **images.hashes,
        "classes": list(images.train.classes),
        "chance": images.chance,
        "teachers": teachers.described(folder, config, ready),
        "packages": plugins.imported_packages(),
        "version": version("rkdsearch"),
        "commands": _commands(known.get("commands")),
        "created": known.get("created", datetime.now(UTC).isoformat(timespec="seconds")),
    }
    replace_file(folder / "study.json", json.dumps(described, indent=1))


def _commands(known: object) -> list[dict[str, object]]:
    """The command lines that made the study, this process's last, each with its code."""
    found = [entry for entry in known if isinstance(entry, dict)] if isinstance(known, list) else []
    now = {"began": began().isoformat(timespec="seconds"), **asdict(provenance())}
    return found if found and found[-1] == now else [*found, now]

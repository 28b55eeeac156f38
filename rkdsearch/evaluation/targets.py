"""The networks to evaluate: trials of a study and their teachers, or a bare checkpoint."""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rkdsearch import config as run
from rkdsearch.config import TrainConfig
from rkdsearch.errors import RkdError, StudyError
from rkdsearch.results.cells import CLEAN, METHOD, ROBUST, records
from rkdsearch.results.cost import cost_of
from rkdsearch.results.front import configurations, kept_off, of_full_length
from rkdsearch.results.states import Origin, Status
from rkdsearch.results.study import StudyResults, read_study
from rkdsearch.search import ledger
from rkdsearch.task import ImageTask
from rkdsearch.teacher import ROLES, Role, fingerprint, header, read_contents

Chosen = Literal["finished", "front", "best of methods"]


@dataclass(frozen=True)
class EvaluationTarget:
    """A network to evaluate: the best checkpoint of a trial, a bare checkpoint, or a teacher."""

    trial_id: str
    label: str
    config: TrainConfig
    weights: Path
    sha256: str
    task: ImageTask
    classes: tuple[str, ...] | None = None  # names in the order of the logits, where known
    role: Role | None = None  # None: a student
    config_sha256: str | None = None  # of a run that was named for the file, which holds none

    @property
    def short_name(self) -> str:
        """`t00003 (1f2e3d4c)`, the trial and the first digits of its weights' sha256."""
        return f"{self.trial_id} ({self.sha256[:8]})"


@dataclass(frozen=True)
class Targets:
    """The networks to evaluate, and a sentence for each that cannot be.

    A student that is left out is a problem, a teacher that is not there a notice.
    """

    networks: Sequence[EvaluationTarget]
    problems: Sequence[str] = ()
    notices: Sequence[str] = ()
    sources: Sequence[EvaluationTarget] = ()  # teachers and members of the front, for `transfer`


def study_targets(
    folder: Path,
    *,
    chosen: Chosen = "finished",
    trial: str | None = None,
    replicates: bool = True,
) -> Targets:
    """The networks of a study, their teachers included.

    They are one `trial`; or the validation front and the baselines; or the best searched student
    of every method and its baselines; or all finished trials. With the front and the best come the
    replicates of their configurations, unless `replicates` is False. Raises StudyError where no
    trial has finished, and for a trial that has not: test images must not influence a search. A
    file that is gone or damaged is a problem of its own network alone, a trial's row included.
    """
    study = read_study(folder)
    if study.trials.empty:
        raise StudyError(f"{folder}: holds no trials; `rkdsearch tune` makes them")
    rows = [_named(folder, study, trial)] if trial is not None else _selected(study, chosen)
    if trial is None and not replicates:
        rows = [row for row in rows if row["origin"] != Origin.REPLICATE]
    if not rows and chosen != "finished" and (study.trials["status"] == Status.FINISHED).any():
        raise StudyError(
            f"{folder}: there is no front: {study.why_no_front}; without --front and --methods all"
            " finished trials are evaluated"
        )
    if not rows:
        counts = ", ".join(f"{n} {status}" for status, n in cost_of(study.trials).trials.items())
        way_out = "continue the study with `tune --resume`, and more --trials where all have ended"
        if not study.description:  # a single run
            way_out = "`rkdsearch train` continues it, with the file that it was begun with"
        raise StudyError(f"{folder}: no trial has finished ({counts}); {way_out}")
    problems: list[str] = []
    notices: list[str] = []
    for file in study.damaged:
        wanted = trial is None and file.parent.name == "trials"
        (problems if wanted else notices).append(
            f"{file}: cannot be read, so it is left out; put a whole copy in its place"
        )
    networks = list(_read(folder, rows, problems.append))
    front = records(study.front)
    known = {target.trial_id: target for target in networks}
    new = [row for row in front if row["trial_id"] not in known]
    members = [*_read(folder, new, lambda _: None)]
    members += [known[row["trial_id"]] for row in front if row["trial_id"] in known]
    teachers = (
        list(_teachers(study, (networks or members)[0], notices.append))
        if networks or members
        else []
    )
    ordered = sorted(members, key=lambda target: target.trial_id)
    return Targets([*networks, *teachers], problems, notices, [*teachers, *ordered])


def _named(folder: Path, study: StudyResults, trial: str) -> dict[str, Any]:
    row = study.trial(trial)
    if row["status"] != Status.FINISHED:
        raise StudyError(
            f"{folder}: trial {trial} is {row['status']}, and only finished trials are"
            " evaluated, since test images must not influence a search; let it end first, or"
            f" name another: `rkdsearch status {folder}` lists the trials"
        )
    return row


def _selected(study: StudyResults, chosen: Chosen) -> list[dict[str, Any]]:
    """Rows of the chosen finished trials; of configurations with their replicates.

    A front and its baselines have the greatest full length of the study.
    """
    rows = [r for r in records(study.trials) if r["status"] == Status.FINISHED]
    if chosen == "finished":
        return rows
    rows = [row for row, whole in zip(rows, of_full_length(rows), strict=True) if whole]
    ordinals = set(study.front["ordinal"]) if chosen == "front" else best_of_methods(study)
    ordinals |= {r["ordinal"] for r in rows if r["origin"] == Origin.BASELINE}
    return [r for r in rows if r["ordinal"] in ordinals]


def best_of_methods(study: StudyResults) -> set[int]:
    """Ordinal of every method's best searched configuration that finished.

    The best has the highest mean of clean and robust validation accuracy, means over replicates
    where there are any, among those that no flag keeps off the front.
    """
    best: dict[str, tuple[float, int]] = {}
    flagged = {row["trial_id"] for row in kept_off(study.trials)}
    rows = [r for r in records(configurations(study.trials)) if r["trial_id"] not in flagged]
    for row, whole in zip(rows, of_full_length(rows), strict=True):
        if whole and row["origin"] == Origin.SEARCH and None not in (row[CLEAN], row[ROBUST]):
            score = (row[CLEAN] + row[ROBUST]) / 2
            method = str(row.get(METHOD))
            best[method] = max(best.get(method, (-1.0, -1)), (score, row["ordinal"]))
    return {ordinal for _, ordinal in best.values()}


def _read(
    folder: Path, rows: Iterable[Mapping[str, Any]], problem: Callable[[str], None]
) -> Iterator[EvaluationTarget]:
    """The networks of these trials; `problem` is told of each that cannot be read."""
    for row in rows:
        weights = ledger.folder_of(folder, row["trial_id"]) / "best.safetensors"
        if not weights.exists():
            problem(
                f"{weights}: is missing, so trial {row['trial_id']} cannot be evaluated; was the"
                " folder copied without it? put it back"
            )
            continue
        try:
            yield checkpoint_target(weights, trial_id=row["trial_id"], label=row["label"])
        except RkdError as error:
            problem(f"trial {row['trial_id']} cannot be evaluated: {error}")


def checkpoint_target(
    weights: Path,
    config: TrainConfig | None = None,
    *,
    trial_id: str | None = None,
    label: str | None = None,
) -> EvaluationTarget:
    """The network of a file, with the run's `config` where the file does not hold it.

    Raises CheckpointError or TeacherError where the file cannot be read, StudyError where nothing
    says which network it holds, DataError where nothing says which images it takes.
    """
    sha256, named = fingerprint(weights), None if config is None else config.fingerprint()
    state: Mapping[str, Any] = {}
    if config is None:
        state = _state_in(weights)
        if "config" not in state:
            read_contents(weights)  # a damaged file has an error of its own
            raise StudyError(
                f"{weights}: does not say of which run it is; name the run's file with --config,"
                " such as the run.yaml beside an exported student"
            )
        config = run.build_stored(state["config"], trial_id or str(weights))
    task, classes = _task(weights, state, config)
    # as the name of a file of rows
    name = trial_id or re.sub(r"[^A-Za-z0-9._-]", "-", weights.stem).strip("-._")[:60] or "network"
    return EvaluationTarget(
        name,
        label or config_label(config),
        config,
        weights,
        sha256,
        task,
        classes,
        config_sha256=named,
    )


def holds_run(weights: Path) -> bool:
    """True where a file of weights says of which run it is."""
    return "config" in _state_in(weights)


def _state_in(weights: Path) -> Mapping[str, Any]:
    """The trainer's state in a file of weights; empty where it is no checkpoint of ours."""
    from rkdsearch.training import checkpoint

    return checkpoint.state_of(weights) if "state" in header(weights) else {}


def _task(
    weights: Path, state: Mapping[str, Any], config: TrainConfig
) -> tuple[ImageTask, tuple[str, ...] | None]:
    """The task of the network and its classes: from its file, or of its training images."""
    described: Mapping[str, Any] = state
    if "task" not in described:
        described = {
            name: json.loads(text)
            for name, text in header(weights).items()
            if name in ("task", "classes")
        }
    if "task" in described:
        names = described.get("classes")
        return ImageTask(**described["task"]), None if names is None else tuple(map(str, names))
    from rkdsearch import data

    images = data.load_training(config.data).train
    return images.task, tuple(map(str, images.classes))


def config_label(config: TrainConfig) -> str:
    """A label for a trial that the space gave none."""
    from rkdsearch.methods import name_of

    return (
        f"{name_of(config.method)}, eps {config.attack.eps:.3f} x {config.attack.steps}, lr"
        f" {config.optimizer.lr:.3g}"
    )


def _teachers(
    study: StudyResults, taught: EvaluationTarget, notice: Callable[[str], None]
) -> Iterator[EvaluationTarget]:
    from rkdsearch.training.teacher import find_file

    config = taught.config
    described = study.description.get("teachers", {})
    for role in ROLES:
        facts = described.get(role, {})
        if config.teachers.get(role) is None or not facts.get("path"):
            continue
        path = find_file(study.folder, facts["path"])
        if path is None:
            notice(f"{role} teacher: {facts['path']} is not there, so it is not evaluated")
        elif (sha256 := fingerprint(path)) != facts.get("sha256"):
            notice(
                f"{role} teacher: {path} is not the file that taught (its sha256 was"
                f" {facts.get('sha256')}), so it is not evaluated"
            )
        else:
            trial_id = "teacher" if role == "robust" else f"teacher-{role}"
            yield EvaluationTarget(
                trial_id, f"{role} teacher", config, path, sha256, taught.task, taught.classes, role
            )


def without(
    sources: Collection[EvaluationTarget], target: EvaluationTarget
) -> tuple[EvaluationTarget, ...]:
    """The sources of `transfer` for this target: all but itself."""
    return tuple(source for source in sources if source.sha256 != target.sha256)

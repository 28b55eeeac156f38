"""The networks to evaluate: finished trials of a study and their teachers, with their weights."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkdsearch import config as run
from rkdsearch.config import TrainConfig
from rkdsearch.errors import StudyError
from rkdsearch.results.cells import records
from rkdsearch.results.cost import cost_of
from rkdsearch.results.states import Origin, Status
from rkdsearch.results.study import StudyResults, read_study
from rkdsearch.search import ledger
from rkdsearch.teacher import ROLES, Role, fingerprint

Notice = Callable[[str], None]


@dataclass(frozen=True)
class EvaluationTarget:
    """A network to evaluate: the best checkpoint of a trial, or a teacher."""

    trial_id: str
    label: str
    config: TrainConfig
    weights: Path
    sha256: str
    role: Role | None = None  # None: a student


def evaluation_targets(
    folder: Path, *, front: bool, trial: str | None, notice: Notice = lambda _: None
) -> list[EvaluationTarget]:
    """The networks to evaluate, their teachers included.

    They are one `trial`; or, with `front`, the validation front and the baselines; or all finished
    trials. Raises StudyError where there is none, and for a trial that has not finished: test
    images must not influence a search. A missing teacher is left out, and `notice` is told.
    """
    study = read_study(folder)
    trials = study.trials
    if trials.empty:
        raise StudyError(f"{folder}: holds no trials; `rkdsearch tune` makes them")
    rows = records(trials)
    on_front = set(study.front["trial_id"])
    if trial is not None:
        chosen = [r for r in rows if r["trial_id"] == trial]
        if not chosen:
            raise StudyError(
                f"{folder}: there is no trial '{trial}'; `rkdsearch status {folder}` lists the"
                " trials"
            )
        if chosen[0]["status"] != Status.FINISHED:
            raise StudyError(
                f"{folder}: trial {trial} is {chosen[0]['status']}, and only finished trials are"
                " evaluated, since test images must not influence a search; let it end first, or"
                f" name another: `rkdsearch status {folder}` lists the trials"
            )
    else:
        chosen = [
            r
            for r in rows
            if r["status"] == Status.FINISHED
            and (not front or r["trial_id"] in on_front or r["origin"] == Origin.BASELINE)
        ]
    if not chosen:
        counts = ", ".join(f"{n} {status}" for status, n in cost_of(trials).trials.items())
        raise StudyError(
            f"{folder}: no trial has finished ({counts}); repeat the command that began the study"
            " (`tune` with --resume) to continue it"
        )
    found = [_target(folder, row) for row in chosen]
    return found + list(_teachers(study, found[0].config, notice))


def _target(folder: Path, row: Mapping[str, Any]) -> EvaluationTarget:
    weights = ledger.folder_of(folder, row["trial_id"]) / "best.safetensors"
    if not weights.exists():
        raise StudyError(
            f"{weights}: is missing, so trial {row['trial_id']} cannot be evaluated; was the folder"
            " copied without it? put it back"
        )
    from rkdsearch.training import checkpoint

    config = run.build_stored(checkpoint.state_of(weights)["config"], row["trial_id"])
    return EvaluationTarget(
        row["trial_id"], row["label"] or config_label(config), config, weights, fingerprint(weights)
    )


def config_label(config: TrainConfig) -> str:
    """A label for a trial that the space gave none."""
    from rkdsearch.methods import name_of

    return (
        f"{name_of(config.method)}, eps {config.attack.eps:.3f} x {config.attack.steps}, lr"
        f" {config.optimizer.lr:.3g}"
    )


def _teachers(
    study: StudyResults, config: TrainConfig, notice: Notice
) -> Iterator[EvaluationTarget]:
    described = study.description.get("teachers", {})
    for role in ROLES:
        facts = described.get(role, {})
        if config.teachers.get(role) is None or not facts.get("path"):
            continue
        # A path inside the study's folder is relative to it; others are as the search had them.
        path = next(
            (p for p in (study.folder / facts["path"], Path(facts["path"])) if p.exists()), None
        )
        if path is None:
            notice(f"{role} teacher: {facts['path']} is not there, so it is not evaluated")
        elif (sha256 := fingerprint(path)) != facts["sha256"]:
            notice(
                f"{role} teacher: {path} is not the file that taught (its sha256 was"
                f" {facts['sha256']}), so it is not evaluated"
            )
        else:
            trial_id = "teacher" if role == "robust" else f"teacher-{role}"
            yield EvaluationTarget(trial_id, f"{role} teacher", config, path, sha256, role)

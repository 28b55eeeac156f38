"""Who sits the exam: the trials of a study that finished, and their teachers, each with its weights."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkdsearch import config as run
from rkdsearch.config import TrainConfig
from rkdsearch.errors import StudyError
from rkdsearch.results import summary
from rkdsearch.results.states import Origin
from rkdsearch.search import ledger
from rkdsearch.teacher import fingerprint

Notice = Callable[[str], None]


@dataclass(frozen=True)
class EvaluationTarget:
    """Something to be examined: a trial's best checkpoint, or a teacher."""

    trial_id: str
    label: str
    config: TrainConfig
    weights: Path
    sha256: str
    role: str | None = None  # of a teacher


def evaluation_targets(
    folder: Path, *, front: bool, trial: str | None, notice: Notice = lambda _: None
) -> list[EvaluationTarget]:
    """Who is examined, with the teachers: one trial; or the validation front and the published settings; or all that finished.

    Raises StudyError where there is none, or for a trial that has not finished: test images must
    not watch a search. A teacher that is gone is left out, and `notice` is given a sentence.
    """
    study = summary.read(folder)
    trials = study.trials
    if trials.empty:
        raise StudyError(f"{folder}: holds no trials; `rkdsearch tune` makes them")
    rows = summary.records(trials)
    best = set(study.front["trial_id"])
    if trial is not None:
        chosen = [r for r in rows if r["trial_id"] == trial]
        if not chosen:
            raise StudyError(
                f"{folder}: there is no trial '{trial}'; `rkdsearch status {folder}` lists what"
                " there is"
            )
        if chosen[0]["status"] != "finished":
            raise StudyError(
                f"{folder}: trial {trial} is {chosen[0]['status']}, and only a finished one is"
                " examined, since test images must not watch a search; let it end first, or name"
                f" another: `rkdsearch status {folder}` lists what there is"
            )
    else:
        chosen = [
            r
            for r in rows
            if r["status"] == "finished"
            and (not front or r["trial_id"] in best or r["origin"] == Origin.BASELINE)
        ]
    if not chosen:
        counts = ", ".join(f"{n} {status}" for status, n in summary.cost(trials).trials.items())
        raise StudyError(
            f"{folder}: no trial has finished ({counts}); the command that began it goes on with it"
            " (`tune` with --resume)"
        )
    found = [_target(folder, row) for row in chosen]
    return found + list(_teachers(study, found[0].config, notice))


def _target(folder: Path, row: Mapping[str, Any]) -> EvaluationTarget:
    weights = ledger.folder_of(folder, row["trial_id"]) / "best.safetensors"
    if not weights.exists():
        raise StudyError(
            f"{weights}: is missing, so trial {row['trial_id']} cannot be examined; was the folder"
            " copied without it? put it back"
        )
    from rkdsearch.training import checkpoint

    config = run.build(checkpoint.state_of(weights)["config"], row["trial_id"])
    return EvaluationTarget(
        row["trial_id"], row["label"] or config_label(config), config, weights, fingerprint(weights)
    )


def config_label(config: TrainConfig) -> str:
    """A trial that nobody named."""
    from rkdsearch.methods import name_of

    return (
        f"{name_of(config.method)}, eps {config.attack.eps:.3f} x {config.attack.steps}, lr"
        f" {config.optimizer.lr:.3g}"
    )


def _teachers(
    study: summary.Study, config: TrainConfig, notice: Notice
) -> Iterator[EvaluationTarget]:
    for role, facts in study.description.get("teachers", {}).items():
        teacher = config.teachers.get(role)
        if teacher is None or not facts.get("path"):
            continue
        # The study's own teachers move with it; others stand where the search found them.
        path = next(
            (p for p in (study.folder / facts["path"], Path(facts["path"])) if p.exists()), None
        )
        if path is None:
            notice(f"{role} teacher: {facts['path']} is not there, so it is not examined")
        elif (sha256 := fingerprint(path)) != facts["sha256"]:
            notice(
                f"{role} teacher: {path} is another file than the one that taught (sha256"
                f" {facts['sha256']}), so it is not examined"
            )
        else:
            name = "teacher" if role == "robust" else f"teacher-{role}"
            yield EvaluationTarget(name, f"{role} teacher", config, path, sha256, role)

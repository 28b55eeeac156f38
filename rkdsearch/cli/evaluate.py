"""`rkdsearch evaluate`: the only command that reads the test set."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rkdsearch.cli.options import Address, AllowImport
from rkdsearch.results.states import EvaluationAttack


def evaluate(
    study: Path,
    *,
    front: bool = False,
    trial: str | None = None,
    seeds: int = 1,
    images: int | None = None,
    attacks: Annotated[tuple[EvaluationAttack, ...], Parameter(negative=())] = (
        "clean",
        "pgd20",
        "autoattack",
    ),
    gpu: float | None = None,
    address: Address = None,
    allow_import: AllowImport = (),
) -> None:
    """Evaluate finished networks on test images; evaluations that exist are skipped.

    Parameters
    ----------
    study
        Folder of a study or of a single run.
    front
        The validation front and the baselines, in place of all finished trials.
    trial
        Only this trial.
    seeds
        Number of seeds of each attack.
    images
        Number of test images, stratified by class, the same for all networks; default: all.
    attacks
        An attack; repeat the option for several.
    gpu
        Share of a GPU for each worker, such as 0.25; default: a whole GPU where Ray sees one.
    """
    from rkdsearch import plugins
    from rkdsearch.cli.console import say
    from rkdsearch.errors import StudyError
    from rkdsearch.evaluation import jobs
    from rkdsearch.evaluation.targets import evaluation_targets
    from rkdsearch.execution.evaluation import run_jobs

    if seeds < 1 or (images is not None and images < 1):
        raise StudyError(f"--seeds and --images must be >= 1, got {seeds} and {images}")
    if gpu is not None and not 0 < gpu <= 1:
        raise StudyError(f"--gpu must be > 0 and <= 1, got {gpu:g}")
    plugins.allow_import(*allow_import)
    todo = jobs.evaluation_jobs(
        evaluation_targets(study, front=front, trial=trial, notice=say), attacks, seeds
    )
    say(
        f"{study}: {len({s.target.trial_id for s in todo})} networks, {len(todo)} evaluation jobs"
        " on test images"
    )
    done = 0
    for job, row in run_jobs(study, todo, images=images, gpu=gpu, address=address):
        done += 1
        say(
            f"{job.target.trial_id:10} {job.attack:10} seed {job.seed}:"
            f" {row['correct']}/{row['images']} = {row['accuracy']:.3f} [{row['low']:.3f},"
            f" {row['high']:.3f}]  {job.target.label}"
        )
    if done < len(todo):
        say(
            f"{len(todo) - done} evaluation jobs were skipped: {study / 'evaluations'} has their"
            " results"
        )

"""`rkdsearch evaluate`: the only command that opens the test set."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from rkdsearch.cli.options import Address, AllowImport

Attack = Literal["clean", "pgd20", "autoattack"]


def evaluate(
    study: Path,
    *,
    front: bool = False,
    trial: str | None = None,
    seeds: int = 1,
    images: int | None = None,
    attacks: Annotated[tuple[Attack, ...], Parameter(negative=())] = (
        "clean",
        "pgd20",
        "autoattack",
    ),
    gpu: float | None = None,
    address: Address = None,
    allow_import: AllowImport = (),
) -> None:
    """Examine finished networks on test images, by the study's fixed exam. What was examined before is skipped.

    Parameters
    ----------
    study
        The study's folder, or that of a single run.
    front
        The validation front and the published settings; neither this nor --trial: everything that finished.
    trial
        One trial.
    seeds
        How many seeds of the attacks.
    images
        Only so many test images, stratified and the same for all; the number is recorded.
    attacks
        Which attack; repeat it for several.
    gpu
        The share of a GPU that each worker takes, such as 0.25; by default a whole one where Ray sees any.
    """
    from rkdsearch import plugins
    from rkdsearch.cli.progress import said
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
        evaluation_targets(study, front=front, trial=trial, notice=said), attacks, seeds
    )
    said(
        f"{study}: {len({s.target.trial_id for s in todo})} networks, {len(todo)} evaluation jobs on"
        " test images"
    )
    done = 0
    for job, row in run_jobs(study, todo, images=images, gpu=gpu, address=address):
        done += 1
        said(
            f"{job.target.trial_id:10} {job.attack:10} seed {job.seed}:"
            f" {row['correct']}/{row['images']} = {row['accuracy']:.3f} [{row['low']:.3f},"
            f" {row['high']:.3f}]  {job.target.label}"
        )
    if done < len(todo):
        said(
            f"{len(todo) - done} evaluation jobs stand in {study / 'evaluations'} already and were not"
            " repeated"
        )

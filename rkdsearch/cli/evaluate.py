"""`rkdsearch evaluate`: the only command that reads the test set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from rkdsearch.cli.options import Address, AllowImport, LocalPath
from rkdsearch.results.states import EvaluationAttack

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager

    from rkdsearch.evaluation.runner import Executor
    from rkdsearch.evaluation.targets import Chosen, Targets


def evaluate(
    study: LocalPath,
    *overrides: str,
    front: bool = False,
    trial: str | None = None,
    methods: Literal["best"] | None = None,
    replicates: bool = True,
    config: LocalPath | None = None,
    attacks: Annotated[tuple[EvaluationAttack, ...], Parameter(negative=())] = (
        "clean",
        "pgd20",
        "autoattack",
    ),
    eps: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    norm: Literal["linf", "l2"] | None = None,
    attack_seeds: Annotated[int, Parameter(name=["--attack-seeds", "--seeds"])] = 1,
    images: int | None = None,
    data: str | None = None,
    severity: Annotated[tuple[int, ...], Parameter(negative=())] = (),
    out: LocalPath | None = None,
    local: Annotated[bool, Parameter(negative=())] = False,
    gpu: float | None = None,
    address: Address = None,
    allow_import: AllowImport = (),
) -> Path:
    """Evaluate networks on test images; what exists is skipped, an interrupted evaluation goes on.

    Each opening of test images is recorded in openings/ of the folder.

    Parameters
    ----------
    study
        Folder of a study or of a single run; or a bare checkpoint, such as an exported student.
    overrides
        How the images of --data are read, such as data.image_size=32 data.channels=1.
    front
        The validation front and the baselines, with their replicates, in place of all finished
        trials.
    trial
        Only this trial, and the teachers beside it.
    methods
        `best`: the best searched student of every method, and the baselines, with replicates.
    replicates
        With --no-replicates only the networks that would be delivered: a quick look.
    config
        A bare checkpoint's run; default: what the file says, or run.yaml beside it.
    attacks
        The attacks, such as `--attacks clean pgd20`.
    eps
        Radius of the attacks' ball, such as 4/255, in place of each run's own; several for an
        accuracy curve.
    norm
        Norm of the ball, in place of each run's own; needs --eps where it differs.
    attack_seeds
        Number of seeds of each attack.
    images
        Number of images, stratified by class, the same for all networks; default: all.
    data
        Other images, in place of the test images: folder:PATH, parquet:PATH, FILE.npz, npy:PATH
        in the layout of CIFAR-10-C; or `corruptions` of the test images, such as corruptions:jpeg.
    severity
        Of npy:PATH and corruptions, only these severities, 1 to 5.
    out
        Folder of the results of a bare checkpoint; default: FILE-evaluation beside it.
    local
        In this process, without Ray.
    gpu
        Share of a GPU for each worker, such as 0.25; default: a whole GPU where Ray sees one.
    """
    from dataclasses import replace

    from rkdsearch import plugins
    from rkdsearch.cli.console import say, show_pace
    from rkdsearch.cli.options import parsed
    from rkdsearch.errors import StudyError
    from rkdsearch.evaluation import jobs
    from rkdsearch.evaluation.leakage import seen_before, warning
    from rkdsearch.evaluation.other_images import image_sets
    from rkdsearch.evaluation.runner import JobFailure, evaluate, open_jobs
    from rkdsearch.pace import number_of

    ball = bool(eps) or norm is not None
    _check_options(
        attacks, attack_seeds, images, ball=ball, front=front, trial=trial, methods=methods
    )
    _check_place(gpu, address, local=local)
    show_pace()
    plugins.allow_import(*allow_import)
    radii = [_radius(text) for text in eps]
    folder, targets = _targets(study, front, trial, methods, config, out, replicates)
    failures = list(targets.problems)
    _say_all((*targets.notices, *failures))
    if not targets.networks:
        raise StudyError(_failed(f"{folder}: none of its networks can be evaluated:", failures))
    todo = jobs.evaluation_jobs(targets, attacks, seeds=attack_seeds, eps=radii, norm=norm)
    sets = [
        replace(found, seen=seen_before(found, targets.networks[0]))
        if open_jobs(folder, todo, found)
        else found
        for found in image_sets(data, parsed(overrides), severity, targets.networks, images)
    ]
    say(
        f"{folder}: {number_of(len(targets.networks), 'network')},"
        f" {number_of(len(todo) * len(sets), 'evaluation job')} on"
        f" {', '.join(found.name for found in sets[:3])}{', ...' if len(sets) > 3 else ''}"
    )
    _say_all(map(warning, sets))
    done = 0
    with _executor(gpu, address, local=local) as executor:
        for found in sets:
            for outcome in evaluate(folder, todo, found, executor, notice=say):
                if isinstance(outcome, JobFailure):
                    failures.append(f"{outcome.job.name}: {outcome.sentence}")
                    say(failures[-1])
                    continue
                done += 1
                job, row = outcome
                say(
                    f"{job.target.trial_id:10} {job.attack.title:10} seed {job.seed}:"
                    f" {row['correct']}/{row['images']} = {row['accuracy']:.3f}"
                    f" [{row['low']:.3f}, {row['high']:.3f}]  {job.target.label}"
                    + (f"  {found.name}" if len(sets) > 1 else "")
                    + _flags(row["flags"])
                )
    skipped = len(todo) * len(sets) - done - len(failures) + len(targets.problems)
    if skipped:
        say(f"{skipped} evaluation jobs were skipped: {folder / 'evaluations'} has their results")
    if failures:
        raise StudyError(
            _failed(
                f"{folder}: {len(failures)} of the evaluations failed; all others are kept, and the"
                " same command tries these again:",
                failures,
            )
        )
    return folder


def _failed(sentence: str, failures: "Sequence[str]") -> str:
    """The last error: a sentence, and each failure once."""
    return "\n".join([sentence, *(f"  {failure}" for failure in dict.fromkeys(failures))])


def _flags(raised: object) -> str:
    """The end of a line: the flags of its row, where it has any."""
    return f"  FLAGS: {', '.join(raised)}" if isinstance(raised, tuple) and raised else ""


def _executor(
    gpu: float | None, address: str | None, *, local: bool
) -> "AbstractContextManager[Executor]":
    """The executor: this process, or Ray."""
    from contextlib import nullcontext

    if local:
        from rkdsearch.evaluation.runner import here

        return nullcontext(here)
    from rkdsearch.cli.console import say
    from rkdsearch.execution.evaluation import ray_executor

    return ray_executor(gpu, address, say)


def _say_all(sentences: "Iterable[str]") -> None:
    """Print the sentences that are not empty."""
    from rkdsearch.cli.console import say

    for sentence in filter(None, sentences):
        say(sentence)


def _check_options(
    attacks: "Sequence[str]",
    seeds: int,
    images: int | None,
    *,
    ball: bool,
    front: bool,
    trial: str | None,
    methods: str | None,
) -> None:
    from rkdsearch.errors import StudyError

    if not attacks:
        raise StudyError("--attacks must name one attack at least, such as clean, got none")
    if seeds < 1 or (images is not None and images < 1):
        raise StudyError(f"--attack-seeds and --images must be >= 1, got {seeds} and {images}")
    if ball and set(attacks) == {"clean"}:
        raise StudyError(
            "--eps and --norm are of an attack's ball, and clean images are in none; name an attack"
            " with --attacks, or leave them out"
        )
    if sum((front, trial is not None, methods is not None)) > 1:
        raise StudyError("--front, --trial and --methods each choose networks; give one of them")


def _check_place(gpu: float | None, address: str | None, *, local: bool) -> None:
    from rkdsearch.errors import StudyError

    if gpu is not None and not 0 < gpu <= 1:
        raise StudyError(f"--gpu must be > 0 and <= 1, got {gpu:g}")
    if local and gpu is not None:
        raise StudyError("--gpu is a Ray worker's share, and --local is without Ray; leave one out")
    if local and address is not None:
        raise StudyError("--local is without Ray, and --address names a Ray cluster; leave one out")


def _targets(
    named: Path,
    front: bool,
    trial: str | None,
    methods: str | None,
    config: Path | None,
    out: Path | None,
    replicates: bool,
) -> tuple[Path, "Targets"]:
    """The folder of the results, and the networks.

    A file in the folder of a study's trial is that trial; any other file is a bare checkpoint.
    """
    from rkdsearch import config as run
    from rkdsearch.errors import StudyError
    from rkdsearch.evaluation.targets import Targets, checkpoint_target, holds_run, study_targets
    from rkdsearch.teacher import read_contents

    if not replicates and (trial is not None or named.is_file()):
        raise StudyError(
            "--no-replicates leaves replicates of a study's networks out, and one network is named;"
            " leave it out"
        )
    if not named.is_file():
        if named.suffix in {".safetensors", ".pt", ".pth"}:
            raise StudyError(f"{named}: there is no such file; check the path")
        if config is not None or out is not None:
            raise StudyError(
                f"{named}: --config and --out belong to a bare checkpoint, and this is no file;"
                " leave them out, or name a file of weights"
            )
        chosen: Chosen = "front" if front else "best of methods" if methods else "finished"
        return named, study_targets(named, chosen=chosen, trial=trial, replicates=replicates)
    if front or methods or trial:
        raise StudyError(
            f"{named}: is a bare checkpoint; --front, --trial and --methods choose networks of a"
            " study: name its folder"
        )
    home = named.resolve().parent
    if config is None and out is None and named.name == "best.safetensors":
        if home.parent.name == "checkpoints":
            return home.parents[1], study_targets(home.parents[1], trial=home.name)
        if (home / "trials").is_dir():
            return named.parent, study_targets(named.parent, trial="run")
    beside = named.parent / "run.yaml"
    if config is None and beside.exists() and not holds_run(named):
        config = beside
    target = checkpoint_target(named, None if config is None else run.load(config, {}))
    contents = read_contents(named)
    several = (
        f"{named}: {contents.described}; `rkdsearch teacher convert --key` makes a file of another"
        " entry"
    )
    return (
        out or named.with_name(f"{named.stem}-evaluation"),
        Targets([target], notices=[several] if contents.left else ()),
    )


def _radius(text: str) -> float:
    """The radius in a text such as `8/255` or `0.03`. Raises ConfigError."""
    from rkdsearch.config.fields import ratio
    from rkdsearch.errors import ConfigError

    try:
        return float(str(ratio(text)))
    except ValueError:
        raise ConfigError(f"--eps must be a number or a ratio such as 8/255, got {text}") from None

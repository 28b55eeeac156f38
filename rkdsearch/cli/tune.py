"""`rkdsearch tune`: search a space."""

import shlex
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rkdsearch.cli.options import Address, AllowImport, LocalPath

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

    from rkdsearch.search.warm_start import WarmStart
    from rkdsearch.space.space import SearchSpace

MOST_TRIALS = 1_000_000  # of one study: its driver has been tried with ten thousand


def tune(
    space: LocalPath,
    *,
    trials: int | None = None,
    device_hours: float | None = None,
    study: LocalPath,
    resume: bool = False,
    warm_start: LocalPath | None = None,
    journal: bool = True,
    address: Address = None,
    dry_run: bool = False,
    allow_import: AllowImport = (),
) -> None:
    """Search a space for the clean-versus-robust Pareto front.

    Parameters
    ----------
    space
        YAML file of a search space, or one that comes with rkdsearch, such as rkdsearch:digits.
    trials
        Number of configurations; a promotion to a longer run is not a new one.
    device_hours
        In place of --trials: device time after which no more are proposed; promotions continue.
    study
        Folder of the results; on a cluster, one that all nodes share.
    resume
        Continue the study in the folder, and retry failures of the machine; else begin one.
    warm_start
        Earlier study whose trials in this space the sampler learns from; --resume keeps them.
    journal
        Write <study>/optuna.journal, for optuna-dashboard.
    dry_run
        Print the ladder, check images, teachers' files and resources, and stop.
    """
    from contextlib import ExitStack

    from rkdsearch import plugins
    from rkdsearch.cli.console import say
    from rkdsearch.cli.ending import end_now
    from rkdsearch.cli.space import checked
    from rkdsearch.errors import DiskError, LostHeadError
    from rkdsearch.search import study_file
    from rkdsearch.search.warm_start import FILE, prepare

    until = _until(trials, device_hours)
    plugins.allow_import(*allow_import)
    searched, built = checked(space, study)
    say(
        f"{space}: {built} configurations checked, all legal; {len(searched.parameters)}"
        " hyperparameters searched"
    )
    for line in searched.forecast(trials):
        say(line)
    with ExitStack() as held:
        if not dry_run:
            held.enter_context(_writing(study))
        existed = study_file.claim(study, searched, resume=resume, notice=say)
        if existed:
            _say_of_resumed(study)
        study_file.check_files(study, searched, notice=say)
        warmed = prepare(study, warm_start, searched, existed=existed)
        from rkdsearch.execution import doctor
        from rkdsearch.execution.placement import available_resources

        held.enter_context(available_resources(searched.resources, address, say))
        if address is not None:
            doctor.check_cluster(searched, study, say)
        if dry_run:
            for line in _expected_times(searched, study, trials, address):
                say(line)
            return

        def to_continue() -> str:
            kept = warm_start is None or (study / FILE).exists()
            more = [] if journal else ["--no-journal"]
            more += [] if kept else ["--warm-start", str(warm_start)]
            more += ["--address", address] if address else []
            more += [word for package in allow_import for word in ("--allow-import", package)]
            words = ["tune", str(space), *until.split(), "--study", str(study), "--resume", *more]
            return "stopped; every finished epoch is kept. Continue with: " + shlex.join(
                ["rkdsearch", *words]
            )

        def leave(reason: BaseException) -> "NoReturn":
            say(to_continue())
            end_now(reason)

        try:
            _search(
                searched,
                study,
                trials,
                device_hours,
                existed=existed,
                warmed=warmed,
                journal=journal,
                address=address,
                leave=leave,
            )
        except (KeyboardInterrupt, DiskError, LostHeadError):
            say(to_continue())
            raise


def _say_of_resumed(study: Path) -> None:
    """Print what a search should know that goes on."""
    from rkdsearch.cli.console import say
    from rkdsearch.evaluation.openings import told_at_resume
    from rkdsearch.results.store import Store

    say("the forecast is of the whole search: what this study has done already is in it")
    if (opened := told_at_resume(Store(study))) is not None:
        say(opened)


@contextmanager
def _writing(study: Path) -> "Iterator[None]":
    """Be the study's only writer; a search that is refused leaves nothing that was not there."""
    from rkdsearch.file_lock import WRITER_FILE, one_writer
    from rkdsearch.local_path import missing_folders

    made = missing_folders(study)
    known = {file.name for file in study.glob("*")}
    with one_writer(study):
        try:
            yield
        except BaseException:
            with suppress(OSError):  # under the lock: the file is no other search's
                if {file.name for file in study.glob("*")} - known == {WRITER_FILE}:
                    (study / WRITER_FILE).unlink()
                for folder in made:
                    folder.rmdir()
            raise


def _expected_times(
    space: "SearchSpace", study: Path, trials: int | None, address: str | None
) -> "Iterator[str]":
    """A line for each teacher that the search would train first, and one for its trials."""
    from rkdsearch.execution.expected_time import run_time, teacher_times
    from rkdsearch.execution.placement import trials_here
    from rkdsearch.pace import duration, number_of

    for teacher in teacher_times(study, space):
        text = f"{teacher.role} teacher: trained first, {teacher.epochs} epochs"
        if teacher.seconds is not None:
            text += f", about {duration(teacher.seconds)} on this machine (from a short timing)"
        yield text
    if (run := run_time(study, space)) is None:
        return
    text = (
        f"a full run takes about {duration(run.seconds)} on this machine (from short timings of"
        f" {number_of(run.methods, 'method')})"
    )
    if trials is not None:
        seconds = [run.seconds * runs for runs in dict.fromkeys(space.full_runs(trials))]
        devices = " to ".join(duration(each * space.resources.devices) for each in seconds)
        text += f": about {devices} of device time"
        if address is None and (at_once := trials_here(space.resources)) > 1:
            shared = " to ".join(duration(each / at_once) for each in seconds)
            text += f", {shared} with {at_once} trials at a time"
    yield text


def _search(
    space: "SearchSpace",
    folder: Path,
    trials: int | None,
    device_hours: float | None,
    *,
    existed: bool,
    warmed: "WarmStart",
    journal: bool,
    address: str | None,
    leave: "Callable[[BaseException], NoReturn]",
) -> None:
    """Prepare the teachers, then run the trials that the study in the folder still needs."""
    from rkdsearch import data
    from rkdsearch.atomic_file import replace_file
    from rkdsearch.cli.console import say
    from rkdsearch.cli.progress import SearchProgress, TeacherProgress
    from rkdsearch.errors import RkdError
    from rkdsearch.execution import teachers
    from rkdsearch.execution.search import run_search
    from rkdsearch.search.journal import Journal
    from rkdsearch.search.study import Study
    from rkdsearch.search.study_file import describe
    from rkdsearch.search.teachers import overrides_of
    from rkdsearch.search.warm_start import keep

    chance = data.load_training(space.example().data).chance
    before = (folder / "study.json").read_bytes() if existed else b""
    keep(folder, warmed)
    if warmed.observations:
        say(
            f"warm start: the sampler is given {len(warmed.observations)} earlier"
            f" trials{warmed.left_out}"
        )
    ready, progress = {}, TeacherProgress(chance)
    for step in teachers.prepare(
        folder,
        space,
        teachers.train_and_measure if address is None else teachers.on_cluster(space.resources),
    ):
        progress.update(step)
        if step.measured is not None:
            ready[step.role] = step
            # Written now, so that no teacher is measured twice, even where the next one fails.
            describe(folder, space, ready)
    describe(folder, space, ready)
    book = Journal(folder, space) if journal else None
    seconds = None if device_hours is None else device_hours * 3600
    running = Study(
        folder,
        space,
        trials,
        overrides_of(ready),
        device_seconds=seconds,
        warm_start=warmed.observations,
        journal=book,
    )
    if existed:
        try:
            running.reconcile(say)
        except RkdError:  # this space cannot continue the study: that of before still can
            replace_file(folder / "study.json", before)
            raise
    if book is not None:
        book.sync(running.trials.values())
    with SearchProgress(running, chance) as watching:
        nothing_to_do = running.done
        if nothing_to_do:
            running.close()
        else:
            run_search(running, address=address, listener=watching.update, notice=say, leave=leave)
        watching.finished(running, nothing_to_do=nothing_to_do)


def _until(trials: int | None, device_hours: float | None) -> str:
    """The option that ends the search, as the command that continues has it. Raises RkdError."""
    from rkdsearch.errors import RkdError

    if (trials is None) == (device_hours is None):
        raise RkdError(
            "tune: needs exactly one of --trials and --device-hours, got "
            + ("neither" if trials is None else "both")
        )
    if trials is not None and not 1 <= trials <= MOST_TRIALS:
        law = ">= 1" if trials < 1 else f"<= {MOST_TRIALS:,}"
        raise RkdError(f"--trials must be {law}, got {trials}")
    if device_hours is not None and not device_hours > 0:
        raise RkdError(f"--device-hours must be > 0, got {device_hours:g}")
    return f"--trials {trials}" if device_hours is None else f"--device-hours {device_hours:g}"

"""`rkdsearch tune`: the main job."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rkdsearch.cli.options import Address, AllowImport

if TYPE_CHECKING:
    from rkdsearch.space.space import SearchSpace


def tune(
    space: Path,
    *,
    trials: int | None = None,
    device_hours: float | None = None,
    study: Path,
    resume: bool = False,
    warm_start: Path | None = None,
    journal: bool = True,
    address: Address = None,
    dry_run: bool = False,
    allow_import: AllowImport = (),
) -> None:
    """Search a space for the clean-versus-robust Pareto front.

    Parameters
    ----------
    space
        A search space: search_spaces/README.md has the grammar.
    trials
        How many configurations; promoting one to a longer run asks for none.
    device_hours
        Instead of --trials: no more configurations once all trials together have used so much device time; what is promising still goes on.
    study
        The folder of the results; on a cluster, a folder that all nodes share.
    resume
        Go on with the study in that folder, and try again what the machine failed. Without a study there, begin one.
    warm_start
        An earlier study: its finished and stopped trials that lie in the space are shown to the sampler first. They are kept: to go on, leave it
        out or name the same.
    journal
        Keep <study>/optuna.journal, which optuna-dashboard shows.
    dry_run
        Print the ladder, look whether all is there that the search needs (images, teachers' files, a place for a trial), and stop.
    """
    from contextlib import ExitStack

    from rkdsearch import plugins
    from rkdsearch.cli.progress import said
    from rkdsearch.cli.space import checked
    from rkdsearch.errors import DiskError
    from rkdsearch.file_lock import one_writer
    from rkdsearch.search import folder
    from rkdsearch.search.warm_start import FILE

    until = _until(trials, device_hours)
    plugins.allow_import(*allow_import)
    searched, built = checked(space)
    said(
        f"{space}: {built} configurations built, all legal; {len(searched.parameters)} parameters"
        " searched over"
    )
    for line in searched.forecast(trials):
        said(line)
    with ExitStack() as held:
        if not dry_run:
            held.enter_context(one_writer(study))
        existed = folder.claim(study, searched, resume=resume, notice=said)
        folder.check_files(study, searched)
        from rkdsearch.execution.placement import available_resources

        held.enter_context(available_resources(searched.resources, address, said))
        if dry_run:
            return
        try:
            _search(
                searched,
                study,
                trials,
                device_hours,
                existed=existed,
                warm_start=warm_start,
                journal=journal,
                address=address,
            )
        except (KeyboardInterrupt, DiskError):
            more = [] if journal else ["--no-journal"]
            more += (
                ["--warm-start", str(warm_start)]
                if warm_start is not None and not (study / FILE).exists()
                else []
            )
            more += ["--address", address] if address else []
            more += [word for package in allow_import for word in ("--allow-import", package)]
            again = shlex.join(
                [
                    "rkdsearch",
                    "tune",
                    str(space),
                    *until.split(),
                    "--study",
                    str(study),
                    "--resume",
                    *more,
                ]
            )
            said(f"stopped; every finished epoch is kept. Go on with: {again}")
            raise


def _search(
    space: "SearchSpace",
    folder: Path,
    trials: int | None,
    device_hours: float | None,
    *,
    existed: bool,
    warm_start: Path | None,
    journal: bool,
    address: str | None,
) -> None:
    """Teachers, then trials, from wherever the study in the folder stands."""
    from rkdsearch.cli.progress import SearchProgress, TeacherProgress, said
    from rkdsearch.execution import teachers
    from rkdsearch.execution.search import run_search
    from rkdsearch.search.folder import describe
    from rkdsearch.search.journal import Journal
    from rkdsearch.search.study import Study
    from rkdsearch.search.teachers import overrides_of
    from rkdsearch.search.warm_start import prepare

    warmed = prepare(folder, warm_start, space, existed=existed)
    if warmed.seen:
        said(
            f"warm start: {len(warmed.seen)} earlier trials are shown to the"
            f" sampler{warmed.left_out}"
        )
    ready, progress = {}, TeacherProgress()
    for step in teachers.prepare(
        folder,
        space,
        teachers.train_and_measure if address is None else teachers.on_cluster(space.resources),
    ):
        progress.update(step)
        if step.measured is not None:
            ready[step.role] = step
            # now: what was measured once is not measured again, whatever happens to the next
            # teacher
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
        warm=warmed.seen,
        journal=book,
    )
    if existed:
        running.reconcile(said)
    if book is not None:
        book.sync(running.trials.values())
    with SearchProgress(running) as watching:
        nothing_to_do = running.done
        if nothing_to_do:
            running.close()
        else:
            run_search(running, address=address, listener=watching.update, notice=said)
        watching.finished(running, nothing_to_do=nothing_to_do)


def _until(trials: int | None, device_hours: float | None) -> str:
    """When to stop asking, as the command line says it."""
    from rkdsearch.errors import RkdError

    if (trials is None) == (device_hours is None):
        raise RkdError(
            "tune: needs exactly one of --trials and --device-hours, got "
            + ("neither" if trials is None else "both")
        )
    if trials is not None and trials < 1:
        raise RkdError(f"--trials must be >= 1, got {trials}")
    if device_hours is not None and not device_hours > 0:
        raise RkdError(f"--device-hours must be > 0, got {device_hours:g}")
    return f"--trials {trials}" if device_hours is None else f"--device-hours {device_hours:g}"

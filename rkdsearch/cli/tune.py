"""`rkdsearch tune`: the main job."""

from pathlib import Path

from rkdsearch.cli.options import Address, AllowImport


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
        Go on with the study in that folder. Without a study there, begin one.
    warm_start
        An earlier study: its finished and stopped trials that lie in the space are shown to the sampler first.
    journal
        Keep <study>/optuna.journal, which optuna-dashboard shows.
    dry_run
        Check everything, print the ladder, and stop before any compute.
    """
    from rkdsearch import plugins
    from rkdsearch.cli.progress import SearchProgress, said, teacher_line
    from rkdsearch.errors import DiskError
    from rkdsearch.search import folder, warm
    from rkdsearch.search.space import SearchSpace

    until = _until(trials, device_hours)
    plugins.allow_import(*allow_import)
    searched = SearchSpace.load(space)
    said(f"{space}: {searched.check()} configurations built, all legal; {len(searched.parameters)} parameters searched over")
    for line in searched.ladder_lines(trials):
        said(line)
    if dry_run:
        return
    existed = folder.claim(study, searched, resume=resume)
    seen = warm.prepare(study, warm_start, searched, existed=existed)
    if seen:
        said(f"warm start: {len(seen)} earlier trials are shown to the sampler")
    ready = {}
    for step in folder.prepare_teachers(study, searched):
        teacher_line(step)
        if step.measured is not None:
            ready[step.role] = step
    folder.describe(study, searched, ready)
    from rkdsearch.search.journal import Journal
    from rkdsearch.search.study import Study
    from rkdsearch.search.tuner import search

    book = Journal(study, searched) if journal else None
    seconds = None if device_hours is None else device_hours * 3600
    running = Study(study, searched, trials, folder.overrides_of(ready), device_seconds=seconds, warm=seen, journal=book)
    if existed:
        running.reconcile()
    if book is not None:
        book.sync(running.trials.values())
    with SearchProgress(running) as progress:
        if running.done:
            running.close()
            progress.finished(running, nothing_to_do=True)
            return
        try:
            search(running, address=address, listener=progress.update, notice=said)
        except (KeyboardInterrupt, DiskError):
            progress.stop()
            said(f"stopped; every finished epoch is kept. Go on with: rkdsearch tune {space} {until} --study {study} --resume")
            raise
        progress.finished(running)


def _until(trials: int | None, device_hours: float | None) -> str:
    """When to stop asking, as the command line says it."""
    from rkdsearch.errors import RkdError

    if (trials is None) == (device_hours is None):
        raise RkdError("tune: needs exactly one of --trials and --device-hours, got " + ("neither" if trials is None else "both"))
    if trials is not None and trials < 1:
        raise RkdError(f"--trials must be >= 1, got {trials}")
    if device_hours is not None and not device_hours > 0:
        raise RkdError(f"--device-hours must be > 0, got {device_hours:g}")
    return f"--trials {trials}" if device_hours is None else f"--device-hours {device_hours:g}"

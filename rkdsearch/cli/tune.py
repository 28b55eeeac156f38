"""`rkdsearch tune`: the main job."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def tune(
    space: Path,
    *,
    trials: int,
    study: Path,
    resume: bool = False,
    address: str | None = None,
    dry_run: bool = False,
    allow_import: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
) -> None:
    """Search a space for the clean-versus-robust Pareto front.

    Parameters
    ----------
    space
        A search space: search_spaces/README.md has the grammar.
    trials
        How many configurations; promoting one to a longer run asks for none.
    study
        The folder of the results; on a cluster, a folder that all nodes share.
    resume
        Go on with the study in that folder. Without a study there, begin one.
    address
        A Ray cluster's address, or `auto`; none given: this machine.
    dry_run
        Check everything, print the ladder, and stop before any compute.
    allow_import
        Packages of your own from which methods and networks may be imported.
    """
    from rkdsearch import plugins
    from rkdsearch.cli.progress import SearchProgress, said, teacher_line
    from rkdsearch.errors import RkdError
    from rkdsearch.search import folder
    from rkdsearch.search.space import SearchSpace

    if trials < 1:
        raise RkdError(f"--trials must be >= 1, got {trials}")
    plugins.allow_import(*allow_import)
    searched = SearchSpace.load(space)
    said(f"{space}: {searched.check()} configurations built, all legal; {len(searched.parameters)} parameters searched over")
    for line in searched.ladder_lines(trials):
        said(line)
    if dry_run:
        return
    existed = folder.claim(study, searched, resume=resume)
    ready = {}
    for step in folder.prepare_teachers(study, searched):
        teacher_line(step)
        if step.measured is not None:
            ready[step.role] = step
    folder.describe(study, searched, ready)
    from rkdsearch.search.study import Study
    from rkdsearch.search.tuner import search

    running = Study(study, searched, trials, folder.overrides_of(ready))
    if existed:
        running.reconcile()
    with SearchProgress(running) as progress:
        if running.done:
            progress.finished(running, nothing_to_do=True)
            return
        try:
            search(running, address=address, listener=progress.update)
        except KeyboardInterrupt:
            progress.stop()
            said(f"stopped; every finished epoch is kept. Go on with: rkdsearch tune {space} --trials {trials} --study {study} --resume")
            raise
        progress.finished(running)

"""`rkdsearch status STUDY`: the state of a search. It reads only."""

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from rkdsearch.cli.options import LocalPath

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from rkdsearch.reporting.traces import Row
    from rkdsearch.results.study import StudyResults

# Lines of each list on one screen.
FRONT, OTHERS, FAILED = 8, 5, 3


def status(
    study: LocalPath, *, all_trials: Annotated[bool, Parameter(name="--all")] = False
) -> None:
    """Print the trials of a study by status, its cost, its hypervolume and its front so far.

    Parameters
    ----------
    study
        Folder of the study; the search may be running, and the folder may be a copy.
    all_trials
        List every finished and failed trial; default: those that fit on a screen.
    """
    from rich.console import Console

    from rkdsearch.results.cells import records
    from rkdsearch.results.study import read_study

    found = read_study(study)
    # neither a name nor an error is markup: their author may be a stranger
    console = Console(soft_wrap=False, highlight=False, markup=False, emoji=False)
    screen = _Screen(found, console)
    screen.headline()
    front, others, failed = records(found.front), _others(found), _failed(found)
    shown = front if all_trials else _spread(front, FRONT)
    screen.table("the front so far (validation)", "on the front", front, shown, epochs=True)
    screen.no_front(others)
    screen.settings(shown)
    shown = others if all_trials else others[:OTHERS]
    screen.table("finished, not on the front (validation)", "finished", others, shown)
    screen.left_out()
    screen.errors(failed, failed if all_trials else failed[-FAILED:])


class _Screen:
    """The parts of the screen, each printed by a method."""

    def __init__(self, found: "StudyResults", console: "Console") -> None:
        from rkdsearch.results.objectives import OBJECTIVES, USUAL

        self._found = found
        self._console = console
        self._further = [OBJECTIVES[name] for name in found.objectives if name not in USUAL]

    def headline(self) -> None:
        """Name, trials by state, cost and hypervolume."""
        from rich.text import Text

        from rkdsearch.pace import duration
        from rkdsearch.results.cost import cost_of

        found, cost = self._found, cost_of(self._found.trials)
        self._console.print(Text.assemble((_safe(found.name), "bold"), f"  {_state(found)}"))
        if waiting := _enqueued(found):
            then = "" if found.writer else " when `rkdsearch tune --resume` goes on"
            self._console.print(f"{waiting} enqueued: trained before further proposals{then}")
        device, span = duration(cost.device_seconds), duration(cost.span_seconds)
        self._console.print(
            f"device time {device} in a span of {span}, hypervolume {found.volume:.4f}"
        )

    def table(
        self,
        title: str,
        what: str,
        rows: "Sequence[Row]",
        shown: "Sequence[Row]",
        *,
        epochs: bool = False,
    ) -> None:
        """A table of the rows that are shown, and how many are not; nothing without rows."""
        from rich.table import Table

        if not rows:
            return
        heads = ("trial", "clean %", "robust %", *(known.title for known in self._further))
        more = ("best epoch",) if epochs else ()
        table = Table(*heads, "student", *more, title=title, title_justify="left")
        for row in shown:
            best = f"{row['metric.best_epoch']} of {row['fidelity.of_epochs']}"
            table.add_row(*self._cells(row), *([best] if epochs else []))
        self._console.print(table)
        self._more(rows, shown, what)

    def no_front(self, others: "Sequence[Row]") -> None:
        """The reason why no finished trial is on the front."""
        if others and self._found.front.empty:
            self._console.print(f"there is no front: {self._found.why_no_front}", soft_wrap=True)

    def settings(self, rows: "Sequence[Row]") -> None:
        """Hyperparameters, a line each: a column beside the others would be one word wide."""
        from rkdsearch.reporting.traces import settings

        for row in rows:
            if said := settings(row):  # a single run has none
                self._console.print(f"{_safe(row['trial_id'])}: {_safe(said)}", soft_wrap=True)

    def left_out(self) -> None:
        """Trials that flags keep off the front, flags of test results, bad files."""
        for line in _left_out(self._found):
            self._console.print(_safe(line), soft_wrap=True)

    def errors(self, rows: "Sequence[Row]", shown: "Sequence[Row]") -> None:
        """Failed trials with their reasons, and how many are not shown."""
        for row in shown:
            error = _safe(row["error"] or "no reason was recorded")
            self._console.print(f"failed: {_safe(row['trial_id'])}: {error}")
        self._more(rows, shown, "failed")

    def _more(self, rows: "Sequence[Row]", shown: "Sequence[Row]", what: str) -> None:
        if len(shown) < len(rows):
            self._console.print(f"and {len(rows) - len(shown)} more {what}: --all lists them")

    def _cells(self, row: "Row") -> tuple[str, ...]:
        from rkdsearch.reporting.traces import method_of, percent
        from rkdsearch.results.cells import CLEAN, ROBUST
        from rkdsearch.results.chance import at_chance
        from rkdsearch.results.front import LENGTH

        student = _safe(row["label"] or method_of(row))
        student += " RECONSTRUCTED" if row["reconstructed"] else ""
        student += " AT CHANCE" if at_chance(row, self._found.chance) else ""
        student += f" OF {row[LENGTH]} EPOCHS" if row["trial_id"] in self._found.shorter else ""
        return (
            _safe(row["trial_id"]),
            percent(row[CLEAN]),
            percent(row[ROBUST]) + _seeds(row),
            *(known.shown(row[known.column]) for known in self._further),
            student,
        )


def _safe(text: str) -> str:
    """One line without control characters: its author may be a stranger."""
    from rkdsearch.cli.console import harmless

    return " ".join(harmless(text).split("\n"))


def _others(found: "StudyResults") -> "list[dict[str, Any]]":
    """Finished configurations that are not on the front, the most robust first."""
    from rkdsearch.results.cells import ROBUST, records
    from rkdsearch.results.front import configurations
    from rkdsearch.results.states import Status

    table = configurations(found.trials)
    finished = table[table["status"] == Status.FINISHED]
    others = finished[~finished["trial_id"].isin(found.front["trial_id"])]
    return records(others.sort_values(ROBUST, ascending=False, kind="stable"))


def _left_out(found: "StudyResults") -> "Iterator[str]":
    """Lines about trials that flags keep off the front, flags of test results, bad files."""
    from rkdsearch.results.cells import records
    from rkdsearch.results.flags import signs
    from rkdsearch.results.front import kept_off

    for row in kept_off(found.trials):
        named = f"{row['trial_id']} ({row['label']})" if row["label"] else row["trial_id"]
        yield f"kept off the front: {named}: {'; '.join(row['signs'])}"
    flagged = dict.fromkeys(test["trial_id"] for test in records(found.tests) if signs(test))
    if flagged:
        names = ", ".join(flagged)
        yield f"flagged on test images, which moves nothing: {names}; the report says why"
    for path in found.damaged:
        yield f"left out, because it cannot be read: {path}"


def _failed(found: "StudyResults") -> "list[dict[str, Any]]":
    from rkdsearch.results.cells import records
    from rkdsearch.results.states import Status

    return records(found.trials[found.trials["status"] == Status.FAILED])


def _spread(rows: "Sequence[Row]", most: int) -> "Sequence[Row]":
    """At most so many rows, evenly chosen, both ends among them."""
    if len(rows) <= most:
        return rows
    return [rows[round(n * (len(rows) - 1) / (most - 1))] for n in range(most)]


def _seeds(row: "Row") -> str:
    """Spread of a robust accuracy over replicates, and how many of them failed."""
    from rkdsearch.reporting.traces import percent

    if not row["seeds"]:
        return ""
    failed = f", {row['failed']} failed" if row["failed"] else ""
    if row["robust_sd"] is None:
        return f" of 1 seed{failed}"
    return f" ± {percent(row['robust_sd'])} of {row['seeds']} seeds{failed}"


def _enqueued(study: "StudyResults") -> int:
    """Number of configurations that were added by hand and have no trial yet."""
    from rkdsearch.results.cells import parse
    from rkdsearch.search.queue import NOTE, number_waiting

    noted = (parse(notes).get(NOTE) for notes in study.trials["notes"].dropna())
    return number_waiting(study.folder, {str(name) for name in noted if name})


def _state(study: "StudyResults") -> str:
    """Trials by state, and below them the process that works on the study, or what it left."""
    from rkdsearch.results.cost import counted
    from rkdsearch.results.states import Status

    count = counted(study.trials, running=study.writer is not None)
    unfinished = int(study.trials["status"].isin([Status.RUNNING, Status.PAUSED]).sum())
    if study.writer is not None:
        return f"{count}\nit is being {_safe(study.writer)}"
    if unfinished:
        return (
            f"{count}\nstopped, no process works on it: {unfinished} trials are not over;"
            " `rkdsearch tune` goes on with --resume, `rkdsearch train` when it is repeated"
        )
    return count

"""`rkdsearch status STUDY`: the state of a search. It reads only."""

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from rkdsearch.cli.options import LocalPath

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
    from rich.table import Table
    from rich.text import Text

    from rkdsearch.pace import duration
    from rkdsearch.reporting.traces import Row, method_of, percent, settings
    from rkdsearch.results.cells import CLEAN, ROBUST, records
    from rkdsearch.results.chance import at_chance
    from rkdsearch.results.cost import cost_of
    from rkdsearch.results.front import LENGTH, of_full_length
    from rkdsearch.results.objectives import OBJECTIVES, USUAL
    from rkdsearch.results.study import read_study

    def cells(row: Row) -> tuple[str, ...]:
        student = _safe(row["label"] or method_of(row))
        student += " RECONSTRUCTED" if row["reconstructed"] else ""
        student += " AT CHANCE" if at_chance(row, found.chance) else ""
        student += f" OF {row[LENGTH]} EPOCHS" if row["trial_id"] in shorter else ""
        return (
            _safe(row["trial_id"]),
            percent(row[CLEAN]),
            percent(row[ROBUST]) + _seeds(row),
            *(known.shown(row[known.column]) for known in further),
            student,
        )

    def tell(rows: "Sequence[Row]", shown: "Sequence[Row]", what: str) -> None:
        if len(shown) < len(rows):
            console.print(f"and {len(rows) - len(shown)} more {what}: --all lists them")

    def listed(
        title: str,
        what: str,
        rows: "Sequence[Row]",
        shown: "Sequence[Row]",
        *,
        epochs: bool = False,
    ) -> None:
        if not rows:
            return
        heads = ("trial", "clean %", "robust %", *(known.title for known in further), "student")
        more = ("best epoch",) if epochs else ()
        table = Table(*heads, *more, title=title, title_justify="left")
        for row in shown:
            best = f"{row['metric.best_epoch']} of {row['fidelity.of_epochs']}"
            table.add_row(*cells(row), *([best] if epochs else []))
        console.print(table)
        tell(rows, shown, what)

    found = read_study(study)
    further = [OBJECTIVES[name] for name in found.objectives if name not in USUAL]
    cost = cost_of(found.trials)
    front, others, failed = records(found.front), _others(found), _failed(found)
    ended = [*front, *others]
    shorter = {
        row["trial_id"]
        for row, whole in zip(ended, of_full_length(ended), strict=True)
        if not whole
    }
    # neither a name nor an error is markup: their author may be a stranger
    console = Console(soft_wrap=False, highlight=False, markup=False, emoji=False)
    console.print(Text.assemble((_safe(found.name), "bold"), f"  {_state(found)}"))
    spent = (
        f"device time {duration(cost.device_seconds)} in a span of {duration(cost.span_seconds)}"
    )
    console.print(f"{spent}, hypervolume {found.volume:.4f}")
    shown = front if all_trials else _spread(front, FRONT)
    listed("the front so far (validation)", "on the front", front, shown, epochs=True)
    for row in shown:  # as lines: a column beside the others would be one word wide
        console.print(f"{_safe(row['trial_id'])}: {_safe(settings(row))}", soft_wrap=True)
    shown = others if all_trials else others[:OTHERS]
    listed("finished, not on the front (validation)", "finished", others, shown)
    for line in _left_out(found):
        console.print(_safe(line), soft_wrap=True)
    shown = failed if all_trials else failed[-FAILED:]
    for row in shown:
        console.print(
            f"failed: {_safe(row['trial_id'])}: {_safe(row['error'] or 'no reason was recorded')}"
        )
    tell(failed, shown, "failed")


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

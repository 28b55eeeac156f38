"""`rkdsearch status STUDY`: the state of a search. It reads only."""

from pathlib import Path


def status(study: Path) -> None:
    """Print the trials of a study by status, its cost, its hypervolume and its front so far.

    Parameters
    ----------
    study
        Folder of the study; the search may be running, and the folder may be a copy.
    """
    from rich.console import Console
    from rich.markup import escape as without_markup
    from rich.table import Table

    from rkdsearch.pace import duration
    from rkdsearch.report.traces import Row, method_of, percent, settings
    from rkdsearch.results.cells import CLEAN, ROBUST, records
    from rkdsearch.results.cost import cost_of, counted
    from rkdsearch.results.front import configurations
    from rkdsearch.results.objectives import OBJECTIVES, USUAL
    from rkdsearch.results.states import Status
    from rkdsearch.results.study import read_study

    def escape(text: str) -> str:
        # Labels and errors may come from a stranger: neither markup nor control characters may
        # reach the terminal.
        return without_markup("".join(letter if letter.isprintable() else " " for letter in text))

    def cells(row: Row) -> tuple[str, ...]:
        spread = (
            ""
            if not row["seeds"]
            else (
                " of 1 seed"
                if row["robust_sd"] is None
                else f" ± {percent(row['robust_sd'])} of {row['seeds']} seeds"
            )
        )
        spread += f", {row['failed']} failed" if row["failed"] else ""
        student = escape(row["label"] or method_of(row)) + (
            " RECONSTRUCTED" if row["reconstructed"] else ""
        )
        return (
            escape(row["trial_id"]),
            percent(row[CLEAN]),
            percent(row[ROBUST]) + spread,
            *(known.shown(row[known.column]) for known in further),
            student,
        )

    found = read_study(study)
    further = [OBJECTIVES[name] for name in found.objectives if name not in USUAL]
    cost = cost_of(found.trials)
    front = records(found.front)
    finished = (
        configurations(found.trials)
        .query(f"status == '{Status.FINISHED}'")
        .sort_values(ROBUST, ascending=False, kind="stable")
    )
    others = [
        row for row in records(finished) if row["trial_id"] not in {on["trial_id"] for on in front}
    ]
    console = Console(soft_wrap=False, highlight=False)
    console.print(f"[bold]{escape(found.name)}[/]  {counted(found.trials)}")
    spent = (
        f"device time {duration(cost.device_seconds)} in a span of {duration(cost.span_seconds)}"
    )
    console.print(f"{spent}, hypervolume {found.volume:.4f}")
    heads = ("trial", "clean %", "robust %", *(known.title for known in further), "student")
    if front:
        table = Table(
            *heads, "best epoch", title="the front so far (validation)", title_justify="left"
        )
        for row in front:
            table.add_row(*cells(row), f"{row['metric.best_epoch']} of {row['fidelity.of_epochs']}")
        console.print(table)
        for row in front:  # as lines: a column beside the others would be one word wide
            console.print(f"{escape(row['trial_id'])}: {escape(settings(row))}", soft_wrap=True)
    if others:
        table = Table(*heads, title="finished, not on the front (validation)", title_justify="left")
        for row in others:
            table.add_row(*cells(row))
        console.print(table)
    for row in records(found.trials[found.trials["status"] == Status.FAILED]):
        console.print(
            f"failed: {escape(row['trial_id'])}: {escape(row['error'] or 'no reason was recorded')}"
        )
    for path in found.damaged:
        console.print(f"left out, because it cannot be read: {escape(str(path))}")

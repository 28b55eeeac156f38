"""`rkdsearch status STUDY`: how far a search is. Reads, never writes."""

from pathlib import Path


def status(study: Path) -> None:
    """Print a study's trials by status, its front so far, its hypervolume and its cost.

    Args:
        study: the study's folder; the search may be running, or the folder a copy.
    """
    from rich.console import Console
    from rich.markup import escape as without_markup
    from rich.table import Table

    from rkdsearch.report.traces import duration, percent, settings, title
    from rkdsearch.results import summary

    def escape(text: str) -> str:
        # labels and errors may be a stranger's: neither markup nor control characters reach the terminal
        return without_markup("".join(letter if letter.isprintable() else " " for letter in text))

    found = summary.read(study)
    cost = summary.cost(found.trials)
    front = summary.records(found.front)
    console = Console(soft_wrap=False, highlight=False)
    counts = ", ".join(f"{count} {name}" for name, count in cost.trials.items()) or "none yet"
    console.print(f"[bold]{escape(found.name)}[/]  {len(found.trials)} trials: {counts}")
    spent = f"device time {duration(cost.device_seconds)} in a span of {duration(cost.span_seconds)}"
    console.print(f"{spent}, hypervolume {summary.volume(found.front):.4f}")
    if front:
        heads = ("clean %", "robust %", "best epoch", "student", "what was searched")
        table = Table(*heads, title="the front so far (validation)", title_justify="left")
        for row in front:
            epochs = f"{row['metric.best_epoch']} of {row['fidelity.of_epochs']}"
            student = escape(title(row)) + (" RECONSTRUCTED" if row["reconstructed"] else "")
            table.add_row(percent(row[summary.CLEAN]), percent(row[summary.ROBUST]), epochs, student, escape(settings(row)))
        console.print(table)
    for row in summary.records(found.trials[found.trials["status"] == "failed"]):
        console.print(f"failed: {escape(row['trial_id'])}: {escape(row['error'] or 'no reason was recorded')}")
    for path in found.damaged:
        console.print(f"left out, cannot be read: {escape(str(path))}")

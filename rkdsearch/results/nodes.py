"""The nodes of a search: what each of them trained, and what failed there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from rkdsearch.errors import Failure
from rkdsearch.results.cells import records

# Failures that the machine causes; the others are a setting's own.
OF_MACHINES = (Failure.MEMORY, Failure.WORKER, Failure.FILES)


@dataclass(frozen=True)
class Stretch:
    """Consecutive epochs of one trial on one node."""

    node: str
    trial_id: str
    start: datetime
    end: datetime
    epochs: int


def stretches(epochs: pd.DataFrame) -> list[Stretch]:
    """The stretches of all trials, from rows of `epochs/` in their order; unknown nodes left out.

    A trial that waits on one node, at a rung or after an interruption, is one stretch there.
    """
    known = epochs.dropna(subset=["node", "finished"])
    changed = known[["trial_id", "node"]].ne(known[["trial_id", "node"]].shift()).any(axis=1)
    begun = known["finished"] - pd.to_timedelta(known["seconds"].fillna(0.0), unit="s")
    grouped = known.assign(begun=begun).groupby(changed.cumsum())
    found = grouped.agg(
        node=("node", "first"),
        trial_id=("trial_id", "first"),
        start=("begun", "first"),
        end=("finished", "last"),
        epochs=("node", "size"),
    )
    return [Stretch(**{str(name): value for name, value in row.items()}) for row in records(found)]


def by_node(found: Iterable[Stretch], trials: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a node, by its first epoch: trials, epochs, moves away, failures of the machine.

    A trial moves away where its next epoch was trained on another node.
    """
    rows: dict[str, dict[str, Any]] = {}
    before: dict[str, Stretch] = {}
    for stretch in sorted(found, key=lambda s: s.start):
        new = {"trials": set(), "epochs": 0, "moved": 0, "failed": 0}
        row = rows.setdefault(
            stretch.node, {"node": stretch.node, "first": stretch.start, "last": stretch.end, **new}
        )
        row["trials"].add(stretch.trial_id)
        row["epochs"] += stretch.epochs
        row["last"] = max(row["last"], stretch.end)
        if stretch.trial_id in before:
            rows[before[stretch.trial_id].node]["moved"] += 1
        before[stretch.trial_id] = stretch
    for trial in machine_failures(trials):
        if trial["run.node"] in rows:
            rows[trial["run.node"]]["failed"] += 1
    return [{**row, "trials": len(row["trials"])} for row in rows.values()]


def machine_failures(trials: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The trials that a machine failed, not their setting."""
    return [row for row in trials if row["failure"] in OF_MACHINES]

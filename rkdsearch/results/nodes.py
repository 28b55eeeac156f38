"""The nodes of a search: what each of them trained, and what failed there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from rkdsearch.errors import MACHINE_FAILURES
from rkdsearch.results.cells import records

# A longer time without an epoch, two epochs' length aside, is a pause: a rung, a lost driver.
PAUSE_SECONDS = 30.0


@dataclass(frozen=True)
class NodeStay:
    """Consecutive epochs of one trial on one node, without a pause."""

    node: str
    trial_id: str
    start: datetime
    end: datetime
    epochs: int


def node_stays(epochs: pd.DataFrame) -> list[NodeStay]:
    """Stays of all trials, from rows of `epochs/` in their order; unknown nodes left out."""
    known = epochs.dropna(subset=["node", "finished"])
    changed = known[["trial_id", "node"]].ne(known[["trial_id", "node"]].shift()).any(axis=1)
    seconds = known["seconds"].fillna(0.0)
    begun = known["finished"] - pd.to_timedelta(seconds, unit="s")
    waited = (begun - known["finished"].shift()).dt.total_seconds()
    changed |= waited > PAUSE_SECONDS + 2 * seconds
    grouped = known.assign(begun=begun).groupby(changed.cumsum())
    found = grouped.agg(
        node=("node", "first"),
        trial_id=("trial_id", "first"),
        start=("begun", "first"),
        end=("finished", "last"),
        epochs=("node", "size"),
    )
    return [NodeStay(**{str(name): value for name, value in row.items()}) for row in records(found)]


def by_node(found: Iterable[NodeStay], trials: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a node, by its first epoch: trials, epochs, moves away, failures of the machine.

    A trial moves away where its next epoch was trained on another node.
    """
    rows: dict[str, dict[str, Any]] = {}
    found = sorted(found, key=lambda s: s.start)
    for stay in found:
        new = {"trials": set(), "epochs": 0, "moved": 0, "failed": 0}
        row = rows.setdefault(
            stay.node, {"node": stay.node, "first": stay.start, "last": stay.end, **new}
        )
        row["trials"].add(stay.trial_id)
        row["epochs"] += stay.epochs
        row["last"] = max(row["last"], stay.end)
    for stay in moves(found):
        rows[stay.node]["moved"] += 1
    for trial in machine_failures(trials):
        if trial["run.node"] in rows:
            rows[trial["run.node"]]["failed"] += 1
    return [{**row, "trials": len(row["trials"])} for row in rows.values()]


def moves(found: Iterable[NodeStay]) -> list[NodeStay]:
    """Stays whose trial was continued by another node."""
    moved: list[NodeStay] = []
    before: dict[str, NodeStay] = {}
    for stay in sorted(found, key=lambda s: s.start):
        earlier = before.get(stay.trial_id)
        if earlier is not None and earlier.node != stay.node:
            moved.append(earlier)
        before[stay.trial_id] = stay
    return moved


def machine_failures(trials: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The trials that a machine failed, not their setting."""
    return [row for row in trials if row["failure"] in MACHINE_FAILURES]

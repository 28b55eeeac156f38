"""Counts of a study: its cost, its methods, and how many trials survived each rung."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rkdsearch.pace import number_of
from rkdsearch.results.cells import CLEAN, PAIR, ROBUST, methods_of, records
from rkdsearch.results.front import kept_off, of_full_length
from rkdsearch.results.states import Decision, Origin, Status


@dataclass(frozen=True)
class Cost:
    """Trials by status, and their summed times. `span_seconds`: first start to last record."""

    trials: dict[str, int]
    device_seconds: float
    trial_seconds: float
    span_seconds: float


def cost_of(trials: pd.DataFrame) -> Cost:
    """The cost of these trials."""
    counts = trials["status"].value_counts()
    order = (Status.FINISHED, Status.STOPPED, Status.FAILED, Status.RUNNING, Status.PAUSED)
    span = (trials["run.updated"].max() - trials["run.started"].min()).total_seconds()
    return Cost(
        trials={status.value: int(counts[status]) for status in order if status in counts},
        device_seconds=float(trials["run.device_seconds"].sum()),
        trial_seconds=float(trials["run.wall_seconds"].sum()),
        span_seconds=0.0 if pd.isna(span) else float(span),
    )


def states_of(trials: pd.DataFrame, *, running: bool) -> dict[str, int]:
    """Number of these trials by state. Without a `running` search none of them is running."""
    known = cost_of(trials).trials
    count = known.pop(Status.RUNNING.value, 0)
    # Studies of earlier versions do not say who waits.
    waits = (trials["status"] == Status.RUNNING) & trials["placed"].isna()
    waiting = int(waits.sum()) if running and trials["placed"].notna().any() else 0
    known[Status.RUNNING.value if running else "interrupted"] = count - waiting
    known["waiting for a place"] = waiting
    return {state: number for state, number in known.items() if number}


def counted(trials: pd.DataFrame, *, running: bool) -> str:
    """The number of trials by state, and of replicates, as a sentence's part."""
    replicate = trials["origin"] == Origin.REPLICATE
    own = trials[~replicate]
    states = states_of(own, running=running).items()
    counts = ", ".join(f"{count} {state}" for state, count in states)
    return (
        number_of(len(own), "trial")
        + (f" ({counts})" if counts else "")
        + (f" and {replicates_of(trials)} replicates" if replicate.any() else "")
    )


def replicates_of(trials: pd.DataFrame) -> str:
    """The number of replicates, as `1 of 14` where the others have not ended; empty for none."""
    replicates = trials[trials["origin"] == Origin.REPLICATE]
    ended, of_all = int((replicates["status"] != Status.RUNNING).sum()), len(replicates)
    if not of_all:
        return ""
    return f"{of_all}" if ended == of_all else f"{ended} of {of_all}"


def by_method(
    trials: pd.DataFrame, front: pd.DataFrame, searched: Collection[str] | None = None
) -> pd.DataFrame:
    """One row a method, most robust first: what it was given, and the best that came of it.

    `finished` counts trials of full length. `clean` and `robust` are maxima over their single runs,
    without those that a flag keeps off the front: replicates would raise them. `replicated_robust`
    is the best mean over the replicates of one configuration, over `replicates` runs of all.
    `short` marks a method with less than half of an equal share of the device time that searched
    trials took: what it lacks on the front says little about it. Only `searched` methods have a
    share, all where it is None.
    """
    own = trials[trials["origin"] != Origin.REPLICATE]
    table = own.assign(
        method=methods_of(own),
        done=np.array(of_full_length(records(own)), dtype=bool),
        asked=own["origin"] == Origin.SEARCH,
    )
    flagged = table["trial_id"].isin([row["trial_id"] for row in kept_off(trials)])
    table["on_front"] = table["trial_id"].isin(front["trial_id"])
    table["searched_seconds"] = table["run.device_seconds"].where(table["asked"], 0.0)
    table[list(PAIR)] = table[list(PAIR)].where(table["done"] & ~flagged)
    table["reconstructed"] = table["reconstructed"].fillna(False)
    grouped = table.groupby("method", sort=True).agg(
        trials=("trial_id", "size"),
        searched=("asked", "sum"),
        finished=("done", "sum"),
        on_front=("on_front", "sum"),
        clean=(CLEAN, "max"),
        robust=(ROBUST, "max"),
        device_seconds=("run.device_seconds", "sum"),
        searched_seconds=("searched_seconds", "sum"),
        reconstructed=("reconstructed", "any"),
    )
    asked = np.array([searched is None or method in searched for method in grouped.index])
    share = grouped["searched_seconds"].sum() / max(1, asked.sum())
    grouped["short"] = (grouped["searched_seconds"] < share / 2) & asked
    grouped = grouped.join(_replicated(trials)).astype({"replicates": "Int64"})
    grouped["replicates"] = grouped["replicates"].fillna(0)
    return grouped.reset_index().sort_values(
        ["robust", "method"], ascending=[False, True], kind="stable", ignore_index=True
    )


def _replicated(trials: pd.DataFrame) -> pd.DataFrame:
    """Replicates of each method, and the best mean robust accuracy of one configuration's."""
    again = trials[(trials["origin"] == Origin.REPLICATE) & (trials["status"] == Status.FINISHED)]
    again = again.assign(method=methods_of(again))
    means = again.groupby(["method", "ordinal"])[ROBUST].mean().groupby("method").max()
    counts = again.groupby("method").size()
    return pd.DataFrame({"replicates": counts, "replicated_robust": means}, dtype=float)


def survival(rungs: pd.DataFrame) -> pd.DataFrame:
    """One row a rung: trials that reached it, their last decisions there, best accuracies there."""
    # paused first, promoted later: promoted
    last = rungs.drop_duplicates(["trial_id", "epochs"], keep="last")
    best = last.groupby("epochs").agg(
        validation_attack_steps=("validation_attack_steps", "max"),
        reached=("trial_id", "size"),
        clean=("clean_accuracy", "max"),
        robust=("robust_accuracy", "max"),
    )
    decisions = pd.crosstab(last["epochs"], last["decision"])
    for decision in Decision:
        best[decision.value] = decisions.get(decision.value, 0)
    return best.reset_index()

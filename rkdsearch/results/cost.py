"""Counts of a study: its cost, its methods, and how many trials survived each rung."""

from dataclasses import dataclass

import pandas as pd

from rkdsearch.results.cells import CLEAN, PAIR, ROBUST, methods_of
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


def counted(trials: pd.DataFrame) -> str:
    """The number of trials by status, and of replicates, as a sentence's part."""
    own = trials[trials["origin"] != Origin.REPLICATE]
    known = cost_of(own).trials
    # Studies of earlier versions do not say who waits.
    waits = (own["status"] == Status.RUNNING) & own["placed"].isna()
    waiting = int(waits.sum()) if own["placed"].notna().any() else 0
    if waiting:
        known[Status.RUNNING.value] -= waiting
        known["waiting for a place"] = waiting
    counts = ", ".join(f"{count} {status}" for status, count in known.items() if count)
    replicates = len(trials) - len(own)
    return (
        f"{len(own)} trials"
        + (f" ({counts})" if counts else "")
        + (f" and {replicates} replicates" if replicates else "")
    )


def by_method(trials: pd.DataFrame, front: pd.DataFrame) -> pd.DataFrame:
    """One row a method, most robust first: counts, best accuracies of finished trials, device time.

    Replicates are left out: more runs of one setting would raise a method's maximum.
    """
    trials = trials[trials["origin"] != Origin.REPLICATE]
    table = trials.assign(method=methods_of(trials), done=trials["status"] == Status.FINISHED)
    table["on_front"] = table["trial_id"].isin(front["trial_id"])
    table[list(PAIR)] = table[list(PAIR)].where(table["done"])
    table["reconstructed"] = table["reconstructed"].fillna(False)
    grouped = table.groupby("method", sort=True).agg(
        trials=("trial_id", "size"),
        finished=("done", "sum"),
        on_front=("on_front", "sum"),
        clean=(CLEAN, "max"),
        robust=(ROBUST, "max"),
        device_seconds=("run.device_seconds", "sum"),
        reconstructed=("reconstructed", "any"),
    )
    return grouped.reset_index().sort_values(
        ["robust", "method"], ascending=[False, True], kind="stable", ignore_index=True
    )


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

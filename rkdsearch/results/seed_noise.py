"""Seed noise: deviations of accuracies over training seeds, and selection bias of single runs."""

from dataclasses import dataclass

import pandas as pd

from rkdsearch.results.cells import CLEAN, ROBUST
from rkdsearch.results.states import Origin, Status


def replicated(trials: pd.DataFrame) -> pd.DataFrame:
    """One row a replicated configuration, by ordinal: seeds, means and sample deviations over them.

    `failed` counts its failed replicates, which are in no mean. `clean_bias` and `robust_bias` are
    the selection bias: accuracy of the run that selected the configuration minus the mean. They are
    null for baselines, which no result selected.
    """
    finished = trials[trials["status"] == Status.FINISHED]
    replicate = trials["origin"] == Origin.REPLICATE
    failed = trials[replicate & (trials["status"] == Status.FAILED)].groupby("ordinal").size()
    groups = finished[finished["origin"] == Origin.REPLICATE].groupby("ordinal")
    table = groups.agg(
        seeds=("trial_id", "size"),
        clean=(CLEAN, "mean"),
        clean_sd=(CLEAN, "std"),
        robust=(ROBUST, "mean"),
        robust_sd=(ROBUST, "std"),
    )
    own = finished[finished["origin"] != Origin.REPLICATE]
    selecting = own.drop_duplicates("ordinal").set_index("ordinal").reindex(table.index)
    best = selecting[[CLEAN, ROBUST]].where(selecting["origin"] != Origin.BASELINE)
    return table.assign(
        failed=failed.reindex(table.index, fill_value=0),
        clean_bias=best[CLEAN] - table["clean"],
        robust_bias=best[ROBUST] - table["robust"],
    )


@dataclass(frozen=True)
class SeedNoise:
    """Pooled sample deviations over training seeds, and mean selection biases.

    `failed` replicates are in no mean. Baselines have no selection bias.
    """

    configurations: int
    runs: int
    failed: int
    clean_sd: float | None
    robust_sd: float | None
    clean_bias: float | None
    robust_bias: float | None


def seed_noise(trials: pd.DataFrame) -> SeedNoise | None:
    """Seed noise over all replicated configurations; None where nothing was replicated.

    Deviations are None where each has one replicate; biases are None where all are baselines.
    """
    table = replicated(trials)
    if table.empty:
        return None
    free = table["seeds"] - 1

    def pooled(deviation: str) -> float | None:
        return (
            float(((free * table[deviation].fillna(0) ** 2).sum() / free.sum()) ** 0.5)
            if free.sum()
            else None
        )

    bias = table[["clean_bias", "robust_bias"]].dropna().mean()
    failed = (trials["origin"] == Origin.REPLICATE) & (trials["status"] == Status.FAILED)
    return SeedNoise(
        configurations=len(table),
        runs=int(table["seeds"].sum()),
        failed=int(failed.sum()),
        clean_sd=pooled("clean_sd"),
        robust_sd=pooled("robust_sd"),
        clean_bias=None if pd.isna(bias["clean_bias"]) else float(bias["clean_bias"]),
        robust_bias=None if pd.isna(bias["robust_bias"]) else float(bias["robust_bias"]),
    )

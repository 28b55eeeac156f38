"""Seed noise: deviations of accuracies over training seeds, and selection gaps of single runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rkdsearch.results.cells import CLEAN, ROBUST
from rkdsearch.results.intervals import pooled_variance
from rkdsearch.results.states import Origin, Status


def replicated(trials: pd.DataFrame) -> pd.DataFrame:
    """One row a replicated configuration, by ordinal: seeds, means and sample deviations over them.

    `failed` counts its failed replicates, which are in no mean. `clean_gap` and `robust_gap` are
    the accuracy of its first run minus the mean. Where a search chose it (`selected`) that is the
    selection gap: selection bias and the effect of another seed together. Of a baseline, which no
    result selected, it is the seed's effect alone.
    """
    # rows of few columns are selected in a tenth of the time
    trials = trials[["trial_id", "ordinal", "origin", "status", CLEAN, ROBUST]]
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
    first = own.drop_duplicates("ordinal").set_index("ordinal").reindex(table.index)
    return table.assign(
        failed=failed.reindex(table.index, fill_value=0),
        selected=first["origin"] != Origin.BASELINE,
        clean_gap=first[CLEAN] - table["clean"],
        robust_gap=first[ROBUST] - table["robust"],
    )


@dataclass(frozen=True)
class SeedNoise:
    """Differences between runs of one configuration with other training seeds, fractions of 1.

    `clean_sd`, `robust_sd`: pooled sample deviations within configurations, which a single new run
    has. `clean_residual`, `robust_residual`: what is left of them where seeds are blocks, because
    all configurations have the same: residual deviations, with `freedom`, of a model that adds a
    configuration's part and a seed's. Differences between configurations are judged by these.
    `clean_gap`, `robust_gap`: mean selection gaps; `baseline_clean_gap`, `baseline_robust_gap`:
    mean gaps of baselines. `failed` replicates are in no mean.
    """

    configurations: int
    runs: int
    failed: int
    seeds: tuple[int, ...]
    clean_sd: float | None
    robust_sd: float | None
    clean_residual: float | None
    robust_residual: float | None
    freedom: int
    clean_gap: float | None
    robust_gap: float | None
    baseline_clean_gap: float | None
    baseline_robust_gap: float | None


def seed_noise(trials: pd.DataFrame) -> SeedNoise | None:
    """Seed noise over all replicated configurations; None where nothing was replicated.

    Deviations are None where each has one replicate, residuals where the same seeds were not given
    to several; gaps are None where there is no such configuration.
    """
    table = replicated(trials)
    if table.empty:
        return None
    replicate = trials["origin"] == Origin.REPLICATE
    runs = trials[replicate & (trials["status"] == Status.FINISHED)]
    residuals, freedom = _residuals(runs)
    gaps = {
        f"{prefix}{name}": _mean(table.loc[table["selected"] == selected, name])
        for prefix, selected in (("", True), ("baseline_", False))
        for name in ("clean_gap", "robust_gap")
    }
    return SeedNoise(
        configurations=len(table),
        runs=len(runs),
        failed=int((replicate & (trials["status"] == Status.FAILED)).sum()),
        seeds=tuple(sorted({int(seed) for seed in runs["run.seed"].dropna()})),
        clean_sd=_pooled(runs, CLEAN),
        robust_sd=_pooled(runs, ROBUST),
        clean_residual=residuals.get(CLEAN),
        robust_residual=residuals.get(ROBUST),
        freedom=freedom,
        **gaps,
    )


def _pooled(runs: pd.DataFrame, column: str) -> float | None:
    variance, freedom = pooled_variance(
        [list(group) for _, group in runs.groupby("ordinal")[column]]
    )
    return float(variance**0.5) if freedom else None


def _residuals(runs: pd.DataFrame) -> tuple[dict[str, float], int]:
    """Residual deviation of each accuracy, and the degrees of freedom; none, and 0, without any."""
    known = runs[runs["run.seed"].notna()]
    ordinals, seeds = (list(known[column].astype(int)) for column in ("ordinal", "run.seed"))
    found, freedom = {}, 0
    for column in (CLEAN, ROBUST):
        residual, freedom = residual_variance(ordinals, seeds, list(known[column].astype(float)))
        found[column] = residual**0.5
    return (found, freedom) if freedom else ({}, 0)


def residual_variance(
    configurations: Sequence[int], seeds: Sequence[int], values: Sequence[float]
) -> tuple[float, int]:
    """Variance that is left of values when a configuration's and a seed's part are taken out.

    And its degrees of freedom: (0, 0) where the same seeds were not given to several. By least
    squares, because failed replicates leave holes.
    """
    parts = [np.asarray(part) for part in (configurations, seeds)]
    if not len(values):
        return 0.0, 0
    design = np.hstack([(part[:, None] == np.unique(part)).astype(float) for part in parts])
    freedom = len(values) - int(np.linalg.matrix_rank(design))
    if freedom < 1:
        return 0.0, 0
    measured = np.asarray(values, dtype=float)
    left = measured - design @ np.linalg.lstsq(design, measured, rcond=None)[0]
    return float(left @ left) / freedom, freedom


def _mean(gaps: pd.Series) -> float | None:
    mean = float(gaps.mean())
    return None if math.isnan(mean) else mean

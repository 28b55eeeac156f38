"""The front of a study, from its `trials` rows."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rkdsearch.results import front_rule
from rkdsearch.results.cells import records
from rkdsearch.results.front_rule import Entry, FrontCandidate
from rkdsearch.results.objectives import COSTS, OBJECTIVES, USUAL, merits
from rkdsearch.results.pareto import hypervolume
from rkdsearch.results.seed_noise import replicated
from rkdsearch.results.states import Origin, Status

NO_LIMITS: Mapping[str, float] = MappingProxyType({})


def front_rows(
    trials: pd.DataFrame,
    objectives: Sequence[str] = USUAL,
    limits: Mapping[str, float] = NO_LIMITS,
) -> pd.DataFrame:
    """The trials on the front (`selection` has the rule), by the first objective, the best last.

    `limits` are the constraints by objective. Metrics are those that judge: means over replicates
    where these are over.
    """
    counted = front_rule.candidates(_judged(trials))
    kept = {one.trial_id for one in front_rule.front(counted, objectives, limits)}
    rows = configurations(trials)
    rows = rows[rows["trial_id"].isin(kept)]
    order = np.lexsort((rows["trial_id"], *_merits(rows, objectives).T[::-1]))
    return rows.iloc[order].reset_index(drop=True)


def configurations(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials without replicates, with the metrics that judge them.

    `seeds`, `failed`, `clean_sd` and `robust_sd` are those of `replicated`. They are null for a
    single run, and for all while a replicate is not over.
    """
    own = trials[trials["origin"] != Origin.REPLICATE]
    found = _judged(trials)
    means = {one.trial_id: one.values for one in found if one.seeds}
    spread = replicated(trials)[["seeds", "failed", "clean_sd", "robust_sd"]].astype(
        {"seeds": "Int64", "failed": "Int64"}
    )
    table = own.join(spread if means else spread.iloc[:0], on="ordinal")
    for name, objective in OBJECTIVES.items():
        if name not in COSTS:
            for trial_id, values in means.items():
                table.loc[table["trial_id"] == trial_id, objective.column] = values[name]
    return table


def volume(front: pd.DataFrame, objectives: Sequence[str] = USUAL) -> float:
    """Hypervolume of a front above 0 in merits: 1 is perfect accuracies at zero cost."""
    return hypervolume(_merits(front, objectives), [0.0] * len(objectives))


def _judged(trials: pd.DataFrame) -> list[FrontCandidate]:
    columns = {name: objective.column for name, objective in OBJECTIVES.items()}
    rows = records(trials[["trial_id", "ordinal", "origin", "status", *columns.values()]])
    return front_rule.judged(
        [
            Entry(
                row["trial_id"],
                row["ordinal"],
                replicate=row["origin"] == Origin.REPLICATE,
                finished=row["status"] == Status.FINISHED,
                failed=row["status"] == Status.FAILED,
                values={
                    name: float("nan") if row[column] is None else float(row[column])
                    for name, column in columns.items()
                },
            )
            for row in rows
        ]
    )


def _merits(trials: pd.DataFrame, objectives: Sequence[str]) -> NDArray[np.float64]:
    """Merits (N, D) of the trials in these objectives, all maximised."""
    return merits({name: trials[OBJECTIVES[name].column].astype(float) for name in objectives})

"""The front of a study, from its `trials` rows."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rkdsearch.results import front_rule
from rkdsearch.results.cells import flags_of, records
from rkdsearch.results.chance import BY_CLASS, IMAGES, row_never_learned
from rkdsearch.results.flags import keep_off, signs
from rkdsearch.results.front_rule import Entry, FrontCandidate
from rkdsearch.results.objectives import COSTS, OBJECTIVES, USUAL, merits
from rkdsearch.results.pareto import hypervolume
from rkdsearch.results.seed_noise import replicated
from rkdsearch.results.states import Origin, Status

LENGTH = "fidelity.of_epochs"  # of a trial's full run
NO_LIMITS: Mapping[str, float] = MappingProxyType({})


def front_rows(
    trials: pd.DataFrame,
    objectives: Sequence[str] = USUAL,
    limits: Mapping[str, float] = NO_LIMITS,
) -> pd.DataFrame:
    """The trials on the front (rule: `front_rule`), by the first objective, the best last.

    `limits` are the constraints by objective. Metrics are those that judge: means over replicates
    where these are over.
    """
    counted = front_rule.candidates(_judged(trials))
    kept = {one.trial_id for one in front_rule.front(counted, objectives, limits)}
    rows = configurations(trials)
    rows = rows[rows["trial_id"].isin(kept)]
    order = np.lexsort((rows["trial_id"], *_merits(rows, objectives).T[::-1]))
    return rows.iloc[order].reset_index(drop=True)


def why_no_front(trials: pd.DataFrame, limits: Mapping[str, float]) -> str:
    """Reason why nothing is on the front, as a part of a sentence."""
    finished = [one for one in _judged(trials) if one.finished]
    if not finished:
        return "none of its trials has finished"
    sound = [one for one in finished if not one.flagged]
    if not sound:
        return "flags keep every finished student off it"
    candidates = front_rule.candidates(finished)
    if not candidates:
        return "flags keep the students with the most replicates off it, and the others have fewer"
    names = ", ".join(f"{name} {limit:g}" for name, limit in limits.items())
    if any(one.within(limits) for one in sound):
        return f"no student with the most replicates is within its constraints ({names})"
    return f"no finished student is within its constraints ({names})"


def configurations(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials without replicates, with the metrics that judge them.

    `seeds`, `failed`, `clean_sd` and `robust_sd` are those of `replicated`. They are null for a
    single run, and for all of a length of which a replicate is not over.
    """
    own = trials[trials["origin"] != Origin.REPLICATE]
    found = _judged(trials)
    means = {one.trial_id: one.values for one in found if one.seeds}
    spread = replicated(trials)[["seeds", "failed", "clean_sd", "robust_sd"]].astype(
        {"seeds": "Int64", "failed": "Int64"}
    )
    judged_by_means = own.loc[own["trial_id"].isin(list(means)), "ordinal"]
    table = own.join(spread[spread.index.isin(judged_by_means)], on="ordinal")
    for name, objective in OBJECTIVES.items():
        if name not in COSTS:
            for trial_id, values in means.items():
                table.loc[table["trial_id"] == trial_id, objective.column] = values[name]
    return table


def kept_off(trials: pd.DataFrame) -> list[dict[str, Any]]:
    """Finished configurations that flags keep off the front: `trial_id`, `label` and `signs`.

    A sign of a replicate names it.
    """
    finished = records(
        trials[trials["status"] == Status.FINISHED].sort_values(
            ["ordinal", "trial_id"], kind="stable"
        )
    )
    own = {row["ordinal"]: row for row in finished if row["origin"] != Origin.REPLICATE}
    found: dict[int, dict[str, Any]] = {}
    for row in finished:
        if _keep_off(row):
            replicate, named = row["origin"] == Origin.REPLICATE, own.get(row["ordinal"], row)
            entry = found.setdefault(
                row["ordinal"],
                {"trial_id": named["trial_id"], "label": named.get("label"), "signs": []},
            )
            entry["signs"] += [
                f"{row['trial_id']}: {sign}" if replicate else sign for sign in signs(row)
            ]
    return list(found.values())


def of_full_length(rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """True for each finished row of the greatest length that any without a flag has finished."""
    lengths = [row.get(LENGTH) or 0 if row["status"] == Status.FINISHED else None for row in rows]
    trusted = [
        length
        for row, length in zip(rows, lengths, strict=True)
        if length is not None and not flags_of(row.get("flags"))
    ]
    longest = max(trusted, default=0)
    return [length is not None and length >= longest for length in lengths]


def volume(front: pd.DataFrame, objectives: Sequence[str] = USUAL) -> float:
    """Hypervolume of a front above 0 in merits: 1 is perfect accuracies at zero cost."""
    return hypervolume(_merits(front, objectives), [0.0] * len(objectives))


def _judged(trials: pd.DataFrame) -> list[FrontCandidate]:
    columns = {name: objective.column for name, objective in OBJECTIVES.items()}
    names = ["trial_id", "ordinal", "origin", "status", "flags", LENGTH, BY_CLASS, IMAGES]
    names += [*columns.values()]
    rows = records(trials[[name for name in names if name in trials]])
    return front_rule.judged(
        [
            Entry(
                row["trial_id"],
                row["ordinal"],
                replicate=row["origin"] == Origin.REPLICATE,
                finished=row["status"] == Status.FINISHED,
                failed=row["status"] == Status.FAILED,
                stopped=row["status"] == Status.STOPPED,
                values={
                    name: float("nan") if row[column] is None else float(row[column])
                    for name, column in columns.items()
                },
                flagged=_keep_off(row),
                never_learned=row_never_learned(row),
                epochs=int(row.get(LENGTH) or 0),
            )
            for row in rows
        ]
    )


def _keep_off(row: Mapping[str, Any]) -> bool:
    return keep_off(
        flags_of(row.get("flags")),
        replicate=row["origin"] == Origin.REPLICATE,
        never_learned=row_never_learned(row),
    )


def _merits(trials: pd.DataFrame, objectives: Sequence[str]) -> NDArray[np.float64]:
    """Merits (N, D) of the trials in these objectives, all maximised."""
    return merits({name: trials[OBJECTIVES[name].column].astype(float) for name in objectives})

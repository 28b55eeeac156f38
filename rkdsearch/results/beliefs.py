"""The worth of published settings: each baseline beside the trials that were made near it."""

import json

import pandas as pd

from rkdsearch.results.cells import CLEAN, PAIR, ROBUST, records
from rkdsearch.results.states import NOT_IN_SPACE, Origin, ProposedBy, Status

NOTE = "belief"  # of a trial's `notes`: name of the baseline that it was made near, once its label


def worth_of_baselines(trials: pd.DataFrame, front: pd.DataFrame) -> pd.DataFrame:
    """One row a baseline, as the space lists them; no rows where no belief proposed a trial.

    `clean` and `robust` are its own single run's; `near` counts the trials near it, `finished`
    those that were measured. `better` of them dominate it, by single runs on validation images;
    `on_front` are on the front, of these and itself.
    """
    columns = ["label", CLEAN, ROBUST, "near", "finished", "better", "on_front"]
    if "proposed_by" not in trials:
        return pd.DataFrame(columns=columns)
    own = trials[trials["origin"] != Origin.REPLICATE]
    near = own[(own["proposed_by"] == ProposedBy.BELIEF) & (own["origin"] == Origin.SEARCH)]
    if near.empty:
        return pd.DataFrame(columns=columns)
    names = near["notes"].map(lambda notes: json.loads(notes).get(NOTE))
    kept = set(front["trial_id"])
    rows = []
    for row in records(own[own["origin"] == Origin.BASELINE].sort_values("ordinal")):
        made = near[names.isin([row["trial_id"], row["label"].removesuffix(NOT_IN_SPACE)])]
        done = made[made["status"] == Status.FINISHED]
        gain = done[list(PAIR)] - [row[name] for name in PAIR]
        better = (gain >= 0).all(axis=1) & (gain > 0).any(axis=1)
        ids = {row["trial_id"], *made["trial_id"]}
        rows.append(
            [
                row["label"],
                row[CLEAN],
                row[ROBUST],
                len(made),
                len(done),
                int(better.sum()),
                len(ids & kept),
            ]
        )
    return pd.DataFrame(rows, columns=columns)

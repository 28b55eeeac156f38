"""Agreement of a cheap measurement with the full run: how well one ranks what the other ranks."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from rkdsearch.results.cells import ROBUST, methods_of, records
from rkdsearch.results.front import LENGTH, of_full_length
from rkdsearch.results.states import Origin, Status

FEWEST = 8  # trials; a correlation of fewer says nothing
FEWEST_METHODS = 3


@dataclass(frozen=True)
class Agreement:
    """Rank correlations (Spearman) over `trials` trials; None where too few can be ranked.

    `within` methods: of the ranks, each method's mean taken out, where it has two trials or more.
    `between` methods: of their mean ranks. A rung that misleads between methods alone may stop a
    method for being slow.
    """

    trials: int
    overall: float | None
    better_half: float | None  # by the full run
    within: float | None
    between: float | None


def rank_agreement(cheap: pd.Series, full: pd.Series, method: pd.Series) -> Agreement:
    """Agreement of two measurements of the same trials; those that lack one are left out.

    All three are indexed by trial.
    """
    table = pd.DataFrame({"cheap": cheap, "full": full, "method": method}).dropna()
    better = table[table["full"] >= table["full"].median()]
    ranks = table[["cheap", "full"]].rank()
    of_methods = ranks.groupby(table["method"])
    means, several = of_methods.mean(), of_methods["full"].transform("size") > 1
    inside = (ranks - of_methods.transform("mean"))[several]
    return Agreement(
        len(table),
        overall=_correlation(ranks, FEWEST),
        better_half=_correlation(better[["cheap", "full"]].rank(), FEWEST),
        within=_correlation(inside, FEWEST),
        between=_correlation(means.rank(), FEWEST_METHODS),
    )


def _correlation(both: pd.DataFrame, fewest: int) -> float | None:
    if len(both) < fewest or both.std(ddof=0).min() < 1e-12:  # a constant ranks nothing
        return None
    return float(np.corrcoef(both["cheap"], both["full"])[0, 1])


def of_rungs(rungs: pd.DataFrame, trials: pd.DataFrame) -> dict[int, Agreement]:
    """Agreement of each rung's robust accuracy with the full run's, by the rung's epochs.

    Of the trials that stood on the rung and have finished a full run: what was stopped is not among
    them, so these are the better ones, and a correlation over all would be higher. A rung without
    one, and full length, are left out.
    """
    own = trials[(trials["origin"] != Origin.REPLICATE) & (trials["status"] == Status.FINISHED)]
    own = own[np.array(of_full_length(records(own)), dtype=bool)].set_index("trial_id")
    methods = methods_of(own)
    last = rungs.drop_duplicates(["trial_id", "epochs"], keep="last")
    found: dict[int, Agreement] = {}
    for epochs, rows in last[last["epochs"] < own[LENGTH].max()].groupby("epochs"):
        cheap = rows.set_index("trial_id")["robust_accuracy"]
        known = rank_agreement(cheap, own[ROBUST], methods)
        if known.overall is not None:
            found[int(str(epochs))] = known
    return found

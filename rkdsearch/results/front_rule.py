"""The one rule for the front, on plain entries. The search and the readers of rows adapt to it.

1. Only finished configurations count: metrics of a stopped trial belong to another length and
   perhaps to a weaker attack. None that is flagged counts, by its own run or by a replicate: its
   robust accuracy on validation images is not to be believed (`results.flags`). A replicate that
   gives all images one class, or never learned, is bad luck with its seed, and is in the means.
   Where the study's full length has grown, only runs of the greatest length that any of these has
   finished count.
2. Once every replicate of that length is over and one has finished, only configurations with the
   most finished replicates count: in a race the others dropped out before, and seeds that failed
   are no reason to be judged by the lucky ones. (Flagged ones are counted here, so that none that
   dropped out takes their place.) Their accuracies are then means over their replicates: the run
   that selected a configuration must not judge it too.
3. The constraints hold for these values.
4. It has learned something, unless none has: no attack moves a constant prediction. Of its
   replicates more than half have.
5. No other candidate dominates these values in the study's objectives.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from rkdsearch.results.objectives import COSTS, OBJECTIVES, merits
from rkdsearch.results.pareto import non_dominated


@dataclass(frozen=True)
class Entry:
    """One trial as the rule sees it: `finished` at full length, `failed`, `stopped`, or none yet.

    A replicate is stopped where nobody trains on: the space has lost its baseline, or the full
    length has grown. `values` are its objectives by name; NaN is not measured. `flagged` where the
    validation attack failed on it. `epochs` is the length of its full run. `never_learned` as in
    `chance`.
    """

    trial_id: str
    ordinal: int
    replicate: bool
    finished: bool
    failed: bool
    values: Mapping[str, float]
    flagged: bool = False
    epochs: int = 0
    stopped: bool = False
    never_learned: bool = False


@dataclass(frozen=True)
class FrontCandidate:
    """A configuration and the values that judge it: its run's, or means over `seeds` replicates.

    `failed` of its replicates failed and are not in the means. `flagged` where its run or one of
    the others is; `never_learned` where half of the seeds or more are.
    """

    trial_id: str
    finished: bool
    values: Mapping[str, float]
    seeds: int = 0
    failed: int = 0
    flagged: bool = False
    epochs: int = 0
    never_learned: bool = False

    def merits(self, objectives: Collection[str]) -> NDArray[np.float64]:
        """Merits of these objectives (D,), all maximised."""
        return merits({name: self.values[name] for name in objectives})

    def within(self, limits: Mapping[str, float]) -> bool:
        """True where the values satisfy every limit: accuracies at least, costs at most."""
        return all(
            bool(OBJECTIVES[name].holds(self.values[name], limit)) for name, limit in limits.items()
        )


def judged(entries: Collection[Entry]) -> list[FrontCandidate]:
    """Every configuration with the values that judge it, in the given order, without replicates."""
    replicates = [entry for entry in entries if entry.replicate]
    waited_for = {e.epochs for e in replicates if not (e.finished or e.failed or e.stopped)}
    found = []
    for own in entries:
        if own.replicate:
            continue
        over = own.epochs not in waited_for
        others = [e for e in replicates if e.ordinal == own.ordinal] if over else []
        seeds = [e for e in others if e.finished and e.values]
        failed = sum(e.failed for e in others) if seeds else 0
        counted = seeds or [own]
        found.append(
            FrontCandidate(
                own.trial_id,
                own.finished,
                values={**own.values, **_means(seeds)},
                seeds=len(seeds),
                failed=failed,
                flagged=own.flagged or any(e.flagged for e in seeds),
                epochs=own.epochs,
                never_learned=2 * sum(e.never_learned for e in counted) >= len(counted),
            )
        )
    return found


def candidates(configurations: Collection[FrontCandidate]) -> list[FrontCandidate]:
    """The configurations that count: finished, not flagged, longest, with the most replicates."""
    finished = [one for one in configurations if one.finished]
    longest = max((one.epochs for one in finished if not one.flagged), default=0)
    found = [one for one in finished if one.epochs == longest]
    most = max((one.seeds for one in found), default=0)
    return [one for one in found if one.seeds == most and not one.flagged]


def front(
    found: Sequence[FrontCandidate], objectives: Collection[str], limits: Mapping[str, float]
) -> list[FrontCandidate]:
    """The candidates within the limits that no other dominates, in the given order.

    Those that never learned only where there is no other.
    """
    within = [one for one in found if one.within(limits)]
    within = [one for one in within if not one.never_learned] or within
    kept = non_dominated([one.merits(objectives) for one in within])
    return [one for one, on in zip(within, kept, strict=True) if on]


def _means(seeds: Sequence[Entry]) -> dict[str, float]:
    """Mean accuracies over replicates; costs are the same for every seed.

    Rounded, so that equal numbers of right images have equal means, whatever their order.
    """
    if not seeds:
        return {}
    names = [name for name in seeds[0].values if name not in COSTS]
    return {name: round(fmean(entry.values[name] for entry in seeds), 12) for name in names}

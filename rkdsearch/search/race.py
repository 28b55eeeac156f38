"""A race of contenders over training seeds: who gets more replicates, and who drops out.

Single runs differ more between seeds than settings near the front do. So many contenders get a few
replicates, and the better half of them more (successive halving over seeds, ADR 25).
"""

from collections.abc import Collection, Mapping, Sequence
from statistics import fmean

import numpy as np

from rkdsearch.results import pareto
from rkdsearch.results.objectives import merits
from rkdsearch.results.states import Origin, Status
from rkdsearch.search.ranking import by_non_domination
from rkdsearch.search.trial import Trial, trial_id_of
from rkdsearch.space.settings import Replicates


def open_replicates(
    trials: Mapping[str, Trial],
    chosen: Sequence[Trial],
    settings: Replicates,
    objectives: Sequence[str],
) -> list[tuple[Trial, int]]:
    """Replicates to train next: the configuration and the replicate's number, from 1.

    `chosen` are the configurations to replicate. Every one has its first replicate before any has
    its second. A round begins once every replicate of the round before is over; empty until then,
    and at the end.
    """
    racing = list(chosen)
    for seeds in settings.rounds:
        numbered = [(trial, number) for number in range(1, seeds + 1) for trial in racing]
        ids = [trial_id_of(trial.ordinal, number) for trial, number in numbered]
        missing = [one for one, name in zip(numbered, ids, strict=True) if name not in trials]
        if missing:
            return missing
        if not all(trials[name].status in (Status.FINISHED, Status.FAILED) for name in ids):
            return []
        racing = survivors(trials, racing, seeds, settings, objectives)
    return []


def survivors(
    trials: Mapping[str, Trial],
    racing: Sequence[Trial],
    seeds: int,
    settings: Replicates,
    objectives: Sequence[str],
) -> list[Trial]:
    """The configurations that stay in the race, by their means over the first `seeds` replicates.

    The better half, and all that none dominates. Baselines that are replicated anyway stay, and
    take no place. One with a flagged replicate, or without a finished one, drops out.
    """
    stay = {t.trial_id for t in racing if settings.baselines and t.origin == Origin.BASELINE}
    means = {
        trial.trial_id: found
        for trial in racing
        if trial.trial_id not in stay
        and (
            found := _mean(
                [trials[trial_id_of(trial.ordinal, number)] for number in range(1, seeds + 1)],
                trial.costs,
            )
        )
    }
    if means:
        values = np.array(
            [merits({name: one[name] for name in objectives}) for one in means.values()]
        )
        ranks, front = by_non_domination(values), pareto.non_dominated(values)
        places = -(-len(means) // 2)
        stay |= {
            trial_id
            for trial_id, rank, on in zip(means, ranks, front, strict=True)
            if rank < places or on
        }
    return [trial for trial in racing if trial.trial_id in stay]


def _mean(replicates: Collection[Trial], costs: Mapping[str, float]) -> dict[str, float]:
    """Mean accuracies of the finished replicates, and the student's costs; empty if none counts."""
    finished = [r.best.accuracies for r in replicates if r.status == Status.FINISHED and r.best]
    if not finished or any(r.flags for r in replicates):
        return {}
    return {**{name: fmean(one[name] for one in finished) for name in finished[0]}, **costs}

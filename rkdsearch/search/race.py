"""A race of contenders over training seeds: who gets more replicates, and who drops out.

Single runs differ more between seeds than settings near the front do. So many contenders get a few
replicates, and the better half of them more (successive halving over seeds, ADR 25).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from rkdsearch.errors import StudyError
from rkdsearch.results import pareto
from rkdsearch.results.objectives import merits
from rkdsearch.results.states import Origin, Status
from rkdsearch.search.front import never_learned
from rkdsearch.search.ranking import by_non_domination
from rkdsearch.search.trial import Trial, trial_id_of
from rkdsearch.space.settings import Constraints, Replicates

OVER = (Status.FINISHED, Status.FAILED, Status.STOPPED)


def open_replicates(
    trials: Mapping[str, Trial],
    chosen: Sequence[Trial],
    settings: Replicates,
    objectives: Sequence[str],
    constraints: Constraints,
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
        if not all(trials[name].status in OVER for name in ids):
            return []
        racing = survivors(trials, racing, seeds, settings, objectives, constraints)
    return []


def refuse_fewer(folder: Path, replicates: Iterable[int], settings: Replicates) -> None:
    """Raise StudyError where trials have more replicates than the space asks for.

    What ended later would have fewer, and be on no front. `replicates` are the ordinals of all
    replicates.
    """
    most = max(Counter(replicates).values(), default=0)
    if most > settings.seeds:
        raise StudyError(
            f"{folder}: replicates.seeds is {settings.seeds}, and {most} replicates of some trials"
            f" have begun, so that later ones would be on no front; set it to {most} or more"
        )


def survivors(
    trials: Mapping[str, Trial],
    racing: Sequence[Trial],
    seeds: int,
    settings: Replicates,
    objectives: Sequence[str],
    constraints: Constraints,
) -> list[Trial]:
    """The configurations that stay in the race, by their means over the first `seeds` replicates.

    The better half, and all that none dominates; those within the constraints come before all
    others, and those that never learned after them. Baselines that are replicated anyway stay, and
    take no place. One without
    a finished replicate drops out. None with a flagged one is racing, see `front.contenders`.
    """
    stay = {t.trial_id for t in racing if settings.baselines and t.origin == Origin.BASELINE}
    means: dict[str, dict[str, float]] = {}
    for trial in racing:
        if trial.trial_id not in stay:
            ids = [trial_id_of(trial.ordinal, number) for number in range(1, seeds + 1)]
            if found := _mean([trials[name] for name in ids], trial.costs):
                means[trial.trial_id] = found
    learned = {
        trial.trial_id
        for trial in racing
        for number in range(1, seeds + 1)
        if (one := trials[trial_id_of(trial.ordinal, number)]).status == Status.FINISHED
        and not never_learned(one)
    }
    inside = [n for n, mean in means.items() if n in learned and constraints.hold(mean.__getitem__)]
    beyond = [n for n in means if n in learned and n not in inside]
    constant = [n for n in means if n not in learned]
    merits_of = {
        trial_id: merits({name: mean[name] for name in objectives})
        for trial_id, mean in means.items()
    }
    groups = (inside, beyond, constant)
    order = [name for group in groups for name in _best_first(group, merits_of)]
    stay |= set(order[: -(-len(means) // 2)])
    if best := inside or beyond or constant:
        on = pareto.non_dominated([merits_of[name] for name in best])
        stay |= {name for name, kept in zip(best, on, strict=True) if kept}
    return [trial for trial in racing if trial.trial_id in stay]


def _best_first(names: Sequence[str], merits_of: Mapping[str, NDArray[np.float64]]) -> list[str]:
    if not names:
        return []
    order = np.argsort(by_non_domination(np.array([merits_of[name] for name in names])))
    return [names[i] for i in order]


def _mean(replicates: Collection[Trial], costs: Mapping[str, float]) -> dict[str, float]:
    """Mean accuracies of the finished replicates, and the student's costs; empty if none is."""
    finished = [r.best.accuracies for r in replicates if r.status == Status.FINISHED and r.best]
    if not finished:
        return {}
    return {**{name: fmean(one[name] for one in finished) for name in finished[0]}, **costs}

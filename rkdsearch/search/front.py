"""Who may be on the front, and who is: full-length configurations within the constraints, judged by fresh seeds once these are over.

The same laws over rows, for readers, stand in `results/summary.py`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from statistics import fmean

import numpy as np

from rkdsearch.results.objectives import merits
from rkdsearch.results.pareto import non_dominated
from rkdsearch.search.ranking import by_non_domination
from rkdsearch.search.trial import Trial
from rkdsearch.space.space import SearchSpace
from rkdsearch.training.epoch import Best


@dataclass(frozen=True)
class Judged:
    """A full-length trial and the accuracies that judge it: its own, or means over so many fresh `seeds`; of its repeats so many `failed`."""

    trial: Trial
    clean_accuracy: float
    robust_accuracy: float
    worst_class_accuracy: float
    seeds: int
    failed: int

    def value(self, objective: str) -> float:
        """One of these accuracies, or a cost of the trial's student."""
        return self.trial.value(objective, self)

    def merits(self, objectives: Collection[str]) -> list[float]:
        """What these objectives are worth, in order, all maximised."""
        return [float(merit) for merit in merits({name: self.value(name) for name in objectives})]


def judged(trials: Collection[Trial], space: SearchSpace) -> list[Judged]:
    """Everybody who may be on the front. Once contenders were repeated, and the last repeat is over, only who was repeated."""
    repeats = [t for t in trials if t.origin == "replicate"]
    over = all(t.status in ("finished", "failed") for t in repeats)
    fresh: dict[int, list[Best]] = {}
    for trial in repeats if over else ():
        if trial.status == "finished" and trial.best is not None:
            fresh.setdefault(trial.ordinal, []).append(trial.best)
    found = []
    for trial, own in _full_length(trials):
        seeds = fresh.get(trial.ordinal, [])
        if fresh and not seeds:
            continue
        bests = seeds or [own]
        failed = (
            sum(t.ordinal == trial.ordinal and t.status == "failed" for t in repeats)
            if seeds
            else 0
        )
        one = Judged(
            trial,
            clean_accuracy=fmean(b.clean_accuracy for b in bests),
            robust_accuracy=fmean(b.robust_accuracy for b in bests),
            worst_class_accuracy=fmean(b.worst_class_accuracy for b in bests),
            seeds=len(seeds),
            failed=failed,
        )
        if space.constraints.hold(one.value):
            found.append(one)
    return found


def front(trials: Collection[Trial], space: SearchSpace) -> list[Judged]:
    """Those whom nobody dominates in the space's objectives, by the first of these."""
    entries = judged(trials, space)
    on = non_dominated([one.merits(space.objectives) for one in entries])
    return sorted(
        (one for one, kept in zip(entries, on, strict=True) if kept),
        key=lambda one: one.merits(space.objectives),
        reverse=True,
    )


def finished(trials: Collection[Trial], space: SearchSpace) -> list[Trial]:
    """The full-length configurations that satisfy the constraints by their own run."""
    return [
        trial
        for trial, own in _full_length(trials)
        if space.constraints.hold(partial(trial.value, measured=own))
    ]


def contenders(trials: Collection[Trial], space: SearchSpace) -> list[Trial]:
    """The best of these, who are repeated with fresh seeds, the best first."""
    found = sorted(finished(trials, space), key=lambda t: t.trial_id)
    if not found:
        return []
    values = np.array([trial.merits_at(space.epochs, space.objectives) for trial in found])
    return [found[i] for i in np.argsort(by_non_domination(values))[: space.replicates.contenders]]


def repeated(trials: Collection[Trial], space: SearchSpace) -> list[Trial]:
    """Contenders, and behind them the baselines that are none: so many runs are compared with as many."""
    best = contenders(trials, space)
    baselines = (
        [t for t, _ in _full_length(trials) if t.origin == "baseline" and t not in best]
        if space.replicates.baselines
        else []
    )
    return best + baselines


def _full_length(trials: Collection[Trial]) -> list[tuple[Trial, Best]]:
    configurations = [
        t for t in trials if t.origin != "replicate" and t.status == "finished" and t.full_length
    ]
    return [(trial, trial.best) for trial in configurations if trial.best is not None]

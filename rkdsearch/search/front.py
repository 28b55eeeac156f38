"""Front, constraints and contenders of a running search, by the rule of `results/front_rule.py`."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import numpy as np

from rkdsearch.methods import name_of
from rkdsearch.results import front_rule
from rkdsearch.results.flags import keep_off
from rkdsearch.results.front_rule import Entry, FrontCandidate
from rkdsearch.results.states import Origin, Status
from rkdsearch.search.ranking import by_non_domination
from rkdsearch.search.trial import Trial
from rkdsearch.space.space import SearchSpace
from rkdsearch.training.epoch import Best


@dataclass(frozen=True)
class JudgedTrial:
    """A full-length trial and the values that judge it."""

    trial: Trial
    candidate: FrontCandidate

    def value(self, objective: str) -> float:
        """Accuracy, a mean over replicates where there are any, or the student's cost."""
        return self.candidate.values[objective]

    @property
    def clean_accuracy(self) -> float:
        """Clean accuracy by which the trial is judged."""
        return self.value("clean_accuracy")

    @property
    def robust_accuracy(self) -> float:
        """Robust accuracy by which the trial is judged."""
        return self.value("robust_accuracy")

    @property
    def seeds(self) -> int:
        """Replicates in the means; 0 for a single run."""
        return self.candidate.seeds

    @property
    def failed(self) -> int:
        """Replicates that failed and are not in the means."""
        return self.candidate.failed


def judged(trials: Collection[Trial], space: SearchSpace) -> list[JudgedTrial]:
    """The trials that may be on the front: candidates that satisfy the constraints."""
    by_id = {trial.trial_id: trial for trial in trials}
    found = front_rule.candidates(front_rule.judged([_entry(trial) for trial in trials]))
    return [
        JudgedTrial(by_id[one.trial_id], one)
        for one in found
        if one.within(space.constraints.limits)
    ]


def front(trials: Collection[Trial], space: SearchSpace) -> list[JudgedTrial]:
    """The front, by the first objective, the best first."""
    found = judged(trials, space)
    kept = front_rule.front(
        [one.candidate for one in found], space.objectives, space.constraints.limits
    )
    ids = {one.trial_id for one in kept}
    return sorted(
        (one for one in found if one.trial.trial_id in ids),
        key=lambda one: one.candidate.merits(space.objectives).tolist(),
        reverse=True,
    )


def finished(trials: Collection[Trial], space: SearchSpace) -> list[Trial]:
    """The full-length configurations that satisfy the constraints by their own run."""
    return [
        trial
        for trial, own in _full_length(trials, space)
        if space.constraints.hold(partial(trial.value, measured=own))
    ]


def contenders(trials: Collection[Trial], space: SearchSpace) -> list[Trial]:
    """The trials to choose the front from, the best first; these are replicated.

    The best of all, and the best of each method: a method whose single runs were unlucky, or that
    had the worse of two noisy rungs, is judged by its replicates too. No baseline that the space
    has lost is among them.
    """
    known = {baseline.label for baseline in space.baselines}
    found = sorted(
        (t for t in finished(trials, space) if t.origin != Origin.BASELINE or t.label in known),
        key=lambda t: t.trial_id,
    )
    if not found:
        return []
    values = np.array([trial.merits_at(space.epochs, space.objectives) for trial in found])
    best = [found[i] for i in np.argsort(by_non_domination(values))]
    chosen, methods = best[: space.replicates.contenders], set[str]()
    for trial in best:
        method = name_of(trial.config.method)
        if method not in methods and trial not in chosen:
            chosen.append(trial)
        methods.add(method)
    return chosen


def to_replicate(trials: Collection[Trial], space: SearchSpace) -> list[Trial]:
    """The trials to replicate: contenders, then the other baselines where the space asks for these.

    With replicated baselines, equally many runs of each are compared. Of a baseline's grid the best
    is replicated.
    """
    chosen = contenders(trials, space)
    if not space.replicates.baselines:
        return chosen
    families = {b.label: b.family for b in space.baselines}
    baselines = [
        (trial, best)
        for trial, best in _full_length(trials, space)
        if trial.origin == Origin.BASELINE and trial.label in families
    ]
    by_family: dict[str, list[tuple[Trial, Best]]] = {}
    for trial, best in baselines:
        by_family.setdefault(families[trial.label], []).append((trial, best))
    for found in by_family.values():
        first = max(
            found,
            key=lambda one: (
                not never_learned(one[0]),
                one[1].clean_accuracy + one[1].robust_accuracy,
            ),
        )[0]
        if first not in chosen:
            chosen.append(first)
    return chosen


def _full_length(trials: Collection[Trial], space: SearchSpace) -> list[tuple[Trial, Best]]:
    """Configurations that may be on the front, with their best epochs: no flagged one is.

    Nor is one with a flagged replicate, so that the next best is replicated in its place, or one of
    a shorter full run.
    """
    flagged = {trial.ordinal for trial in trials if kept_off(trial)}
    configurations = [
        t
        for t in trials
        if t.origin != Origin.REPLICATE
        and t.status == Status.FINISHED
        and t.full_length
        and t.config.training.epochs == space.epochs
        and t.ordinal not in flagged
    ]
    return [(trial, trial.best) for trial in configurations if trial.best is not None]


def kept_off(trial: Trial) -> bool:
    """True where the flags of a trial keep its configuration off the front."""
    return keep_off(
        trial.flags,
        replicate=trial.origin == Origin.REPLICATE,
        never_learned=never_learned(trial),
    )


def never_learned(trial: Trial) -> bool:
    """True where its best network tells classes no better than a constant prediction."""
    return trial.best is not None and trial.best.never_learned(trial.epochs[-1].images)


def _entry(trial: Trial) -> Entry:
    replicate, best = trial.origin == Origin.REPLICATE, trial.best
    finished = trial.status == Status.FINISHED
    return Entry(
        trial.trial_id,
        trial.ordinal,
        replicate=replicate,
        # the last report of a replicate may be lost; it is over nevertheless
        finished=finished if replicate else finished and trial.full_length and best is not None,
        failed=trial.status == Status.FAILED,
        values={} if best is None else {**best.accuracies, **trial.costs},
        flagged=kept_off(trial),
        never_learned=never_learned(trial),
        epochs=trial.config.training.epochs,
        stopped=trial.status == Status.STOPPED,
    )

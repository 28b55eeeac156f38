"""Work that is left in a search, in epochs."""

import statistics
from typing import TYPE_CHECKING

from rkdsearch.results.states import Origin, Status

if TYPE_CHECKING:
    from rkdsearch.search.study import Study


def epochs_left(study: "Study", asked_for: int) -> float:
    """Epochs until the end of the study, replicates included.

    Promotions to come are not known: a searched trial is expected to train as long as the mean so
    far. Baselines and replicates train to full length, and without rungs every trial does.
    """
    ended = [
        t.epochs_trained
        for t in study.trials.values()
        if not t.executing and t.origin == Origin.SEARCH
    ]
    if not study.scheduler.rungs:
        typical = float(study.space.epochs)
    else:
        typical = statistics.mean(ended) if len(ended) >= 3 else study.space.epochs / 2
    running = sum(
        max(1.0, typical - t.epochs_trained)
        if t.origin == Origin.SEARCH
        else sum(segment.epochs for segment in t.segments) - t.epochs_trained
        for t in study.ledger.executing
    )
    baselines = len(study.space.baselines)
    proposed = len(study.trials) - len(study.ledger.replicates)
    to_propose = max(0, asked_for - proposed)
    baselines_left = max(0, min(baselines, asked_for) - proposed)
    full_length = baselines_left + replicates_left(study, asked_for)
    searched = to_propose - baselines_left
    return running + full_length * study.space.epochs + searched * typical


def replicates_left(study: "Study", asked_for: int) -> int:
    """Replicates that nobody trains yet, those of a race's later rounds included.

    Before the first of them: as many as `tune --dry-run` expects, if all of `asked_for` finished.
    """
    space, replicates = study.space, study.ledger.replicates
    wanted = space.replicates
    if not replicates:
        if not wanted.seeds:
            return 0
        return wanted.runs(
            *wanted.compared(asked_for, space.families(asked_for), len(space.method_names))
        )
    waiting = sum(t.status == Status.RUNNING and not t.executing for t in replicates)
    ordinals = {t.ordinal for t in replicates}
    compared = sum(
        wanted.baselines and t.origin == Origin.BASELINE and t.ordinal in ordinals
        for t in study.trials.values()
    )
    expected = wanted.runs(len(ordinals) - compared, compared)
    return max(waiting, expected - (len(replicates) - waiting))

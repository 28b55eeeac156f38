"""Sampler history: searched trials, and baselines inside the space, at the rungs they reached."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any

from rkdsearch.results.states import Origin, Status
from rkdsearch.search.sampler import Observation
from rkdsearch.search.trial import Trial
from rkdsearch.space.space import SearchSpace


class SamplerHistory:
    """Observations of the trials of one study.

    They are kept in the two orders in which they are chosen: a proposal after ten thousand trials
    costs what one after a thousand does.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._points: dict[int, dict[str, Any] | None] = {}  # by ordinal; None: outside the space
        self._known: dict[int, Observation] = {}  # by ordinal
        self._ordinals: list[int] = []  # ascending
        self._longest: list[tuple[bool, int, int]] = []  # ascending, see `_length`

    def note(self, trial: Trial, *, refuted: bool = False) -> None:
        """Observe a trial that has changed. Replicates are left out.

        Of a `refuted` baseline the lowest rung is told, whatever its length: as a longer trial it
        would pass for better than all shorter ones.
        """
        if trial.origin == Origin.REPLICATE:
            return
        ordinal, found = trial.ordinal, self._observation(trial, refuted=refuted)
        known = self._known.get(ordinal)
        if known is not None:
            if known == found:
                return
            del self._known[ordinal]
            del self._ordinals[bisect_left(self._ordinals, ordinal)]
            del self._longest[bisect_left(self._longest, (*_length(known), -ordinal))]
        if found is not None:
            self._known[ordinal] = found
            insort(self._ordinals, ordinal)
            insort(self._longest, (*_length(found), -ordinal))

    def observations(self) -> list[Observation]:
        """Observations by ordinal, at most `sampler.history` of them: see `select_history`."""
        limit = self._space.sampler.history
        if len(self._ordinals) <= limit:
            return [self._known[ordinal] for ordinal in self._ordinals]
        kept = {-key[-1] for key in self._longest[: limit // 2]}
        for ordinal in reversed(self._ordinals):
            if len(kept) == limit:
                break
            kept.add(ordinal)
        return [self._known[ordinal] for ordinal in sorted(kept)]

    def _observation(self, trial: Trial, *, refuted: bool) -> Observation | None:
        if trial.ordinal not in self._points:
            self._points[trial.ordinal] = self._space.searched(trial.config)
        hyperparameters = self._points[trial.ordinal]
        if hyperparameters is None or trial.status == Status.FAILED:
            return None
        trained = trial.position[1]
        if trial.best is not None and trial.config.training.epochs < self._space.epochs:
            # a shorter full run: at the rungs of this ladder that are no longer than it was trained
            values = trial.merits_at(trained, self._space.objectives)
            rungs_short = sum(rung.epochs > trained for rung in self._space.ladder)
            if values is not None:
                return Observation(hyperparameters, values, rungs_short, trial.notes)
        # the highest rung that it reached, by the number of rungs short of full length
        for rungs_short, rung in enumerate(reversed(self._space.ladder)):
            if refuted and rungs_short < len(self._space.ladder) - 1:
                continue
            values = trial.merits_at(rung.epochs, self._space.objectives)
            if values is not None:
                return Observation(hyperparameters, values, rungs_short, trial.notes)
        return Observation(hyperparameters, notes=trial.notes) if trial.executing else None


def select_history(observations: Sequence[Observation], limit: int) -> list[Observation]:
    """At most `limit` observations, in the same order.

    Half of them are those that were trained longest, the newest first. The rest are the newest of
    the others.
    """
    if len(observations) <= limit:
        return list(observations)
    newest_first = range(len(observations) - 1, -1, -1)
    longest = sorted(
        newest_first,
        key=lambda i: _length(observations[i]),
    )[: limit // 2]
    kept = set(longest)
    kept |= set([i for i in newest_first if i not in kept][: limit - len(kept)])
    return [observations[i] for i in sorted(kept)]


def _length(observation: Observation) -> tuple[bool, int]:
    """The key that sorts the longest trained first."""
    return observation.values is None, observation.rungs_short

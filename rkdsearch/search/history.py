"""Sampler history: searched trials, and baselines inside the space, at the rungs they reached."""

from collections.abc import Collection, Iterable, Sequence

from rkdsearch.results.states import Status
from rkdsearch.search.sampler import Observation
from rkdsearch.search.trial import Trial
from rkdsearch.space.space import SearchSpace


class SamplerHistory:
    """Observations of the trials of one study. Those of trials that did not change are reused."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        # by trial_id: the trial's state, and its observation in that state
        self._known: dict[str, tuple[object, Observation | None]] = {}

    def observations(
        self, trials: Iterable[Trial], refuted: Collection[str] = ()
    ) -> list[Observation]:
        """Observations by ordinal, at most `sampler.history` of them.

        Of the `refuted` baselines the lowest rung is told, whatever their length: as a longer trial
        each would pass for better than all shorter ones.
        """
        found: list[Observation] = []
        for trial in sorted(trials, key=lambda t: t.ordinal):
            state = (
                trial.segment_epochs[-1] if trial.segment_epochs else None,
                len(trial.epochs_by_segment),
                trial.executing,
                trial.status == Status.FAILED,
                trial.trial_id in refuted,
            )
            known = self._known.get(trial.trial_id)
            if known is None or known[0] != state:
                known = self._known[trial.trial_id] = (
                    state,
                    self._observation(trial, refuted=trial.trial_id in refuted),
                )
            if known[1] is not None:
                found.append(known[1])
        return select_history(found, self._space.sampler.history)

    def _observation(self, trial: Trial, *, refuted: bool) -> Observation | None:
        hyperparameters = self._space.searched(trial.config)
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
        key=lambda i: (observations[i].values is None, observations[i].rungs_short),
    )[: limit // 2]
    kept = set(longest)
    kept |= set([i for i in newest_first if i not in kept][: limit - len(kept)])
    return [observations[i] for i in sorted(kept)]

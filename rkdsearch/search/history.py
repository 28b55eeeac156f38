"""What the sampler is shown of a study: searched configurations, and published ones that lie inside the space, as far as they have come."""

from collections.abc import Iterable

from rkdsearch.search.ledger import Trial
from rkdsearch.search.sampler import Observation, remembered
from rkdsearch.space.space import SearchSpace


class SamplerHistory:
    """Of configurations of `space`. Most are as they were at the last ask, and are not looked at again."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        # by trial: the state that it was in, and what was seen of it then
        self._known: dict[str, tuple[object, Observation | None]] = {}

    def of(self, configurations: Iterable[Trial]) -> list[Observation]:
        """In ordinal order, so much as the sampler's history holds."""
        found: list[Observation] = []
        for trial in sorted(configurations, key=lambda t: t.ordinal):
            state = (
                trial.run[-1] if trial.run else None,
                len(trial.runs),
                trial.executing,
                trial.status == "failed",
            )
            known = self._known.get(trial.trial_id)
            if known is None or known[0] != state:
                known = self._known[trial.trial_id] = state, self._seen(trial)
            if known[1] is not None:
                found.append(known[1])
        return remembered(found, self._space.sampler.history)

    def _seen(self, trial: Trial) -> Observation | None:
        params = self._space.searched(trial.overrides)
        if params is None or trial.status == "failed":
            return None
        reached = self._reached(trial)
        if reached is not None:
            return Observation(params, "measured", reached[0], reached[1], trial.notes)
        return Observation(params, "running", notes=trial.notes) if trial.executing else None

    def _reached(self, trial: Trial) -> tuple[tuple[float, ...], int] | None:
        """The objectives at the highest rung, and how many rungs that is short of full length."""
        for short, rung in enumerate(reversed(self._space.ladder)):
            values = trial.merits_at(rung.epochs, self._space.objectives)
            if values is not None:
                return values, short
        return None

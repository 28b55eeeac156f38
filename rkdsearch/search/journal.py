"""A study for `optuna-dashboard`: `<study>/optuna.journal`, derived from the ledger and never read by the search.

Every trial that has ended is there once: finished ones as COMPLETE, stopped ones as PRUNED, failed
ones as FAIL. A journal that is missing, damaged, or no longer true (a stopped trial was promoted
after all) is written anew.
"""

from collections.abc import Iterable
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from rkdsearch.results.objectives import OBJECTIVES
from rkdsearch.search.ledger import Trial
from rkdsearch.search.sampler import quiet
from rkdsearch.space.space import SearchSpace

FILE = "optuna.journal"
_STATES = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}


class Journal:
    """The journal of the study in `folder`."""

    def __init__(self, folder: Path, space: SearchSpace) -> None:
        self.file = folder / FILE
        self._name = folder.name
        self._space = space
        self._study: optuna.Study | None = None

    def sync(self, trials: Iterable[Trial]) -> None:
        """Bring the journal to what the ledger says."""
        ended = {t.trial_id: t for t in trials if t.status in _STATES}
        for lock in self.file.parent.glob(f"{FILE}.lock*"):
            lock.unlink()  # a driver that was killed while it wrote; there is one driver a study
        known = self._known()
        if known is None or any(
            trial_id not in ended or ended[trial_id].status != status
            for trial_id, status in known.items()
        ):
            self.file.unlink(missing_ok=True)
            self._study, known = None, {}
        for trial_id, trial in ended.items():
            if trial_id not in known:
                self.add(trial)

    def add(self, trial: Trial) -> None:
        """A trial has ended."""
        with quiet():
            self._opened().add_trial(self._frozen(trial))

    def _known(self) -> dict[str, str] | None:
        """The status of every trial in the journal; None where it cannot be read."""
        if not self.file.exists():
            return {}
        try:
            with quiet():
                return {
                    t.user_attrs["trial_id"]: t.user_attrs["status"]
                    for t in self._opened().get_trials(deepcopy=False)
                }
        except Exception:  # noqa: BLE001 - half a line after SIGKILL, another version's file: whatever it is, it is written anew
            return None

    def _opened(self) -> optuna.Study:
        if self._study is None:
            storage = JournalStorage(JournalFileBackend(str(self.file)))
            directions = [
                StudyDirection.MINIMIZE if OBJECTIVES[name].minimised else StudyDirection.MAXIMIZE
                for name in self._space.objectives
            ]
            self._study = optuna.create_study(
                study_name=self._name, storage=storage, directions=directions, load_if_exists=True
            )
            self._study.set_metric_names(list(self._space.objectives))
        return self._study

    def _frozen(self, trial: Trial) -> FrozenTrial:
        params: dict[str, object] = {}
        distributions: dict[str, BaseDistribution] = {}
        for parameter in self._space.parameters:
            # Published settings may lie outside the space: what lies outside is left out.
            if parameter.name in trial.overrides and parameter.holds(
                trial.overrides[parameter.name]
            ):
                params[parameter.name] = trial.overrides[parameter.name]
                distributions[parameter.name] = parameter.distribution
        state = _STATES[trial.status]
        best = trial.best
        measured = (
            {}
            if best is None
            else {name: trial.value(name, best) for name in self._space.objectives}
        )
        return optuna.trial.create_trial(
            state=state,
            values=list(measured.values()) if state == TrialState.COMPLETE else None,
            params=params,
            distributions=distributions,
            user_attrs={
                "trial_id": trial.trial_id,
                "status": trial.status,
                "epochs": len(trial.epochs),
                "label": trial.label,
                "method": trial.config.to_dict()["method"]["name"],
                **({"error": trial.error} if trial.error else measured),
            },
        )

"""Journal for `optuna-dashboard`: `<study>/optuna.journal`, written from the ledger.

The search never reads it. Every trial that has ended is in it once: finished trials as COMPLETE,
stopped ones as PRUNED, failed ones as FAIL. A journal that is missing, damaged or outdated (a
stopped trial was promoted later) is written again.
"""

from collections.abc import Iterable
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from rkdsearch.results.objectives import OBJECTIVES
from rkdsearch.results.states import Status
from rkdsearch.results.store import Store
from rkdsearch.search.sampler import quiet_optuna
from rkdsearch.search.trial import Trial
from rkdsearch.space.space import SearchSpace, values_of

FILE = "optuna.journal"
_STATES = {
    Status.FINISHED: TrialState.COMPLETE,
    Status.STOPPED: TrialState.PRUNED,
    Status.FAILED: TrialState.FAIL,
}


class Journal:
    """Journal of the study in `folder`."""

    def __init__(self, folder: Path, space: SearchSpace) -> None:
        self.file = folder / FILE
        self._name = Store(folder).name
        self._space = space
        self._study: optuna.Study | None = None

    def sync(self, trials: Iterable[Trial]) -> None:
        """Write what the ledger has and the journal lacks."""
        ended = {t.trial_id: t for t in trials if t.status in _STATES}
        for lock in self.file.parent.glob(f"{FILE}.lock*"):
            lock.unlink()  # left by a killed driver; a study has one driver at a time
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
        """Add a trial that has ended."""
        with quiet_optuna():
            self._opened().add_trial(self._frozen(trial))

    def _known(self) -> dict[str, str] | None:
        """Status of every trial in the journal; None where it cannot be read."""
        if not self.file.exists():
            return {}
        try:
            with quiet_optuna():
                return {
                    t.user_attrs["trial_id"]: t.user_attrs["status"]
                    for t in self._opened().get_trials(deepcopy=False)
                }
        # half a line after SIGKILL, a file of another version: it is written again
        except Exception:  # noqa: BLE001
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
        # values of a baseline may lie outside the space: Optuna would refuse them
        inside = self._space.coordinates(values_of(trial.config))[0]
        known = [p for p in self._space.parameters if p.name in inside]
        params = {p.name: p.counted(inside[p.name]) for p in known}
        distributions = {p.name: p.distribution for p in known}
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

"""Adapters between Ray Tune and a study: searcher, scheduler and callback.

They translate only. The study decides which trial runs, trains on or stops.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, assert_never

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from typing_extensions import override

from rkdsearch.errors import DiskError, Failure
from rkdsearch.execution import messages
from rkdsearch.execution.failures import Streak
from rkdsearch.execution.interruption import Interruption
from rkdsearch.execution.lost_workers import killed_for_memory
from rkdsearch.execution.messages import (
    Answer,
    EpochReport,
    FullDisk,
    Notice,
    TrialFailure,
    WorkOrder,
)
from rkdsearch.file_lock import writer_of
from rkdsearch.plugins import allowed_imports
from rkdsearch.search.study import Study

LISTEN_EVERY_SECONDS = 0.25
PLACES_EVERY_SECONDS = 2.0


class _StudyAdapter:
    """An adapter that Tune may pickle at any time. Its state is the study, which is not pickled."""

    study: Study

    @override
    def __getstate__(self) -> dict[str, Any]:
        return {}


def _trial_id(trial: Any) -> str:
    """The study's name of a trial of Tune's."""
    return str(trial.config["trial_id"])


class StudySearcher(_StudyAdapter, Searcher):
    """Tune's searcher: the study's next assignment, and trials that ended without an answer."""

    def __init__(
        self,
        study: Study,
        interruption: Interruption,
        streak: Streak,
        places: Callable[[], int],
    ) -> None:
        super().__init__()
        self.study = study
        self._interruption = interruption
        self._places = places
        self._places_now, self._places_at = 0, -math.inf
        self._streak = streak
        self._writer = writer_of(study.folder)
        self._trial_ids: dict[str, str] = {}  # Tune's name of a trial -> the study's

    @override
    def suggest(self, trial_id: str) -> Any:
        if self._full:
            return None
        assignment = self.study.next()
        if assignment is None:
            return Searcher.FINISHED if self.study.done else None
        self._trial_ids[trial_id] = assignment.trial_id
        order = WorkOrder(
            replace(assignment, folder=assignment.folder.resolve()),
            allowed_imports(),
            self.study.space.resources,
            self.study.folder.resolve(),
            self._writer,
        )
        return {"trial_id": assignment.trial_id, **messages.packed(order)}

    @property
    def _full(self) -> bool:
        """True where as many trials wait as the cluster can take, and one at least.

        A trial that waits longer than it must was proposed without the results of the meantime.
        """
        executing, waiting = len(self.study.ledger.executing), len(self.study.ledger.waiting)
        if not waiting:
            return False
        if time.monotonic() - self._places_at > PLACES_EVERY_SECONDS:
            self._places_now, self._places_at = self._places(), time.monotonic()
        return executing >= self._places_now

    @override
    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: the scheduler reads results."""

    @override
    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        known = self._trial_ids.pop(trial_id, None)
        if known is None or not self.study.trials[known].executing:
            return
        with self._interruption.noting():
            if error:
                lost = self.study.space.resources.max_failures + 1
                reason = f"its worker or node was lost {lost} times"
                self.study.fail(known, reason, Failure.WORKER)
                self._streak.add(known, reason, Failure.WORKER)
            else:
                self.study.interrupt(known)

    @override
    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the study's ledger is the memory."""

    @override
    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the study's ledger is the memory."""


class StudyScheduler(_StudyAdapter, FIFOScheduler):
    """Tune's scheduler: the study's decision on each answer of a worker."""

    def __init__(
        self,
        study: Study,
        notice: Callable[[str], None],
        interruption: Interruption,
        streak: Streak,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray is untyped
        self.study = study
        self._notice = notice
        self._interruption = interruption
        self._streak = streak

    @override
    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        answer: Answer = messages.unpacked(result)
        with self._interruption.noting():
            continues = self._continues(_trial_id(trial), answer)
            if isinstance(answer, TrialFailure) and answer.kind is Failure.WORKER:
                # A stopped trial's process is given to the next trial. Asked for one more step,
                # this process raises, and Tune ends it; max_failures = 0 forbids a retry.
                trial.max_failures = 0
                return self.CONTINUE
            return self.CONTINUE if continues else self.STOP
        return self.CONTINUE  # the callback ends the search after this step

    def _continues(self, trial_id: str, answer: Answer) -> bool:
        match answer:
            case EpochReport(result, facts):
                self._streak.end()
                return self.study.report(trial_id, result, facts)
            case TrialFailure(error, kind):
                self.study.fail(trial_id, error, kind)
                self._streak.add(trial_id, error, kind)
                return False
            case FullDisk(error):
                raise DiskError(error)
            case Notice(text):
                self._notice(f"trial {trial_id}: {text}")
                return True
            case _:
                assert_never(answer)


class StudyCallback(_StudyAdapter, tune.Callback):
    """Tune's callback: retry notices, the listener's turn, and the end where there is a reason."""

    def __init__(
        self,
        study: Study,
        listener: Callable[[Study], None] | None,
        notice: Callable[[str], None],
        interruption: Interruption,
    ) -> None:
        self.study = study
        self._listener = listener
        self._notice = notice
        self._interruption = interruption
        self._listen_at = 0.0
        self._failures: dict[str, int] = {}  # of Tune's trials, so far

    @override
    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        with self._interruption.noting():
            self.study.place(_trial_id(trial))

    @override
    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.study.displace(_trial_id(trial))
        known, most = self._failures.get(trial.trial_id, 0), self.study.space.resources.max_failures
        self._failures[trial.trial_id] = trial.num_failures
        counted = (
            f"{trial.num_failures} of {most}"
            if trial.num_failures > known
            else "its node was preempted, which is not counted"
        )
        memory = (
            ", because its machine ran out of memory (fewer trials run at once with a larger"
            " resources.cpu)"
            if killed_for_memory(trial)
            else ""
        )
        self._notice(f"trial {_trial_id(trial)} lost its worker{memory}, started again ({counted})")

    @override
    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._interruption.reason is not None:
            for trial in trials:
                if trial.temporary_state.ray_actor is not None:
                    # Tune would wait up to 10 s for the end of the epoch.
                    ray.kill(trial.temporary_state.ray_actor)
            raise self._interruption.reason
        started = time.monotonic()
        if self._listener is not None and started >= self._listen_at:
            self._listener(self.study)
            ended = time.monotonic()
            # A listener is slow where trials are many: it gets a twentieth of the driver's time.
            self._listen_at = ended + max(LISTEN_EVERY_SECONDS, 20 * (ended - started))

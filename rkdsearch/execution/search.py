"""A study run to its end on Ray Tune.

Tune never pauses a trial here. For Tune a trial that waits at its rung is stopped, and its
promotion is a new suggestion, which resumes from the trial's own checkpoint. Promotion, an
interrupted search and a lost node therefore take the same path.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import ray
from ray import tune
from ray.tune.execution import class_cache

from rkdsearch.errors import DiskError
from rkdsearch.execution.failures import Streak
from rkdsearch.execution.interruption import Interruption, Signal
from rkdsearch.execution.lost_workers import tell_tune
from rkdsearch.execution.placement import check_machine, placement, places
from rkdsearch.execution.ray_session import connected
from rkdsearch.execution.trainable import RayTrial
from rkdsearch.execution.tune_adapters import StudyCallback, StudyScheduler, StudySearcher
from rkdsearch.execution.watch import watched
from rkdsearch.search.study import Study


def run_search(
    study: Study,
    *,
    address: str | None = None,
    listener: Callable[[Study], None] | None = None,
    notice: Callable[[str], None] = lambda _: None,
    leave: Callable[[BaseException], NoReturn] | None = None,
) -> None:
    """Run the study to its end, on the cluster at `address` or on this machine.

    `listener` is called with the study now and then; `notice` is told of the start of Ray,
    lost workers and damaged checkpoints. Raises KeyboardInterrupt on Ctrl-C, Terminated on SIGTERM,
    LostHeadError where Ray's head is gone, and DiskError where a row or a checkpoint cannot be
    written; after each, the study can be resumed. `leave` ends the process where Ray does not let
    the search end: it is called with the same error, in another thread.
    """
    _patch_tune()
    interruption, streak = Interruption(study.folder), Streak()
    scratch = study.folder.resolve() / ".ray"

    def close() -> None:
        _end(study, scratch)

    with watched(interruption, close, leave) as watch, connected(address, notice):
        watch.begin()
        resources = study.space.resources
        if address is None:
            machine = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray is untyped
            check_machine(resources, machine)
        shutil.rmtree(scratch, ignore_errors=True)  # a killed driver leaves it
        try:
            with interruption.noting_signals():
                tune.run(
                    RayTrial,
                    name="search",
                    config={},
                    search_alg=StudySearcher(
                        study, interruption, streak, lambda: places(resources)
                    ),
                    scheduler=StudyScheduler(study, notice, interruption, streak),
                    callbacks=[StudyCallback(study, listener, notice, interruption)],
                    num_samples=-1,
                    resources_per_trial=placement(resources),
                    reuse_actors=True,
                    max_failures=resources.max_failures,
                    raise_on_failed_trial=False,
                    storage_path=str(scratch),
                    trial_dirname_creator=lambda trial: trial.trial_id,
                    verbose=0,
                )
        except Exception as error:
            cause = interruption.cause_of(error)
            if isinstance(cause, Signal):
                raise cause.interrupt from None
            if cause is error:
                raise
            raise cause from error
        finally:
            close()
        watch.end()
    if study.done:
        study.close()


def _patch_tune() -> None:
    """Change what Tune has no option for.

    It would give its actors an environment with variables of the driver, keys of AWS among them.
    Ray writes it to a log that every user of the machine can read, and starts a process for it (a
    second) in place of one that waits already.
    """
    class_cache.DEFAULT_ENV_VARS = {}
    class_cache.ENV_VARS_TO_PROPAGATE = set()
    tell_tune()


def _end(study: Study, scratch: Path) -> None:
    """Write that no trial is trained any more, and remove Tune's own files."""
    for trial in study.ledger.executing:
        with suppress(DiskError):  # the trial's row says `running` already
            study.interrupt(trial.trial_id)
    shutil.rmtree(scratch, ignore_errors=True)

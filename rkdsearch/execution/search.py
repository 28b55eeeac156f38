"""A study run to its end on Ray Tune.

Tune never pauses a trial here. For Tune a trial that waits at its rung is stopped, and its
promotion is a new suggestion, which resumes from the trial's own checkpoint. Promotion, an
interrupted search and a lost node therefore take the same path.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress

import ray
from ray import tune

from rkdsearch.errors import DiskError
from rkdsearch.execution.failures import Streak
from rkdsearch.execution.interruption import CtrlC, Interruption
from rkdsearch.execution.placement import check_machine, placement, places
from rkdsearch.execution.ray_session import connected
from rkdsearch.execution.trainable import RayTrial
from rkdsearch.execution.tune_adapters import StudyCallback, StudyScheduler, StudySearcher
from rkdsearch.search.study import Study


def run_search(
    study: Study,
    *,
    address: str | None = None,
    listener: Callable[[Study], None] | None = None,
    notice: Callable[[str], None] = lambda _: None,
) -> None:
    """Run the study to its end, on the cluster at `address` or on this machine.

    `listener` is called with the study now and then; `notice` is told of lost workers and damaged
    checkpoints. Raises KeyboardInterrupt on Ctrl-C, and DiskError where a row or a checkpoint
    cannot be written; after both, the study can be resumed.
    """
    interruption, streak = Interruption(study.folder), Streak()
    with connected(address):
        resources = study.space.resources
        if address is None:
            machine = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray is untyped
            check_machine(resources, machine)
        scratch = study.folder.resolve() / ".ray"
        try:
            with interruption.noting_ctrl_c():
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
            if isinstance(cause, CtrlC):
                raise KeyboardInterrupt from None
            if cause is error:
                raise
            raise cause from error
        finally:
            for trial in study.ledger.executing:
                with suppress(DiskError):  # the trial's row says `running` already
                    study.interrupt(trial.trial_id)
            shutil.rmtree(scratch, ignore_errors=True)
    if study.done:
        study.close()

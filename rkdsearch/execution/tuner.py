"""Ray's part of a search: it places trials, keeps workers warm and notices what is lost. What is tried and who goes on, `study.py` says.

Tune never pauses a trial here: a trial that waits at its rung is stopped for Ray, and its promotion
is a suggestion like any other, which goes on from the trial's own checkpoint. So an interrupted
search, a promotion and a lost node are one and the same path.
"""

import errno
import json
import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from typing_extensions import override

from rkdsearch.errors import DiskError, Failure, RkdError, StudyError
from rkdsearch.execution.trainable import RayTrial
from rkdsearch.plugins import allowed_imports
from rkdsearch.search.study import Study
from rkdsearch.space.settings import Resources
from rkdsearch.training.epoch import EpochResult

Listener = Callable[[Study], None]
Notice = Callable[[str], None]

# Read by Ray in the driver and in its workers. Trials keep the folder that the command was given
# in: data and teachers have relative paths.
ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: at once, with the rows in order
    # a lost worker is one sentence of ours, not Ray's traceback
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "PYTHONWARNINGS": "ignore",
}


def search(
    study: Study,
    *,
    address: str | None = None,
    listener: Listener | None = None,
    notice: Notice = lambda _: None,
) -> None:
    """Run the study to its end; `listener` may look at it now and then, `notice` is given sentences about lost workers and checkpoints.

    KeyboardInterrupt, and DiskError, which is raised where a row or a checkpoint cannot be written,
    leave a study that can be taken up again.
    """
    end = _End(study)
    with connected(address):
        resources = study.space.resources
        if address is None:
            _fits(resources, ray.cluster_resources())  # type: ignore[no-untyped-call]  # Ray leaves it untyped
        scratch = study.folder.resolve() / ".ray"
        try:
            with _ctrl_c(end):
                tune.run(
                    RayTrial,
                    name="search",
                    config={},
                    search_alg=_Asks(study, resources, end),
                    scheduler=_Decides(study, notice, end),
                    callbacks=[_Listens(study, listener, notice, end)],
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
            # where Ray itself wanted to write
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                end.reason = end.reason or end.disk(error)
            if isinstance(end.reason, _CtrlC):
                raise KeyboardInterrupt from None
            if end.reason in (None, error):
                raise
            raise end.reason from error
        finally:
            for trial in study.executing:
                with suppress(DiskError):  # its row says `running` already
                    study.interrupt(trial.trial_id)
            shutil.rmtree(scratch, ignore_errors=True)
    if study.done:
        study.close()


def placement(resources: Resources) -> tune.PlacementGroupFactory:
    """One atomic group a trial: the trial's actor itself, or, for a gang, the actor and a bundle for each process."""
    process = (
        {"CPU": resources.cpu, "GPU": resources.gpu} if resources.gpu else {"CPU": resources.cpu}
    )
    if resources.processes == 1:
        return tune.PlacementGroupFactory([process])
    return tune.PlacementGroupFactory(
        [{"CPU": 0.01}, *[process] * resources.processes], strategy="PACK"
    )


def _fits(resources: Resources, there: Mapping[str, float]) -> None:
    """Raises StudyError where this machine can never hold one trial: Ray would wait for ever."""
    for kind, asked in placement(resources).required_resources.items():
        has = there.get(kind, 0.0)
        if asked > has:
            raise StudyError(
                f"resources: a trial of {resources.processes} processes asks {asked:g} {kind},"
                f" which must be <= {has:g}, what this machine has; lower resources.processes or"
                f" resources.{kind.lower()} (fractions share one), or name a cluster with --address"
            )


def _awaited(resources: Resources, nodes: Sequence[Mapping[str, float]]) -> str | None:
    """What a trial needs and this cluster lacks as it is now, as a sentence; None where it has room. A cluster may grow: that is no error."""
    group = placement(resources)
    process = group.bundles[-1]
    if not any(
        all(node.get(kind, 0.0) >= asked for kind, asked in process.items()) for node in nodes
    ):
        wanted = " and ".join(f"{asked:g} {kind}" for kind, asked in process.items())
        return (
            f"no node of the cluster has {wanted} now, which a trial's process asks: trials wait"
            " until it grows"
        )
    for kind, asked in group.required_resources.items():
        has = sum(node.get(kind, 0.0) for node in nodes)
        if asked > has:
            return (
                f"the cluster has {has:g} {kind} now, and a trial asks {asked:g}: trials wait until"
                " it grows"
            )
    return None


@contextmanager
def room(resources: Resources, address: str | None, notice: Notice) -> Iterator[None]:
    """A place for trials: the cluster is joined, or this machine is large enough. Raises StudyError where it is not there.

    `notice` is told where the cluster has to grow first.
    """
    if address is not None:
        with connected(address):
            nodes: Any = ray.nodes()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
            awaited = _awaited(resources, [node["Resources"] for node in nodes if node["Alive"]])
            if awaited is not None:
                notice(awaited)
            yield
        return
    # Ray itself is slow to start, and only a search needs it here
    if not ray.is_initialized() and "RAY_ADDRESS" not in os.environ:
        _fits(resources, {"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()})
    yield


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Ray, quiet: a cluster's where an address is given (or one was connected to before), else this machine's, not visible from outside."""
    os.environ |= {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
    for name in ("ray", "ray.tune", "ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # lists failed trials by its own names at the end: their rows say why
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
    # Ray has no public way: `log_to_driver` silences workers, but not what the raylet says of a
    # dead one, in eight lines.
    ray._private.worker._worker_logs_enabled = False  # noqa: SLF001
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    if address is None:
        # Its processes inherit what stands here. Told as a cluster is, it would throw away the
        # workers that it starts with: 6 s of 21.
        ray.init(include_dashboard=False, **quiet)
    else:
        try:
            ray.init(address=address, runtime_env={"env_vars": ENVIRONMENT}, **quiet)
        # the latter where nobody answers at the address, after two minutes
        except (Exception, SystemExit) as error:
            why = (
                ""
                if isinstance(error, SystemExit)
                else f" ({next(iter(str(error).splitlines()), type(error).__name__)})"
            )
            raise StudyError(
                f"--address {address}: there is no Ray cluster to join{why}; start one"
                " (docs/cluster.md), or leave --address out to use this machine"
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


class _CtrlC(Exception):  # noqa: N818 - nothing went wrong
    """Ctrl-C as Tune can take it: after a KeyboardInterrupt its placement groups stay, and the next search of this process waits for ever."""


class _End:
    """Why the search must end now. It is noted, and raised between two steps of Ray's loop: raised inside, Ray may lose it or reword it."""

    def __init__(self, study: Study) -> None:
        self.reason: Exception | None = None
        self._folder = study.folder

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Around what may write to the study's folder."""
        try:
            yield
        except RkdError as error:
            self.reason = self.reason or error
        except OSError as error:
            self.reason = self.reason or self.disk(error)

    def disk(self, error: OSError) -> DiskError:
        """The same as a sentence."""
        return DiskError.at(self._folder, error)


@contextmanager
def _ctrl_c(end: _End) -> Iterator[None]:
    """The first Ctrl-C is noted, a second one is raised at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(_number: int, _frame: object) -> None:
        end.reason = _CtrlC()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _OfStudy:
    """Ray pickles searchers, schedulers and callbacks as it goes; the study stays where it is, and is its own memory."""

    study: Study

    @override
    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Asks(_OfStudy, Searcher):
    """Ray asks here what to run next."""

    def __init__(self, study: Study, resources: Resources, end: _End) -> None:
        super().__init__()
        self.study = study
        self._end = end
        self._resources = resources
        self._ours: dict[str, str] = {}  # Ray's name of a trial -> ours

    @override
    def suggest(self, trial_id: str) -> Any:
        assignment = self.study.next()
        if assignment is None:
            return Searcher.FINISHED if self.study.done else None
        self._ours[trial_id] = assignment.trial_id
        return {
            "trial_id": assignment.trial_id,
            "assignment": json.dumps(
                {
                    "trial_id": assignment.trial_id,
                    "config": assignment.config.to_dict(),
                    "folder": str(assignment.folder.resolve()),
                    "fidelities": [fidelity.model_dump() for fidelity in assignment.fidelities],
                    "allow_imports": allowed_imports(),
                    "processes": self._resources.processes,
                    "cpu": self._resources.cpu,
                    "gpu": self._resources.gpu,
                }
            ),
        }

    @override
    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """The scheduler has heard it."""

    @override
    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        ours = self._ours.pop(trial_id, None)
        if ours is None or not self.study.trials[ours].executing:
            return
        with self._end.noting():
            if error:
                self.study.fail(
                    ours,
                    f"its worker or node was lost {self._resources.max_failures + 1} times",
                    Failure.WORKER,
                )
            else:
                self.study.interrupt(ours)

    @override
    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the memory."""

    @override
    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the memory."""


class _Decides(_OfStudy, FIFOScheduler):
    """Ray asks here whether a trial goes on."""

    def __init__(self, study: Study, notice: Notice, end: _End) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray's own
        self.study = study
        self._notice = notice
        self._end = end

    @override
    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        with self._end.noting():
            goes_on = self._goes_on(trial.config["trial_id"], result)
            if result.get("failure") == "worker":
                # Stopped, its process would be the next trial's. Asked for one more step it raises,
                # and Tune lets go of it, once and for all.
                trial.max_failures = 0
                return self.CONTINUE
            return self.CONTINUE if goes_on else self.STOP
        return self.CONTINUE  # as far as Ray is concerned: the search is about to end

    def _goes_on(self, ours: str, result: dict[str, Any]) -> bool:
        if "disk" in result:
            raise DiskError(result["disk"])
        if "failure" in result:
            self.study.fail(ours, result["error"], result["failure"])
            return False
        if "notice" in result:
            self._notice(f"trial {ours}: {result['notice']}")
        return self.study.report(
            ours, EpochResult.from_dict(json.loads(result["result"])), json.loads(result["facts"])
        )


class _Listens(_OfStudy, tune.Callback):
    """Ray's event loop, as a person may watch it."""

    def __init__(self, study: Study, listener: Listener | None, notice: Notice, end: _End) -> None:
        self.study = study
        self._listener = listener
        self._notice = notice
        self._end = end
        self._listens_at = 0.0

    @override
    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ours, lost, most = (
            trial.config["trial_id"],
            trial.num_failures,
            self.study.space.resources.max_failures,
        )
        self._notice(f"trial {ours} lost its worker, started again ({lost} of {most})")

    @override
    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._end.reason is not None:
            for trial in trials:
                if trial.temporary_state.ray_actor is not None:
                    # Tune would wait for the end of its epoch, 10 s at most
                    ray.kill(trial.temporary_state.ray_actor)
            raise self._end.reason
        started = time.monotonic()
        if self._listener is not None and started >= self._listens_at:
            self._listener(self.study)
            ended = time.monotonic()
            # Ten thousand trials take their time to be drawn: a twentieth of the driver's, at most.
            self._listens_at = ended + max(0.25, 20 * (ended - started))

"""A connection to Ray: a cluster's, or one that is started on this machine."""

import logging
import os
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import _raylet
from ray._private import parameter, ray_constants
from ray._private.node import Node

from rkdsearch.errors import StudyError, Terminated
from rkdsearch.execution.reach import reach

# Ray gives its processes 30 s to start, which is not always enough on a busy machine.
STARTS = 5
# Ray listens on the loopback interface alone where this says so; it is meant for other systems.
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_AUTH_MODE = "RAY_AUTH_MODE"
_ray: Any = _raylet  # compiled, without types
_parameter: Any = parameter
_QUIET: dict[str, Any] = {
    "log_to_driver": False,
    "logging_level": logging.ERROR,
    "configure_logging": True,
}

# Read by Ray in the driver and in its workers.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # `interruption.py` handles Ctrl-C
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # the user reads one sentence about a lost worker, not Ray's traceback
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # `StudySearcher` limits them
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "PYTHONWARNINGS": "ignore",
}


@contextmanager
def connected(
    address: str | None, notice: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Connect to the cluster at `address`, or start Ray on this machine where that is None.

    Ray on this machine is seen by this machine alone. A connection that this process has already
    is used and left open. `notice` is told what is waited for. Raises StudyError where no cluster
    answers, or where Ray does not start.
    """
    with _own_environment():
        _silence()
        if ray.is_initialized():
            yield
            return
        if address is None:
            with _loopback(), _few_processes(), _own_signals(), _private_token():
                _start(notice)
        else:
            reach(address, notice)
            with _own_signals():
                _join(address)
        try:
            yield
        finally:
            ray.shutdown()


def _start(notice: Callable[[str], None]) -> None:
    """Start Ray on this machine, again where it does not come up in time."""
    notice("starting Ray on this machine: seconds, or a minute where the machine is busy")
    for start in range(1, STARTS + 1):
        try:
            # `local`: neither RAY_ADDRESS nor another search's Ray is joined. Workers inherit this
            # process's environment; a `runtime_env` would discard the workers that Ray prestarted
            # (6 s of 21).
            ray.init(address="local", include_dashboard=False, **_QUIET)
        # SystemExit: a process of Ray's could not be reached
        except (Exception, SystemExit) as error:
            logs = _sweep(error)
            _raise_terminated(error)
            why = next(iter(str(error).splitlines()), "") or type(error).__name__
            if start == STARTS:
                raise StudyError(
                    f"Ray did not start on this machine in {STARTS} tries ({why}); nothing is lost:"
                    " repeat the command when the machine is less busy"
                    + (f", or look for the cause in {logs}" if logs else "")
                ) from error
            notice(f"Ray did not start ({why}); try {start + 1} of {STARTS}")
            time.sleep(2**start)
        else:
            return


def _join(address: str) -> None:
    try:
        ray.init(address=address, runtime_env={"env_vars": ENVIRONMENT}, **_QUIET)
    # SystemExit: nobody answered within two minutes
    except (Exception, SystemExit) as error:
        _raise_terminated(error)
        if (versions := _mismatch(str(error))) is not None:
            raise StudyError(f"--address {address}: {versions}") from error
        why = (
            ""
            if isinstance(error, SystemExit)
            else f" ({next(iter(str(error).splitlines()), type(error).__name__)})"
        )
        raise StudyError(
            f"--address {address}: there is no Ray cluster to join{why}; start one"
            " (docs/cluster.md), or leave --address out to use this machine"
        ) from error


def _mismatch(message: str) -> str | None:
    """The sentence about Ray's refusal of another Ray or Python; None for other messages."""
    ray_versions, pythons = (re.findall(rf"{name}: (\S+)", message) for name in ("Ray", "Python"))
    if "Version mismatch" not in message or not len(ray_versions) == len(pythons) == 2:
        return None
    theirs, ours = (
        f"Ray {ray_version} and Python {python}"
        for ray_version, python in zip(ray_versions, pythons, strict=True)
    )
    way = (
        "install one lock with one Python on all machines"
        if pythons[0].rpartition(".")[0] != pythons[1].rpartition(".")[0]
        or ray_versions[0] != ray_versions[1]
        else "install one Python, or set RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor on all"
        " machines, before `ray start` too: the last number makes no difference to us"
    )
    return f"the cluster runs {theirs}, this machine {ours}: {way}"


def _raise_terminated(error: BaseException) -> None:
    """Raise Terminated where SIGTERM came while Ray started: its own handler calls `sys.exit`."""
    if isinstance(error, SystemExit) and error.code == signal.SIGTERM:
        raise Terminated from None


def _sweep(error: BaseException) -> str:
    """End the processes of a start that failed; returns the folder of their logs, where known.

    Ray keeps no handle on a node that did not come up: only the error's frames have it.
    """
    ray.shutdown()
    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("self")
        if isinstance(node, Node):
            node.kill_all_processes(check_alive=False, allow_graceful=False)
            return str(node.get_logs_dir_path())  # type: ignore[no-untyped-call]  # Ray is untyped
    return ""


@contextmanager
def _loopback() -> Iterator[None]:
    """Let a Ray that is started inside the block, and its processes, use 127.0.0.1 alone."""
    before = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(_LOOPBACK)
    ray_constants.ENABLE_RAY_CLUSTER = False  # read from the variable when Ray was imported
    os.environ[_LOOPBACK] = "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before[0]
        if before[1] is None:
            del os.environ[_LOOPBACK]
        else:
            os.environ[_LOOPBACK] = before[1]


@contextmanager
def _few_processes() -> Iterator[None]:
    """Leave out, of a Ray that is started inside the block, what one machine has no use for.

    That is the autoscaler, and the process that sends workers' output to the driver. Each costs a
    second of CPU time at the start, and the autoscaler another second at the end.
    """
    whole = _parameter.RayParams
    _parameter.RayParams = partial(whole, no_monitor=True, include_log_monitor=False)
    try:
        yield
    finally:
        _parameter.RayParams = whole


@contextmanager
def _own_environment() -> Iterator[None]:
    """Set Ray's variables inside the block, and put back what was there before: a notebook's own.

    Ray sets RAY_AUTH_MODE itself, and with it everything that this process starts later would ask
    for a token.
    """
    before, mode = dict(os.environ), os.environ.get(_AUTH_MODE)
    os.environ |= {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
    try:
        yield
    finally:
        # Ray sets PYTHONBREAKPOINT to its own debugger, which needs a cluster
        own = {"PYTHONBREAKPOINT", *(n for n in os.environ if n.startswith("RAY_"))}
        for name in {*ENVIRONMENT, *own}:
            if name in before:
                os.environ[name] = before[name]
            else:
                os.environ.pop(name, None)
        if mode is None:
            _ray.Config.initialize("")  # this process read the mode when Ray started


@contextmanager
def _private_token() -> Iterator[None]:
    """Keep the token that Ray writes inside the block from other users: it may run code as you.

    A file that was there before is its owner's, and is left alone.
    """
    file = Path.home() / ".ray" / "auth_token"
    existed = file.exists()
    with suppress(OSError):  # a home that takes no file: Ray says so
        file.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        yield
    finally:
        if not existed and file.exists():
            file.chmod(0o600)


def shared_token() -> str | None:
    """A sentence where other users of this machine can read the token; None where they cannot."""
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        mode = file.stat().st_mode & 0o777
    except OSError:
        return None
    return (
        f"{file}: must be readable by you alone, its mode is {mode:o}: whoever reads it runs code"
        f" as you on every node; chmod 600 {file}"
        if mode & 0o077
        else None
    )


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's handler of SIGTERM, which Ray replaces when it starts."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _silence() -> None:
    for name in ("ray", "ray.tune", "ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # `ray.tune.tune` lists failed trials by Tune's names at the end. Rows have the errors.
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
    # Ray has no public switch: `log_to_driver` silences workers, but not the eight lines of the
    # raylet about a dead worker.
    ray._private.worker._worker_logs_enabled = False  # noqa: SLF001

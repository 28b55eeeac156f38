"""A connection to Ray: a cluster's, or one that is started on this machine."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from rkdsearch.errors import StudyError
from rkdsearch.execution.reach import reach

# Read by Ray in the driver and in its workers.
ENVIRONMENT = {
    # Trials stay in the folder in which the command was given: data and teachers may have relative
    # paths.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
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
def connected(address: str | None) -> Iterator[None]:
    """Connect to the cluster at `address`, or start Ray on this machine where that is None.

    A connection that this process has already is used and left open. Raises StudyError where no
    cluster answers.
    """
    os.environ |= {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
    _silence()
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    if address is None:
        # Workers inherit this process's environment. A `runtime_env` would discard the workers that
        # Ray prestarted (6 s of 21).
        ray.init(include_dashboard=False, **quiet)
    else:
        reach(address)
        try:
            ray.init(address=address, runtime_env={"env_vars": ENVIRONMENT}, **quiet)
        # SystemExit: nobody answered within two minutes
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


def _silence() -> None:
    for name in ("ray", "ray.tune", "ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # `ray.tune.tune` lists failed trials by Tune's names at the end. Rows have the errors.
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
    # Ray has no public switch: `log_to_driver` silences workers, but not the eight lines of the
    # raylet about a dead worker.
    ray._private.worker._worker_logs_enabled = False  # noqa: SLF001

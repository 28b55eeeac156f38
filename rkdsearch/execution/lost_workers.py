"""Lost workers as Ray Tune should see them, whatever took them.

Where a node's memory is 95 % full, Ray kills workers. Its error is then not that of a lost actor,
so Tune takes it for a bug of its own and ends the whole search; and so for some losses of nodes.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

from ray import exceptions
from ray.air.execution._internal import RayActorManager

_GONE = (
    exceptions.OutOfMemoryError,
    exceptions.NodeDiedError,
    exceptions.ObjectLostError,
    exceptions.WorkerCrashedError,
)


def as_loss(error: Exception) -> Exception:
    """The error of a call to a worker, as a lost actor's where the worker is gone."""
    alive = isinstance(error, exceptions.RayTaskError)  # the worker raised it
    if isinstance(error, _GONE) and not alive:
        return exceptions.RayActorError(error_msg=f"{type(error).__name__}: {error}")
    return error


_failed = RayActorManager._actor_task_failed  # noqa: SLF001


def tell_tune() -> None:
    """Let Tune take every lost worker for one. It has no public place for that."""
    RayActorManager._actor_task_failed = _lost  # type: ignore[method-assign]  # noqa: SLF001


def _lost(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
    _failed(self, tracked_actor_task, as_loss(exception))


def killed_for_memory(trial: Any) -> bool:
    """True where memory took the last worker of Tune's trial, or a process of its gang."""
    said = ""
    with suppress(OSError, TypeError):  # Tune has written no file, or knows no place for one
        said = Path(trial.error_file).read_text(errors="replace")
    return exceptions.OutOfMemoryError.__name__ in said.rpartition("Failure # ")[2]

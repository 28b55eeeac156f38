"""Errors of a worker as sentences: the user's, the machine's, or a bug of one method."""

import re

import torch

from rkdsearch.errors import (
    Failure,
    FileError,
    OutOfMemoryError,
    RkdError,
    StudyError,
    WorkerError,
    is_out_of_memory,
    place_of,
    short,
)

# So many trials in a row that the machine failed in the same way end the search.
ALIKE = 3

# In the messages of a process whose peer has ended.
_PEER = re.compile("gloo|nccl|closed by peer", re.IGNORECASE)


def as_rkd_error(error: Exception) -> RkdError:
    """The error as an RkdError of the right kind. One that is not ours gets its file and line."""
    if isinstance(error, RkdError):
        return error
    place = place_of(error)
    if is_out_of_memory(error):
        return OutOfMemoryError(f"{short(error)}{place}")
    if isinstance(error, torch.AcceleratorError):
        # The other lines are CUDA's advice to the author of the kernel.
        reason = str(error).partition("\n")[0]
        return WorkerError(
            f"{reason}{place}: this process can no longer use the device, later trials get a new"
            " process; CUDA_LAUNCH_BLOCKING=1 finds the true place"
        )
    if isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and _PEER.search(str(error))
    ):
        return WorkerError(
            f"{short(error)}{place}; another process of its gang is lost or cannot be reached"
        )
    kind = FileError if isinstance(error, OSError) else RkdError
    return kind(f"{short(error)}{place}")


class Streak:
    """Failures of the machine since the last finished epoch of any trial.

    A cluster whose workers cannot meet, or do not see a folder, would fail every trial of the
    search within minutes.
    """

    def __init__(self) -> None:
        self._alike: list[str] = []  # trials in a row that failed in one way
        self._way = ""

    def end(self) -> None:
        """Note a finished epoch: the machine is able to train."""
        self._alike.clear()

    def add(self, trial_id: str, error: str, failure: Failure) -> None:
        """Note a failed trial. Raises StudyError where it is one of `ALIKE` in a row.

        Failures of the method, and full devices, which depend on the trial, are left out.
        """
        if failure not in (Failure.WORKER, Failure.FILES):
            return
        way = re.sub(r"\d+", "0", error)  # ports, processes and trials have other numbers each time
        if way != self._way:
            self._alike.clear()
        self._way = way
        self._alike.append(trial_id)
        if len(self._alike) == ALIKE:
            raise StudyError(
                f"{ALIKE} trials in a row ({', '.join(self._alike)}) failed in the same way, and no"
                f" epoch was finished in between: {error}; the search has stopped, so that the"
                " others do not fail too: mend the cause (`rkdsearch doctor` looks for it), then"
                " continue with --resume, which retries these trials"
            )

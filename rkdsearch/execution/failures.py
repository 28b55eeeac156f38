"""Errors of a worker as sentences: the user's, the machine's, or a bug of one method."""

import re
import traceback
from pathlib import Path

import torch

from rkdsearch.errors import FileError, OutOfMemoryError, RkdError, WorkerError, is_out_of_memory

# In the messages of a process whose peer has ended.
_PEER = re.compile("gloo|nccl|closed by peer", re.IGNORECASE)


def as_rkd_error(error: Exception) -> RkdError:
    """The error as an RkdError of the right kind. One that is not ours gets its file and line."""
    if isinstance(error, RkdError):
        return error
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"({Path(last.filename).name}:{last.lineno})"
    if is_out_of_memory(error):
        return OutOfMemoryError(f"{type(error).__name__}: {error} {place}")
    if isinstance(error, torch.AcceleratorError):
        # The other lines are CUDA's advice to the author of the kernel.
        reason = str(error).partition("\n")[0]
        return WorkerError(
            f"{reason} {place}: this process can no longer use the device, later trials get a new"
            " process; CUDA_LAUNCH_BLOCKING=1 finds the true place"
        )
    if isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and _PEER.search(str(error))
    ):
        return WorkerError(
            f"{type(error).__name__}: {error} {place}; another process of its gang is lost or"
            " cannot be reached"
        )
    kind = FileError if isinstance(error, OSError) else RkdError
    return kind(f"{type(error).__name__}: {error} {place}")

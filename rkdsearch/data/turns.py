"""Processes that start together want the same file: one makes it while the others wait."""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

FILE = ".rkdsearch.lock"


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Be the only process inside the block; on all hosts that share the folder, where its file system shares locks. It leaves an empty file there.

    A lock of the operating system: it ends with its process, waits as long as the work takes, and
    needs no group of processes; trials of a search have none. Where nobody may write the folder, or
    its file system knows no locks, nobody waits.
    """
    with ExitStack() as held:
        with suppress(OSError):
            fcntl.flock(held.enter_context(_opened(folder / FILE)), fcntl.LOCK_EX)
        yield


def _opened(file: Path) -> IO[bytes]:
    try:
        return file.open("ab")
    except PermissionError:  # another user's: to wait for it, reading is enough
        return file.open("rb")

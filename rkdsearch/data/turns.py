"""Processes that start together want the same file: one makes it while the others wait."""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

FILE = ".rkdsearch.lock"


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Be the only process inside the block, on all hosts that share the folder. It leaves an empty file there.

    A lock of the operating system: it ends with its process, waits as long as the work takes, and needs no group of processes; trials of a
    search have none. Where the folder cannot be written, or its file system knows no locks, nobody waits.
    """
    with ExitStack() as held:
        with suppress(OSError):
            fcntl.flock(held.enter_context((folder / FILE).open("ab")), fcntl.LOCK_EX)
        yield

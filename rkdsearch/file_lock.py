"""One writer a folder: who searches or trains there holds a lock of the operating system, which ends with its process, however that ends.

Readers (`status`, `report`, `evaluate`, `export`) do not ask for it.
"""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from rkdsearch.errors import DiskError, StudyError

FILE = ".driver"
_KNOWS_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextmanager
def one_driver(
    folder: Path,
    doing: str = "searched",
    way_out: str = "wait for its end, or stop it, and go on with --resume",
) -> Iterator[None]:
    """Be the folder's only writer inside the block; what is `doing` there is said to the second one.

    Raises StudyError with who it is and the `way_out`, DiskError where the folder cannot be
    written: before anything is computed for it. On a file system that knows no locks nobody is
    refused.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / FILE).open("a+b", buffering=0)
    except OSError as error:
        raise DiskError.at(folder, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read().decode(errors="replace").strip() or "written by another process"
            raise StudyError(f"{folder}: is being {who}; {way_out}") from None
        except OSError as error:
            if error.errno not in _KNOWS_NO_LOCKS:
                raise DiskError.at(folder / FILE, error) from error
        try:
            file.truncate(0)
            who = (
                f"{doing} by process {os.getpid()} on {socket.gethostname()} since"
                f" {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n"
            )
            file.write(who.encode())
        except OSError as error:  # a full disk: said before anything is computed
            raise DiskError.at(folder, error) from error
        try:
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)

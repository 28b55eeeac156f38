"""One driver a study: who searches holds a lock of the operating system, which ends with its process, however that ends.

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
def one_driver(study: Path) -> Iterator[None]:
    """Be the study's only driver inside the block. Raises StudyError with who it is, DiskError where the folder cannot be written.

    On a file system that knows no locks nobody is refused.
    """
    try:
        study.mkdir(parents=True, exist_ok=True)
        file = (study / FILE).open("a+b", buffering=0)
    except OSError as error:
        raise DiskError.at(study, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read().decode(errors="replace").strip() or "another process"
            raise StudyError(f"{study}: is being searched by {who}; wait for its end, or stop it, and go on with --resume") from None
        except OSError as error:
            if error.errno not in _KNOWS_NO_LOCKS:
                raise DiskError.at(study / FILE, error) from error
        with suppress(OSError):  # a full disk: the lock holds without a name, and the first row says what is wrong
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n".encode())
        try:
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)

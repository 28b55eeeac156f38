"""File locks of the operating system, which end with their process, however that ends.

`one_writer` refuses the second process; `one_at_a_time` lets it wait. Readers (`status`, `report`,
`evaluate`, `export`) only ask whether there is a writer. A file system without locks refuses nobody
and lets nobody wait.
"""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from rkdsearch.errors import DiskError, StudyError

WRITER_FILE = ".driver"
WAITING_FILE = ".rkdsearch.lock"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextmanager
def one_writer(
    folder: Path,
    doing: str = "searched",
    way_out: str = "wait for its end, or stop it, and go on with --resume",
) -> Iterator[None]:
    """Be the folder's only writer inside the block.

    The error of a second process says what the first is `doing`. Raises StudyError, with the first
    writer's process and the `way_out`, where the folder has a writer; DiskError where the folder
    cannot be written. Both come before anything is computed.
    """
    with _writers_file(folder, way_out) as file:
        try:
            file.truncate(0)
            writer = (
                f"{doing} by process {os.getpid()} on {socket.gethostname()} since"
                f" {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n"
            )
            file.write(writer.encode())
            os.fsync(file.fileno())  # workers on other hosts read it
        except OSError as error:  # a full disk is reported before anything is computed
            raise DiskError.at(folder, error) from error
        try:
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)


def _writers_file(folder: Path, way_out: str) -> IO[bytes]:
    """The folder's writer file, locked. Raises as `one_writer`."""
    path = folder / WRITER_FILE
    for _ in range(4):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # a link in a copied folder may lead to any file of the user, which would be emptied
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
            file = os.fdopen(os.open(path, flags, 0o666), "a+b", buffering=0)
        except FileNotFoundError:  # the folder was removed, as below
            continue
        except OSError as error:
            raise DiskError.at(folder, error) from error
        try:
            _lock_for_writing(file)
            # a search that was refused removes the file that it made: the next may have it open
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BlockingIOError:
            file.seek(0)
            writer = file.read().decode(errors="replace").strip() or "written by another process"
            file.close()
            raise StudyError(f"{folder}: is being {writer}; {way_out}") from None
        except FileNotFoundError:
            pass
        except OSError as error:
            file.close()
            raise DiskError.at(path, error) from error
        file.close()
    raise StudyError(f"{folder}: is being removed by another process; try again")


def locked_by(folder: Path) -> str | None:
    """The folder's present writer, such as `searched by process 7 on a since ...`; None: nobody.

    The lock says it, not the file: a copied folder has no writer, nor has one whose writer was
    killed. A file system without locks shows a writer until it ends in order.
    """
    if not (folder / WRITER_FILE).is_file():  # a pipe would be waited for
        return None
    try:
        with (folder / WRITER_FILE).open("rb") as file:
            known = file.read().decode(errors="replace").strip()
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return known or "written by another process"
            except OSError as error:
                return (known or None) if error.errno in _NO_LOCKS else None
    except OSError:
        pass
    return None


def writer_of(folder: Path) -> str:
    """The line that the folder's writer wrote of itself; empty where none is to be seen."""
    try:
        return (folder / WRITER_FILE).read_text(errors="replace").strip()
    except OSError:
        return ""


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process, on any host, is inside such a block of this folder.

    The first of several processes that start together makes a file; the others then find it.
    Needs no process group, which the trials of a search do not have. Leaves an empty file in the
    folder. A process that may not open that file does not wait.
    """
    with ExitStack() as held:
        with suppress(OSError):
            _lock(held.enter_context(_opened(folder / WAITING_FILE)), wait=True)
        yield


def _lock_for_writing(file: IO[bytes]) -> None:
    """Lock `file`. Raises BlockingIOError where a writer has it; a reader that asks goes soon."""
    for _ in range(4):
        with suppress(BlockingIOError):
            return _lock(file, wait=False)
        time.sleep(0.05)
    return _lock(file, wait=False)


def _lock(file: IO[bytes], *, wait: bool) -> None:
    """Lock `file` until it is closed. Without `wait`, raises BlockingIOError where it is locked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _opened(file: Path) -> IO[bytes]:
    try:
        return file.open("ab")
    except PermissionError:  # another user's file: waiting needs only read access
        return file.open("rb")

"""Files that are written whole or not at all: under a temporary name, then renamed.

Readers see the old file or the new one. A killed writer leaves its temporary file, which `sweep`
removes.
"""

import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rkdsearch.errors import DiskError

TEMPORARY = ".tmp-"  # a leading dot: readers of whole folders skip such files


@contextmanager
def replacing(path: Path, *, sync: bool = False, remedy: str | None = None) -> Iterator[Path]:
    """Temporary path that replaces `path` when the block ends. Creates the folder.

    With `sync` the new file survives the end of the machine and not only of the process. Raises
    DiskError, with the `remedy`, for an OSError also inside the block; after any error the old file
    is as it was.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if sync:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - the atomic rename, by its own name
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise DiskError(f"{path.parent}: is a file; name a folder") from error
        if isinstance(error, OSError):
            raise DiskError.at(path, error, *([remedy] if remedy else [])) from error
        raise


def replace_file(path: Path, content: str | bytes, *, sync: bool = False) -> None:
    """Write text or bytes to `path`, as `replacing`."""
    with replacing(path, sync=sync) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def sweep(folders: Iterable[Path], *, older_than: float) -> int:
    """Remove temporary files of killed writers that are so many seconds old; returns their number.

    A younger one may still be written.
    """
    removed = 0
    for path in (path for folder in folders for path in folder.glob(f"{TEMPORARY}*")):
        with suppress(FileNotFoundError):  # its writer, or another sweeper, was faster
            if time.time() - path.stat().st_mtime > older_than:
                path.unlink()
                removed += 1
    return removed

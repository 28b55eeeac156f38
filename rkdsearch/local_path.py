"""Paths as users write them: `~` is a home folder; URLs, and what the system refuses, are refused.

As a path, s3://bucket/study would make a local folder of that name: `s3:`.
"""

import re
from os import PathLike, fspath
from pathlib import Path

from rkdsearch.errors import FileError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def local_path(place: str | PathLike[str]) -> Path:
    """The path of a file or folder, which need not be there.

    Raises FileError where it is a URL, or the system cannot look there: a name is too long, a
    folder is closed to this user.
    """
    if not isinstance(place, str | PathLike):
        raise FileError(f"a path must be text or a Path, got {place!r}")
    if not fspath(place):  # the working directory, as a path: an unset variable of a script
        raise FileError("a path must name a file or folder, got an empty text")
    if (refusal := refused_url(place)) is not None:
        raise FileError(refusal)
    path = home_path(place)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise FileError(
            f"{path}: cannot be reached: {error.strerror}; name another path, or correct this one"
        ) from None
    return path


def home_path(place: str | PathLike[str]) -> Path:
    """The path, `~` and `~name` replaced by that user's home folder.

    Raises FileError where there is no such user.
    """
    try:
        return Path(place).expanduser()
    except RuntimeError:
        raise FileError(
            f"{place}: no user of this name has a home folder here; name the folder itself, or"
            f" ./{place} for one of this name"
        ) from None


def missing_folders(folder: Path) -> list[Path]:
    """The folders that `mkdir(parents=True)` would make, the innermost first."""
    return [one for one in (folder, *folder.parents) if not one.exists()]


def path_text(text: str) -> str:
    """The text as it is. Raises ValueError where it is a URL."""
    if (refusal := refused_url(text)) is not None:
        raise ValueError(refusal)
    return text


def home_path_text(text: str) -> str:
    """`path_text`, with `home_path` for a text that begins with `~`. Raises ValueError."""
    if not path_text(text).startswith("~"):
        return text
    try:
        return str(home_path(text))
    except FileError as error:
        raise ValueError(str(error)) from None


def refused_url(place: str | PathLike[str]) -> str | None:
    """The sentence about a URL in the place of a path; None for a path.

    `Path` makes one slash of two: it is a URL where its first folder is called `s3:`, or alike, and
    is not there.
    """
    text = fspath(place)
    if not isinstance(place, str):
        first, *others = Path(place).parts or ("",)
        if first.endswith(":") and others and not Path(first).exists():
            text = f"{first}//{'/'.join(others)}"
    found = _URL.match(text)
    if found is None:
        return None
    return (
        f"{text}: {found[0]} is not supported; name a path that all nodes mount (NFS, EFS,"
        " Filestore, Lustre), and copy from there or to there yourself"
    )

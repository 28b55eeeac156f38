"""Errors that a user can act on.

Each message names the place, the law, the value and the way out: `search_spaces/iad.yaml:
method.temperature must be > 0, got 0.0`. The command line prints the message alone and exits with
2. Any other exception is our bug: it keeps its traceback and exits with 1.
"""

import difflib
import re
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Self


class Failure(StrEnum):
    """Kind of a trial's failure. `tune --resume` retries `MACHINE_FAILURES`."""

    MEMORY = "memory"  # the device was full
    WORKER = "worker"  # its process or node was lost
    FILES = "files"  # a checkpoint, a teacher or images could not be read
    LOSS = "loss"  # a loss or a weight was not finite
    ERROR = "error"  # anything else


# Failures of a machine, not of a configuration: the same run may succeed elsewhere, or later.
MACHINE_FAILURES = (Failure.MEMORY, Failure.WORKER, Failure.FILES)


class RkdError(Exception):
    """Something that the user can change: a file, a value, a machine."""

    failure: ClassVar[Failure] = Failure.ERROR  # the failure of a trial that raised it


# of the message of an error that is not ours: somebody may print a whole tensor
MOST_LETTERS = 1000


class FileError(RkdError):
    """A file could not be read or reached, for a reason that the system gives."""

    failure = Failure.FILES


class ConfigError(RkdError):
    """A run's description breaks a law."""


class SpaceError(RkdError):
    """A search space breaks a law."""


class DataError(RkdError):
    """Images or labels are missing, or not what they claim to be."""

    failure = Failure.FILES


class TeacherError(RkdError):
    """A teacher's file cannot be trusted, read or fitted into its network."""

    failure = Failure.FILES


class CheckpointError(RkdError):
    """A checkpoint is damaged, or belongs to another run."""

    failure = Failure.FILES


class DiskError(RkdError):
    """A file could not be written: the disk is full, or the folder belongs to another user.

    The run that wrote it is not at fault.
    """

    @classmethod
    def at(
        cls,
        place: Path,
        error: OSError,
        remedy: str = "is the folder yours, and the disk not full?",
    ) -> Self:
        """The system's error at this place, as a sentence."""
        return cls(f"{place}: could not be written: {error.strerror or error}; {remedy}")


class NonFiniteLossError(RkdError):
    """The loss became NaN or infinite. The run ends; the last good checkpoint stays."""

    failure = Failure.LOSS


class OutOfMemoryError(RkdError):
    """The device is full. The message says which value to change."""

    failure = Failure.MEMORY

    @classmethod
    @contextmanager
    def in_block(cls, place: str, remedy: str) -> Iterator[None]:
        """Raise this error, with place and remedy, where the block runs out of memory."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            what = "this machine" if isinstance(error, MemoryError) else "the device"
            raise cls(f"{place}: {what} is out of memory; {remedy}") from error


class WorkerError(RkdError):
    """The worker process cannot be used again; replace it.

    Its CUDA context is lost, or its process group hangs.
    """

    failure = Failure.WORKER


class StudyError(RkdError):
    """A study folder is missing, damaged, or was made by another search space."""


class LostHeadError(RkdError):
    """Ray's head does not answer any more. A new one and --resume continue."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which Slurm and Kubernetes send before they end a job: it ends as Ctrl-C does."""


def place_of(error: BaseException) -> str:
    """File and line that raised it, as ` (pgd.py:31)`; empty where it came through Ray.

    Ray passes an exception on without its traceback.
    """
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


def short(error: BaseException) -> str:
    """The error's kind and message in one line; of a long message the beginning."""
    try:
        text = " ".join(str(error).splitlines())
    except Exception:  # noqa: BLE001 - code of the user's
        text = "(its message cannot be read)"
    if len(text) > MOST_LETTERS:
        text = f"{text[:MOST_LETTERS]} ..."
    return f"{type(error).__name__}: {text}".removesuffix(": ")


@contextmanager
def of_users_code(place: str, kind: type[RkdError]) -> Iterator[None]:
    """Name what code of the user's raises inside the block: the error, its file and line.

    Errors of ours, and of a device's memory, pass: they have sentences of their own. A call of
    `sys.exit` is an error too: the command would end as if it were done.
    """
    try:
        yield
    except RkdError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        raise kind(f"{place} raised {short(error)}{place_of(error)}") from error


def is_out_of_memory(error: Exception) -> bool:
    """True where Python, torch's CPU allocator, or a GPU library found no memory.

    Only some of them have an error type of their own.
    """
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and any(
            sign in text
            for sign in (
                "out of memory",
                "can't allocate memory",
                "not enough memory",
                "alloc_failed",
            )
        )
    )


def did_you_mean(name: str, known: Iterable[str], otherwise: str, *, prefix: str = "") -> str:
    """The way out of an unknown name: the closest known name, behind `prefix`.

    `otherwise` where none is close.
    """
    close = closest(name, known)
    return f"did you mean '{prefix}{close}'?" if close else otherwise


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is probably meant; None where none is close.

    First the same letters in another case or with other dashes, then the only name that has all
    words of this one or begins like it, then one of few other letters. A short name has few
    neighbours: `mart` is not `mtard`.
    """
    by_letters = {_letters(one): one for one in known}
    meant = _letters(name)
    if meant in by_letters:
        return by_letters[meant]
    words = set(_words(name))
    for alike in (
        [one for one in by_letters.values() if words <= set(_words(one))],
        [
            one
            for letters, one in by_letters.items()
            if letters.startswith(meant) or (len(letters) > 2 and meant.startswith(letters))
        ],
    ):
        if len(alike) == 1 and len(meant) > 2:
            return alike[0]
    for likely in difflib.get_close_matches(meant, by_letters, n=3):
        wrong = max(len(meant), len(likely)) - sum(
            block.size
            for block in difflib.SequenceMatcher(None, meant, likely).get_matching_blocks()
        )
        if wrong <= max(1, len(meant) // 3):
            return by_letters[likely]
    return None


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9.:]", "", name.lower())


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())

"""Messages between the driver of a search and its workers.

The driver sends a `WorkOrder`. The worker answers with an `EpochReport` after each epoch, and with
a `TrialFailure` or a `FullDisk` where it cannot train on; a `Notice` may come between them. The
type of a message says what it is.

Ray Tune carries dictionaries, and merges, flattens and prints what it finds in them. `packed` and
`unpacked` are the only functions that know how a message hides in one.
"""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkdsearch.errors import DiskError, Failure, RkdError
from rkdsearch.search.assignment import Assignment
from rkdsearch.space.settings import Resources
from rkdsearch.training.epoch import EpochResult

_KEY = "message"


@dataclass(frozen=True)
class WorkOrder:
    """An assignment, with what a worker needs to carry it out."""

    assignment: Assignment
    packages: tuple[str, ...]  # packages of the user that may be imported by name
    resources: Resources
    study: Path = Path()
    writer: str = ""  # what the study's `.driver` file says where the search runs; empty: nothing


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch, and the facts of the run (columns `run.*`)."""

    result: EpochResult
    facts: Mapping[str, object]


@dataclass(frozen=True)
class TrialFailure:
    """The error that ended the trial, as one line."""

    error: str
    kind: Failure


@dataclass(frozen=True)
class FullDisk:
    """A file could not be written. The whole search ends: nothing is wrong with the trial."""

    error: str


@dataclass(frozen=True)
class Notice:
    """A sentence for the user. The trial continues."""

    text: str


Answer = EpochReport | TrialFailure | FullDisk | Notice


def failure(error: RkdError) -> TrialFailure | FullDisk:
    """The message that reports this error."""
    line = " ".join(str(error).split())
    return FullDisk(line) if isinstance(error, DiskError) else TrialFailure(line, error.failure)


def packed(message: WorkOrder | Answer) -> dict[str, Any]:
    """The message as a dictionary for Ray Tune: one key, whose value Tune leaves alone."""
    return {_KEY: pickle.dumps(message)}


def unpacked(values: Mapping[str, Any]) -> Any:
    """The message in a dictionary that Ray Tune delivered."""
    return pickle.loads(values[_KEY])  # noqa: S301 - `packed` wrote it, in this search

"""Configurations that a user adds to a study: one small file each, in `<study>/enqueued/`.

The study's driver, running or resumed later, asks for them before it proposes. A file stays: the
notes of the trial that it became name it.
"""

import json
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkdsearch.atomic_file import replace_file
from rkdsearch.errors import DiskError, StudyError

FOLDER = "enqueued"
NOTE = "enqueued"  # of a trial: the name of its file


@dataclass(frozen=True)
class Enqueued:
    """A configuration that was added by hand: values over the space's fixed ones."""

    name: str
    label: str
    overrides: Mapping[str, Any]


def enqueue(study: Path, overrides: Mapping[str, Any], label: str) -> Enqueued:
    """Add a configuration to the study in the folder. Raises DiskError."""
    entry = Enqueued(f"{time.time_ns():020d}-{os.getpid()}", label, dict(overrides))
    text = json.dumps({"label": label, "overrides": entry.overrides})
    file = study / FOLDER / f"{entry.name}.json"
    try:
        file.parent.mkdir(exist_ok=True)
        replace_file(file, text)
    except OSError as error:
        raise DiskError.at(file, error) from None
    return entry


def waiting(study: Path, taken: Collection[str]) -> Enqueued | None:
    """The first configuration that is not among `taken`; None where there is none.

    Raises StudyError where its file is damaged.
    """
    return next((_read(file) for file in _files(study) if file.stem not in taken), None)


def number_waiting(study: Path, taken: Collection[str]) -> int:
    """Number of configurations that are not among `taken`; their files are not read."""
    return sum(file.stem not in taken for file in _files(study))


def every(study: Path) -> list[Enqueued]:
    """All configurations that were added by hand. Raises StudyError where a file is damaged."""
    return [_read(file) for file in _files(study)]


def _files(study: Path) -> list[Path]:
    return sorted((study / FOLDER).glob("[!._]*.json"))


def _read(file: Path) -> Enqueued:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return Enqueued(file.stem, str(found["label"]), dict(found["overrides"]))
    except (ValueError, KeyError, TypeError):
        raise StudyError(f"{file}: is damaged; delete it, and enqueue it again") from None
    except OSError as error:
        raise StudyError(
            f"{file}: cannot be read: {error.strerror}; make it readable, or delete it and enqueue"
            " it again"
        ) from None

"""Packs: files of a table that hold the rows of many trials which are not trained now.

A file for each trial and table would be 30,000 files for a study of 10,000 trials, and most of the
time of a reader. A pack is written once and never changed; its number grows. The rows of a trial
are in its own file where there is one, and else in the pack with the highest number that has it:
whoever moves rows writes the new place before the old one is removed.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rkdsearch.errors import FileError

SIZE = 128  # trials that are packed together
_PREFIX = "packed-"
_PATIENCE = 60.0  # seconds for which a reader looks again where files are moved


def packs_in(folder: Path) -> list[Path]:
    """Packs of a table's folder, the newest first."""
    return [path for path in reversed(files_in(folder)) if is_pack(path)]


def own_files_in(folder: Path) -> list[Path]:
    """Files of single trials in a table's folder, by name."""
    return [path for path in files_in(folder) if not is_pack(path)]


def files_in(folder: Path) -> list[Path]:
    """Parquet files of a table's folder, by name; none where there is no folder.

    Plain files alone: a pipe would let its reader wait for ever. Raises FileError where the folder
    cannot be read, which `Path.glob` takes for an empty one.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if entry.name.endswith(".parquet") and entry.name[0] not in "._" and entry.is_file()
            )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FileError(
            f"{folder}: cannot be read: {error.strerror}; is the folder yours?"
        ) from error
    return [folder / name for name in names]


def is_pack(file: Path) -> bool:
    """True for a file with the rows of many trials."""
    return file.name.startswith(_PREFIX)


def gathered(
    folder: Path, read: Callable[[Path], "pa.Table | None"]
) -> Iterator[tuple[Path, "pa.Table"]]:
    """Files of a table's folder and their rows, each trial's once, also while a writer moves them.

    `read` returns None for a file that it reports itself, and raises FileNotFoundError. Raises
    FileError where a writer moves files faster than they are read.
    """
    found: dict[Path, pa.Table | None] = {}
    newest: list[Path] = []
    until, whole = time.monotonic() + _PATIENCE, False
    while not whole:
        if time.monotonic() > until:
            raise FileError(
                f"{folder}: its files were moved for {_PATIENCE:g} s while they were read; read it"
                " again later"
            )
        packs, own = packs_in(folder), own_files_in(folder)
        # then both lists are of one moment: a move in either direction changes the packs
        whole = packs_in(folder) == packs
        newest = [*own, *packs]
        for path in newest:
            if path in found:
                continue
            try:
                found[path] = read(path)
            except FileNotFoundError:  # moved since it was listed: its rows are elsewhere
                whole = False
    taken: set[str] = set()
    # files that were read and have been moved since come last: their new place may have been missed
    for path in [*newest, *(path for path in found if path not in newest)]:
        table = found.get(path)
        trials = {path.stem} if not is_pack(path) else set() if table is None else trials_of(table)
        if table is not None and not trials <= taken:
            yield path, table if trials.isdisjoint(taken) else _without(table, taken)
        taken |= trials


class Packer:
    """The writer's side: which pack holds a trial of this folder, and moves between files."""

    def __init__(self, folder: Path, write: Callable[[Path, "pa.Table"], None]) -> None:
        self._folder = folder
        self._write = write  # durably, by a rename
        self._packs: dict[Path, set[str]] | None = None

    @property
    def _known(self) -> dict[Path, set[str]]:
        if self._packs is None:
            self._packs = {}
            for path in packs_in(self._folder):
                with suppress(OSError, pa.ArrowException):  # readers report a damaged one
                    self._packs[path] = trials_of(pq.read_table(path, columns=["trial_id"]))
        return self._packs

    def holds(self, trial_id: str) -> bool:
        """True where the trial is in a pack."""
        return any(trial_id in trials for trials in self._known.values())

    def drop(self, trial_ids: set[str]) -> None:
        """Take trials out of their packs: they have files of their own again."""
        self._drop(trial_ids, list(self._known))

    def _drop(self, trial_ids: set[str], packs: Iterable[Path]) -> None:
        for path in packs:
            if trial_ids.isdisjoint(self._known[path]):
                continue
            left = self._known.pop(path) - trial_ids
            if left:
                self._add(_without(pq.ParquetFile(path).read(), trial_ids), left)
            path.unlink(missing_ok=True)

    def replace(self, table: "pa.Table") -> None:
        """Replace the rows of trials that are in packs."""
        before = list(self._known)
        for start in range(0, len(table), SIZE):  # a row a trial
            part = table.slice(start, SIZE)
            self._add(part, trials_of(part))
        self._drop(trials_of(table), before)

    def pack(self, trial_ids: Iterable[str]) -> None:
        """Move the files of these trials into one pack. Damaged files stay as they are."""
        moved: dict[Path, pa.Table] = {}
        for trial_id in trial_ids:
            path = self._folder / f"{trial_id}.parquet"
            with suppress(OSError, pa.ArrowException):
                moved[path] = pq.ParquetFile(path).read()
        alike: dict[bytes, dict[Path, pa.Table]] = {}
        for path, table in moved.items():  # rows of two schema versions stay apart
            version = (table.schema.metadata or {}).get(b"rkdsearch.schema_version", b"1")
            alike.setdefault(version, {})[path] = table
        for tables in alike.values():
            self._add(together(tables.values()), {path.stem for path in tables})
            for path in tables:
                path.unlink(missing_ok=True)

    def _add(self, table: "pa.Table", trials: set[str]) -> None:
        # damaged packs too: none is overwritten
        numbers = [path.stem.removeprefix(_PREFIX) for path in packs_in(self._folder)]
        last = max((int(number) for number in numbers if number.isdecimal()), default=0)
        path = self._folder / f"{_PREFIX}{last + 1:06d}.parquet"
        self._write(path, table)
        self._known[path] = trials


def together(tables: Iterable["pa.Table"]) -> "pa.Table":
    """The rows of these tables. A column that is empty in one of them may have any type there."""
    tables = list(tables)
    valued: Mapping[str, pa.DataType] = {
        f.name: f.type for t in tables for f in t.schema if t[f.name].null_count < len(t)
    }
    return pa.concat_tables(
        [without_empty(table, valued) for table in tables], promote_options="permissive"
    )


def without_empty(found: "pa.Table", types: Mapping[str, "pa.DataType"]) -> "pa.Table":
    """The table without columns that hold no value here and have another type elsewhere.

    Their writer could not know the type.
    """
    other = [
        f.name
        for f in found.schema
        if types.get(f.name, f.type) != f.type and found[f.name].null_count == len(found)
    ]
    return found.drop_columns(other) if other else found


def trials_of(table: "pa.Table") -> set[str]:
    """Names of the trials that have rows here."""
    return set(table["trial_id"].to_pylist())


def _without(table: "pa.Table", trials: set[str]) -> "pa.Table":
    return table.filter(pc.invert(pc.is_in(table["trial_id"], pa.array(sorted(trials)))))

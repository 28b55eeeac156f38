"""A study's folder: tables of Parquet files, written whole and renamed into place.

A trial that is trained has a file of its own in each table; those that are not are packed.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import TypeIs

from rkdsearch.atomic_file import replacing, sweep
from rkdsearch.errors import StudyError
from rkdsearch.results.columns import Column
from rkdsearch.results.packs import Packer, gathered, is_pack, own_files_in, without_empty
from rkdsearch.results.tables import SCHEMA_VERSION, columns
from rkdsearch.results.versions import VERSION_KEY, upgraded, upgraded_description

if TYPE_CHECKING:  # as in cells.py
    import pandas as pd

Wanted = Callable[[str], bool]  # of a column's name


def _every(_name: str) -> bool:
    return True


_TRIAL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_STALE_SECONDS = 60.0
_PACKED = ("trials", "epochs", "rungs")
_ORDER = {
    "trials": ["ordinal", "trial_id"],
    "epochs": ["trial_id", "segment", "epoch"],
    "rungs": ["decided", "trial_id", "epochs"],
    "evaluations": ["trial_id", "checkpoint", "attack", "attack_seed"],
    "subsets": ["subset_sha256", "position"],
    "openings": ["opened"],
}


class Store:
    """One study's folder, on any path where a rename replaces a file (local disks, NFS).

    Writers give the `config_columns` of `trials`; readers need none. Files that cannot be read are
    left out and named in `damaged`: one bad file must not stop a reader. `refused` has those of
    them that the system does not give, with its reason: their rows may be sound.
    """

    def __init__(self, folder: Path, config_columns: Sequence[Column] = ()) -> None:
        self.folder = folder
        self.damaged: list[Path] = []
        self.refused: dict[Path, str] = {}
        self._config_columns = tuple(config_columns)
        self._tables: dict[str, tuple[Mapping[str, Column], pa.Schema]] = {}
        self._packers = {
            table: Packer(folder / table, partial(replace_table, pack=True)) for table in _PACKED
        }

    def write_trial(self, row: Mapping[str, object]) -> None:
        """Replace the row of a trial. Raises StudyError for an unsafe trial_id."""
        self._write("trials", row["trial_id"], [row])

    def write_epochs(self, trial_id: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Replace all epochs of a trial."""
        self._write("epochs", trial_id, [{"trial_id": trial_id, **row} for row in rows])

    def write_rungs(self, trial_id: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Replace all decisions about a trial."""
        self._write("rungs", trial_id, [{"trial_id": trial_id, **row} for row in rows])

    def write_evaluation(self, row: Mapping[str, object]) -> None:
        """Replace the result of this trial, checkpoint, attack, ball, seed and set of images.

        A result on few images never replaces one on many.
        """
        what = {name: row.get(name) for name in ("norm", "eps", "attack_settings")}
        if row.get("split") == "other":  # two names may have the same images
            what["dataset"] = row.get("dataset")
        digits = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:8]
        key = (row["checkpoint"], row["attack"], row["attack_seed"])
        suffix = "".join(f"-{part}" for part in (*key, str(row["subset_sha256"])[:8], digits))
        self._write("evaluations", row["trial_id"], [row], suffix=suffix)

    def write_subset(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Write the images of an evaluated set, unless they are there."""
        name = str(rows[0]["subset_sha256"])[:16]
        if not (self.folder / "subsets" / f"{name}.parquet").exists():
            self._write("subsets", name, rows)

    def write_opening(self, row: Mapping[str, object]) -> None:
        """Write an opening of test images."""
        self._write("openings", row["opening"], [row])

    def pack(self, trial_ids: Iterable[str]) -> None:
        """Move the rows of these trials, which are not trained now, into one file a table."""
        for packer in self._packers.values():
            packer.pack(trial_ids)

    def rewrite_packed(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Replace the rows of `trials/` of packed trials, all at once."""
        self._packers["trials"].replace(self._table("trials", rows))

    def packed(self, trial_id: str) -> bool:
        """True where the trial's row is in a pack."""
        return self._packers["trials"].holds(trial_id)

    def own_files(self) -> set[str]:
        """Trials whose rows are in files of their own."""
        return {path.stem for path in own_files_in(self.folder / "trials")}

    def trials(self, wanted: Wanted = _every) -> "pd.DataFrame":
        """Every trial, by ordinal and name."""
        return self._read("trials", wanted)

    def epochs(self, wanted: Wanted = _every) -> "pd.DataFrame":
        """Every epoch of every trial, by trial and epoch."""
        return self._read("epochs", wanted)

    def rungs(self, wanted: Wanted = _every) -> "pd.DataFrame":
        """Every decision, by time."""
        return self._read("rungs", wanted)

    def evaluations(self) -> "pd.DataFrame":
        """Every test result, by trial, checkpoint, attack and attack seed.

        `evaluations.current_tests` selects those that readers show.
        """
        return self._read("evaluations")

    def subsets(self) -> "pd.DataFrame":
        """Every image of every evaluated set, by set and position."""
        return self._read("subsets")

    def openings(self) -> "pd.DataFrame":
        """Every opening of test images, by time."""
        return self._read("openings")

    @property
    def name(self) -> str:
        """The study's own name: that of its folder when it began, wherever the folder is now."""
        return str(self.description().get("name", self.folder.resolve().name))

    def description(self) -> dict[str, object]:
        """The content of `study.json`; empty where there is none or it cannot be read."""
        path = self.folder / "study.json"
        try:
            # a pipe would be waited for
            found = None if path.is_fifo() else json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict):
            self._damage(path)
            return {}
        return upgraded_description(found)

    def sweep(self) -> int:
        """Remove temporary files of killed writers, a minute old or older; returns their number."""
        folders = (self.folder, *(path for path in self.folder.glob("*") if path.is_dir()))
        return sweep(folders, older_than=_STALE_SECONDS)

    def _write(
        self, table: str, trial_id: object, rows: Sequence[Mapping[str, object]], suffix: str = ""
    ) -> None:
        if not _is_trial_id(trial_id):
            raise StudyError(
                f"{self.folder}: trial_id must be 1 to 64 of A-Z a-z 0-9 . _ - and start with a"
                f" letter or digit, got {trial_id!r}"
            )
        assert re.fullmatch(r"[\w-]*", suffix), f"{table}: not a part of a file's name: {suffix!r}"
        path = self.folder / table / f"{trial_id}{suffix}.parquet"
        replace_table(path, self._table(table, rows))
        if table in self._packers:
            self._packers[table].drop({trial_id})

    def _table(self, table: str, rows: Sequence[Mapping[str, object]]) -> "pa.Table":
        wanted, schema = self._wanted(table)
        unknown = {key for row in rows for key in row} - wanted.keys()
        assert not unknown, f"{table} has no columns {sorted(unknown)}"
        # rows at once: an array for each column would take thrice as long
        values = pa.array(
            [{name: _value(wanted[name], value) for name, value in row.items()} for row in rows],
            pa.struct(list(schema)),
        )
        return pa.Table.from_struct_array(values).replace_schema_metadata(schema.metadata)

    def _wanted(self, table: str) -> "tuple[Mapping[str, Column], pa.Schema]":
        """Columns by name, and the schema of a table's files."""
        if table not in self._tables:
            wanted = columns(table, self._config_columns)
            self._tables[table] = ({c.name: c for c in wanted}, _schema(table, wanted))
        return self._tables[table]

    def _read(self, table: str, wanted: Wanted = _every) -> "pd.DataFrame":
        def read(path: Path) -> "pa.Table | None":
            try:
                rows = upgraded(table, _read_file(path, table, wanted))
            except FileNotFoundError:
                raise
            except (OSError, pa.ArrowException) as error:
                if isinstance(error, OSError) and error.strerror:  # Arrow's own errors have none
                    self.refused[path] = error.strerror
                rows = None
            if rows is None or not _owns(table, path, rows):
                self._damage(path)
                return None
            return rows

        found = dict(gathered(self.folder / table, read))
        schema = _schema(table, tuple(c for c in columns(table) if _needed(table, wanted, c.name)))
        tables = [schema.empty_table()]
        alike = _alike(found)
        fields = [
            (f, each[f.name].null_count < len(each)) for _, each in alike for f in each.schema
        ]
        # of those with values, if there are any
        types = {f.name: f.type for f, valued in sorted(fields, key=lambda pair: pair[1])}
        for paths, each in alike:
            known = without_empty(each, types)
            try:
                schema = pa.unify_schemas([schema, known.schema], promote_options="permissive")
            except pa.ArrowException:
                for path in paths:
                    self._damage(path)
                continue
            tables.append(known)
        whole = pa.concat_tables(tables, promote_options="permissive")
        import pandas as pd

        # counts keep their type beside nulls: Int64 and boolean, not float64 and object
        frame: pd.DataFrame = whole.to_pandas(
            types_mapper={pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get
        )
        frame = frame.sort_values(_ORDER[table], kind="stable", ignore_index=True)
        return frame.drop(columns=[name for name in frame.columns if not wanted(name)])

    def _damage(self, path: Path) -> None:
        if path not in self.damaged:
            self.damaged.append(path)


def replace_table(path: Path, table: "pa.Table", *, pack: bool = False) -> None:
    """Write a Parquet table, as `replacing`.

    A `pack` of many rows is compressed for its size and made to last, a small table for the time of
    writing.
    """
    with replacing(path, sync=pack) as temporary:
        temporary.write_bytes(_encoded(table, pack=pack))


def _encoded(content: "pa.Table", *, pack: bool) -> "pa.Buffer":
    """The bytes of a Parquet file."""
    # in memory first: Arrow writes a column at a time, and hundreds of small writes take time
    stream = pa.BufferOutputStream()
    pq.write_table(
        content,
        stream,
        compression="zstd" if pack else "snappy",
        # of a row or a few, these would take longer to write than the values themselves
        use_dictionary=pack,
        write_statistics=False,
    )
    return stream.getvalue()


def _read_file(path: Path, table: str, wanted: Wanted) -> "pa.Table":
    """The needed columns of a file; all where it is of an older version, which had other names."""
    file = pq.ParquetFile(pa.BufferReader(path.read_bytes()))
    found = file.schema_arrow
    names = None
    if (found.metadata or {}).get(VERSION_KEY.encode()) == str(SCHEMA_VERSION).encode():
        names = [name for name in found.names if _needed(table, wanted, name)]
    # threads would take longer than the few rows of one trial
    return file.read(columns=names, use_threads=is_pack(path))


def _owns(table: str, path: Path, rows: "pa.Table") -> bool:
    """True where the rows name trials, and in a trial's own file no other trial.

    A copy beside it, `t00001 (1).parquet`, would count the trial twice.
    """
    if table not in _PACKED:
        return True
    if "trial_id" not in rows.schema.names:
        return False
    named = rows["trial_id"].to_pylist()
    return all(_is_trial_id(each) and (is_pack(path) or each == path.stem) for each in named)


def _is_trial_id(value: object) -> TypeIs[str]:
    return isinstance(value, str) and _TRIAL_ID.fullmatch(value) is not None


def _needed(table: str, wanted: Wanted, name: str) -> bool:
    return name in _ORDER[table] or wanted(name)


def _alike(found: Mapping[Path, "pa.Table"]) -> list[tuple[list[Path], "pa.Table"]]:
    """All files together where they have one schema, as almost always; else each by itself."""
    first = next((each.schema for each in found.values()), None)
    if first is not None and all(each.schema.equals(first) for each in found.values()):
        return [([*found], pa.concat_tables(found.values()))]
    return [([path], each) for path, each in found.items()]


def _arrow(column: Column) -> "pa.DataType":
    kinds = {
        "string": pa.string(),
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "time": pa.timestamp("us", tz="UTC"),
    }
    return kinds[column.type]


@lru_cache(maxsize=64)
def _schema(table: str, wanted: tuple[Column, ...]) -> "pa.Schema":
    fields = [
        pa.field(c.name, _arrow(c), metadata={"unit": c.unit, "meaning": c.meaning}) for c in wanted
    ]
    return pa.schema(
        fields, metadata={"rkdsearch.table": table, "rkdsearch.schema_version": str(SCHEMA_VERSION)}
    )


def _value(column: Column, value: object) -> object:
    """The value in its column's type. Another type is a bug of the writer: an assertion."""
    if value is None:
        return None
    if column.unit == "JSON" and not isinstance(value, str):
        return json.dumps(value, sort_keys=True, allow_nan=False)
    allowed = {"string": str, "int": int, "float": (int, float), "bool": bool, "time": datetime}[
        column.type
    ]
    assert isinstance(value, allowed), f"{column.name} holds {column.type}, got {value!r}"  # type: ignore[arg-type]  # a dict of types
    assert column.type == "bool" or not isinstance(value, bool), (
        f"{column.name} holds {column.type}, got {value!r}"
    )
    if isinstance(value, datetime):
        assert value.tzinfo is not None, f"{column.name} needs a time zone, got {value!r}"
        return value.astimezone(UTC)
    if column.type == "float":
        number = float(value)  # type: ignore[arg-type]  # int or float, asserted above
        return None if math.isnan(number) else number
    return value

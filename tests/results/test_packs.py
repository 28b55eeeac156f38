import errno
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from rkdsearch.errors import FileError
from rkdsearch.results import packs
from rkdsearch.results.store import Store

TABLES = ("trials", "epochs", "rungs")


def filled(folder: Path, trials: int = 6) -> Store:
    """A study whose trial number n has n epochs and, where n is even, a decision."""
    store = Store(folder)
    for n in range(trials):
        store.write_trial({"trial_id": f"t{n}", "ordinal": n, "status": "paused"})
        store.write_epochs(f"t{n}", [{"epoch": e, "seconds": 1.0} for e in range(1, n + 1)])
        if n % 2 == 0:
            store.write_rungs(f"t{n}", [{"epochs": 1, "decision": "paused"}])
    return store


def read(folder: Path) -> dict[str, pd.DataFrame]:
    store = Store(folder)
    found = {"trials": store.trials(), "epochs": store.epochs(), "rungs": store.rungs()}
    assert store.damaged == []
    return found


def files(folder: Path) -> dict[str, list[str]]:
    return {table: sorted(p.name for p in (folder / table).iterdir()) for table in TABLES}


def same(found: dict[str, pd.DataFrame], expected: dict[str, pd.DataFrame]) -> None:
    for table in TABLES:
        pd.testing.assert_frame_equal(found[table], expected[table])


def test_packed_trials_are_read_as_before_with_us_and_without(tmp_path: Path) -> None:
    store = filled(tmp_path)
    before = read(tmp_path)
    store.pack(["t0", "t1", "t2", "t4"])
    assert files(tmp_path) == {
        "trials": ["packed-000001.parquet", "t3.parquet", "t5.parquet"],
        "epochs": ["packed-000001.parquet", "t3.parquet", "t5.parquet"],
        "rungs": ["packed-000001.parquet"],
    }
    same(read(tmp_path), before)
    assert sorted(pd.read_parquet(tmp_path / "trials")["trial_id"]) == [f"t{n}" for n in range(6)]
    assert Store(tmp_path).own_files() == {"t3", "t5"}


def test_a_packed_trial_that_is_written_again_leaves_its_pack(tmp_path: Path) -> None:
    filled(tmp_path).pack(["t0", "t1"])
    store = Store(tmp_path)  # another session
    store.write_trial({"trial_id": "t1", "ordinal": 1, "status": "running"})
    assert read(tmp_path)["trials"]["status"].tolist() == ["paused", "running", *["paused"] * 4]
    assert sorted(pd.read_parquet(tmp_path / "trials")["trial_id"]) == [f"t{n}" for n in range(6)]
    assert (store.packed("t0"), store.packed("t1")) == (True, False)
    store.write_trial({"trial_id": "t0", "ordinal": 0, "status": "running"})
    assert not any(name.startswith("packed") for name in files(tmp_path)["trials"])


def test_rows_of_packed_trials_are_replaced_at_once(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.pack(["t0", "t1", "t2"])
    store.rewrite_packed([{"trial_id": f"t{n}", "ordinal": n, "status": "stopped"} for n in (0, 2)])
    found = read(tmp_path)["trials"]
    assert found["status"].tolist() == ["stopped", "paused", "stopped", *["paused"] * 3]
    assert len(pd.read_parquet(tmp_path / "trials")) == 6


def test_a_trial_has_one_row_where_its_writer_was_killed_between_two_files(tmp_path: Path) -> None:
    store = filled(tmp_path)
    own = tmp_path / "trials" / "t1.parquet"
    kept = own.read_bytes()
    store.pack(["t0", "t1"])
    own.write_bytes(kept)  # was not removed yet
    assert len(read(tmp_path)["trials"]) == 6
    pack = tmp_path / "trials" / "packed-000001.parquet"
    kept = pack.read_bytes()
    store.rewrite_packed([{"trial_id": "t0", "ordinal": 0, "status": "stopped"}])
    pack.write_bytes(kept)
    own.unlink()
    assert read(tmp_path)["trials"]["status"].tolist() == ["stopped", *["paused"] * 5]


@pytest.mark.parametrize("moment", range(6))
def test_a_reader_misses_no_trial_that_is_moved_while_it_reads(tmp_path: Path, moment: int) -> None:
    store = filled(tmp_path)
    store.pack(["t0", "t1"])
    reads = 0

    def reading(path: Path) -> "pa.Table | None":
        nonlocal reads
        reads += 1
        if reads == moment + 1:
            store.pack(["t2", "t3"])
            store.write_trial({"trial_id": "t1", "ordinal": 1, "status": "running"})
        return pa.parquet.read_table(path)

    rows = [
        row
        for _, table in packs.gathered(tmp_path / "trials", reading)
        for row in table["trial_id"].to_pylist()
    ]
    assert sorted(rows) == [f"t{n}" for n in range(6)]


def test_a_reader_misses_no_trial_whose_pack_is_written_anew_at_each_of_its_looks(
    tmp_path: Path,
) -> None:
    store = filled(tmp_path, trials=30)
    store.pack([f"t{n}" for n in range(30)])
    moves = 0

    def reading(path: Path) -> "pa.Table | None":
        nonlocal moves
        if packs.is_pack(path) and moves < 10:
            store.write_trial({"trial_id": f"t{moves}", "ordinal": moves, "status": "running"})
            moves += 1
        return pa.parquet.read_table(path)

    rows = [
        row
        for _, table in packs.gathered(tmp_path / "trials", reading)
        for row in table["trial_id"].to_pylist()
    ]
    assert moves == 10
    assert sorted(rows) == sorted(f"t{n}" for n in range(30))


def test_a_reader_that_never_sees_a_folder_at_rest_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    monkeypatch.setattr(packs, "_PATIENCE", 0.05)

    def gone(path: Path) -> "pa.Table | None":
        raise FileNotFoundError(path)

    with pytest.raises(FileError, match=r"trials: its files were moved for 0.05 s while they were"):
        list(packs.gathered(tmp_path / "trials", gone))


def test_a_folder_that_may_not_be_read_is_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    assert packs.files_in(tmp_path / "nowhere") == []

    def refuse(path: Path) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(FileError, match="trials: cannot be read: Permission denied; is the folder"):
        Store(tmp_path).trials()


def test_a_damaged_pack_is_named_and_costs_no_other_row(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.pack(["t0", "t1"])
    pack = tmp_path / "trials" / "packed-000001.parquet"
    pack.write_bytes(pack.read_bytes()[:-40])
    reader = Store(tmp_path)
    assert reader.trials()["trial_id"].tolist() == ["t2", "t3", "t4", "t5"]
    assert reader.damaged == [pack]
    again = Store(tmp_path)  # a writer of the next session is not stopped by it
    again.pack(["t2", "t3"])
    assert Store(tmp_path).trials()["trial_id"].tolist() == ["t2", "t3", "t4", "t5"]

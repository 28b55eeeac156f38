import errno
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rkdsearch.errors import DiskError, StudyError
from rkdsearch.results.columns import Column
from rkdsearch.results.store import Store
from rkdsearch.results.tables import SCHEMA_VERSION, TABLES

CONFIG = (
    Column("config.method.name", "string", "", "method"),
    Column("config.method.temperature", "float", "", "softening"),
)
NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def test_any_reader_sees_every_column_of_every_method_without_us(tmp_path: Path) -> None:
    store = Store(tmp_path, CONFIG)
    store.write_trial({"trial_id": "a", "ordinal": 0, "config.method.name": "pgd_at"})
    store.write_trial(
        {
            "trial_id": "b",
            "ordinal": 1,
            "config.method.name": "rslad",
            "config.method.temperature": 4,
        }
    )
    frame = pd.read_parquet(tmp_path / "trials")
    assert len(frame.columns) == len(TABLES["trials"]) + 2
    assert frame["config.method.temperature"].isna().tolist() == [True, False]
    assert frame["config.method.temperature"].iloc[1] == 4.0


def test_a_file_tells_its_schema_version_units_and_meanings(tmp_path: Path) -> None:
    Store(tmp_path).write_epochs("a", [{"epoch": 1, "seconds": 2.5}])
    schema = pq.read_schema(tmp_path / "epochs" / "a.parquet")
    assert schema.metadata[b"rkdsearch.schema_version"] == str(SCHEMA_VERSION).encode() == b"3"
    assert schema.metadata[b"rkdsearch.table"] == b"epochs"
    assert schema.field("seconds").metadata[b"unit"] == b"seconds"
    assert schema.field("epoch").metadata[b"meaning"] == b"finished epochs, from 1"


def test_columns_have_their_types_also_where_nothing_was_measured(tmp_path: Path) -> None:
    empty = Store(tmp_path).trials()
    assert len(empty) == 0
    assert (empty["metric.best_epoch"].dtype, empty["metric.clean_accuracy"].dtype) == (
        "Int64",
        "float64",
    )
    assert (empty["reconstructed"].dtype, str(empty["run.started"].dtype)) == (
        "boolean",
        "datetime64[us, UTC]",
    )
    Store(tmp_path).write_trial({"trial_id": "a", "ordinal": 7})
    one = Store(tmp_path).trials()
    assert one.dtypes.equals(empty.dtypes)
    assert one["ordinal"].tolist() == [7]
    assert one["metric.best_epoch"].isna().all()


def test_reading_makes_no_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "study")
    assert (
        len(store.trials()) + len(store.epochs()) + len(store.rungs()) + len(store.evaluations())
        == 0
    )
    assert store.sweep() == 0
    assert list(tmp_path.iterdir()) == []


def test_a_row_is_replaced_not_appended(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_trial({"trial_id": "a", "status": "running"})
    store.write_trial({"trial_id": "a", "status": "finished"})
    assert store.trials()["status"].tolist() == ["finished"]
    assert [path.name for path in (tmp_path / "trials").iterdir()] == ["a.parquet"]


def test_values_become_json_utc_and_null(tmp_path: Path) -> None:
    paris = timezone(timedelta(hours=1))
    row = {
        "trial_id": "a",
        "hyperparameters": {"b": 1, "a": [2]},
        "run.started": NOON.astimezone(paris),
        "run.wall_seconds": float("nan"),
    }
    Store(tmp_path).write_trial(row)
    table = pq.read_table(tmp_path / "trials" / "a.parquet").to_pylist()[0]
    assert table["hyperparameters"] == '{"a": [2], "b": 1}'
    assert table["run.started"] == NOON
    assert table["run.started"].utcoffset() == timedelta(0)
    assert table["run.wall_seconds"] is None


@pytest.mark.parametrize(
    "extra",
    [
        {"metric.clean": 0.5},
        {"ordinal": 1.0},
        {"ordinal": True},
        {"label": 3},
        {"run.started": datetime(2026, 1, 1)},  # noqa: DTZ001 - no time zone is the mistake
        {"reconstructed": 1},
    ],
    ids=str,
)
def test_an_unknown_column_or_a_value_of_another_type_is_our_bug(
    tmp_path: Path, extra: dict[str, object]
) -> None:
    with pytest.raises(AssertionError, match=next(iter(extra))):
        Store(tmp_path).write_trial({"trial_id": "a", **extra})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "trial_id", ["", "../x", "a/b", ".hidden", "_x", "a b", "a\n", "ä", "x" * 65, 7, None]
)
def test_a_trial_id_cannot_leave_the_folder(tmp_path: Path, trial_id: object) -> None:
    with pytest.raises(StudyError, match="trial_id must be"):
        Store(tmp_path).write_trial({"trial_id": trial_id})
    assert list(tmp_path.iterdir()) == []


def test_rows_come_in_one_order_whatever_the_disk_says(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for ordinal, trial_id in ((10, "a"), (2, "z"), (2, "b")):
        store.write_trial({"trial_id": trial_id, "ordinal": ordinal})
        store.write_epochs(trial_id, [{"epoch": 2}, {"epoch": 1}])
        store.write_rungs(trial_id, [{"epochs": 1, "decided": NOON - timedelta(minutes=ordinal)}])
    assert store.trials()["trial_id"].tolist() == ["b", "z", "a"]
    assert store.epochs()[["trial_id", "epoch"]].to_numpy().tolist() == [
        ["a", 1],
        ["a", 2],
        ["b", 1],
        ["b", 2],
        ["z", 1],
        ["z", 2],
    ]
    assert store.rungs()["trial_id"].tolist() == ["a", "b", "z"]


def test_a_trials_runs_stand_one_after_the_other(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_epochs(
        "a", [{"epoch": epoch, "segment": segment} for segment in (1, 0) for epoch in (2, 1)]
    )
    assert store.epochs()[["segment", "epoch"]].to_numpy().tolist() == [
        [0, 1],
        [0, 2],
        [1, 1],
        [1, 2],
    ]


def test_an_evaluation_replaces_only_its_own_checkpoint_attack_seed_and_images(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    first = {
        "trial_id": "a",
        "checkpoint": "best",
        "attack": "pgd20",
        "attack_seed": 0,
        "subset_sha256": "a" * 64,
    }
    others = (
        {"checkpoint": "last"},
        {"attack": "clean"},
        {"attack_seed": 1},
        {"eps": 0.1},
        {"attack_settings": {"steps": 40}},
        {"trial_id": "a-best"},
        {"subset_sha256": "b" * 64},
    )
    for change in ({"accuracy": 0.5}, *others, {"accuracy": 0.25}):
        store.write_evaluation({**first, **change})
    frame = store.evaluations()
    assert len(frame) == 8
    assert frame["accuracy"].dropna().tolist() == [0.25]
    assert len(list((tmp_path / "evaluations").glob("a-best-pgd20-0-bbbbbbbb-*.parquet"))) == 1


def test_a_damaged_file_is_left_out_and_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_trial({"trial_id": "good"})
    (tmp_path / "trials" / "cut.parquet").write_bytes(
        (tmp_path / "trials" / "good.parquet").read_bytes()[:-20]
    )
    (tmp_path / "trials" / "empty.parquet").touch()
    pq.write_table(pa.table({"trial_id": [["a list"]]}), tmp_path / "trials" / "odd.parquet")
    assert store.trials()["trial_id"].tolist() == ["good"]
    assert len(store.trials()) == 1
    assert [path.name for path in store.damaged] == ["cut.parquet", "empty.parquet", "odd.parquet"]


def test_a_file_that_the_system_refuses_is_left_out_with_the_systems_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    for name in ("a", "b"):
        store.write_trial({"trial_id": name})
    stale, read_bytes = tmp_path / "trials" / "b.parquet", Path.read_bytes

    def read(path: Path) -> bytes:
        if path == stale:
            raise OSError(errno.ESTALE, "Stale file handle")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    assert store.trials()["trial_id"].tolist() == ["a"]
    assert (store.damaged, store.refused) == ([stale], {stale: "Stale file handle"})


def test_no_file_is_read_that_is_not_a_trials_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_trial({"trial_id": "good", "ordinal": 0})
    good = tmp_path / "trials" / "good.parquet"
    trials = good.parent
    (trials / "good (1).parquet").write_bytes(good.read_bytes())  # as a program that syncs makes
    (trials / "good.conflict.parquet").write_bytes(good.read_bytes())
    odd: dict[str, dict[str, list[Any]]] = {
        "packed-000009": {"x": [1]},
        "packed-000010": {"trial_id": ["t1", None]},
        "packed-000011": {"trial_id": ["../../x"]},
        "nobody": {"trial_id": [None]},
        "no_name": {"x": [1]},
        "list": {"trial_id": [["a", "b"]]},
    }
    for name, columns in odd.items():
        pq.write_table(pa.table(columns), trials / f"{name}.parquet")
    os.mkfifo(trials / "pipe.parquet")
    os.mkfifo(tmp_path / "study.json")
    assert store.trials()["trial_id"].tolist() == ["good"]
    assert {path.stem for path in store.damaged} == {*odd, "good (1)", "good.conflict"}
    assert store.description() == {}


def test_files_of_older_and_newer_versions_are_read_together(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_trial({"trial_id": "now", "ordinal": 0, "metric.clean_accuracy": 0.9})
    pq.write_table(
        pa.table({"trial_id": ["old"], "ordinal": pa.array([1], pa.int32())}),
        tmp_path / "trials" / "old.parquet",
    )
    pq.write_table(
        pa.table({"trial_id": ["new"], "ordinal": [2], "metric.calibration": [0.1]}),
        tmp_path / "trials" / "new.parquet",
    )
    frame = store.trials()
    assert frame["trial_id"].tolist() == ["now", "old", "new"]
    assert frame["metric.calibration"].tolist()[2] == 0.1
    assert store.damaged == []


@pytest.mark.parametrize("values", [(None, None), (None, 3), ("3", None)])
def test_a_column_that_was_always_null_may_have_been_of_another_type(
    tmp_path: Path, values: tuple[object, object]
) -> None:
    for trial_id, kind, value in (("a", "string", values[0]), ("b", "int", values[1])):
        store = Store(tmp_path, [Column("config.data.channels", kind, "", "")])  # type: ignore[arg-type]
        store.write_trial({"trial_id": trial_id, "config.data.channels": value})
    store = Store(tmp_path)
    assert store.trials()["trial_id"].tolist() == ["a", "b"]
    assert [
        None if pd.isna(found) else found for found in store.trials()["config.data.channels"]
    ] == list(values)
    assert store.damaged == []


def test_what_a_killed_writer_left_is_not_read_and_is_swept_after_a_minute(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_trial({"trial_id": "a"})
    old, young = tmp_path / "trials" / ".tmp-old", tmp_path / "trials" / ".tmp-young"
    page = tmp_path / ".tmp-page"  # of study.json, or the report
    for path in (old, young, page):
        path.write_bytes(b"half")
    for path in (old, page):
        os.utime(path, (time.time() - 61, time.time() - 61))
    assert len(store.trials()) == len(pd.read_parquet(tmp_path / "trials")) == 1
    assert store.sweep() == 2
    assert (old.exists(), young.exists(), page.exists()) == (False, True, False)
    assert store.damaged == []


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.write_trial({"trial_id": "a", "status": "running"})

    def full(table: object, file: object, **settings: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(
        DiskError,
        match=r"a\.parquet: could not be written: No space left on device; is the folder yours",
    ):
        store.write_trial({"trial_id": "a", "status": "finished"})
    assert store.trials()["status"].tolist() == ["running"]
    assert [path.name for path in (tmp_path / "trials").iterdir()] == ["a.parquet"]


def test_a_reader_never_meets_half_a_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_epochs("a", [{"epoch": n} for n in range(1, 201)])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            store.write_epochs("a", [{"epoch": n} for n in range(1, 201)])

    writer = threading.Thread(target=write)
    writer.start()
    reader = Store(tmp_path)
    try:
        seen = {len(reader.epochs()) for _ in range(60)}
    finally:
        stop.set()
        writer.join()
    assert seen == {200}
    assert reader.damaged == []


def test_a_writer_killed_at_any_moment_leaves_whole_files(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rkdsearch.results.store import Store\n"
        "store, rows = Store(Path(sys.argv[1])), [{'epoch': n} for n in range(1, 201)]\n"
        "store.write_epochs('a', rows); print('go', flush=True)\n"
        "while True: store.write_epochs('a', rows)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    time.sleep(0.3)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    store = Store(tmp_path)
    assert len(store.epochs()) == 200
    assert store.damaged == []


@pytest.mark.parametrize("text", ["", "{", "[1]", "\udcff"])
def test_a_damaged_description_is_empty_and_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "study.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    store = Store(tmp_path)
    assert store.description() == {}
    assert store.damaged == [tmp_path / "study.json"]


def test_a_missing_description_is_no_damage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert (store.description(), store.damaged) == ({}, [])

"""A study whose trials are packed: what it proposes and remembers does not change."""

from pathlib import Path

import pytest

from rkdsearch.results import packs
from rkdsearch.results.store import Store
from rkdsearch.search.study import Study
from tests.search.files import FakeWorker, load_space


def files(study: Path) -> int:
    return sum(1 for table in ("trials", "epochs", "rungs") for _ in (study / table).iterdir())


def searched(folder: Path, trials: int = 16) -> Study:
    study = Study(folder, load_space(folder.parent), trials, {})
    study.reconcile()
    FakeWorker().drive(study)
    study.close()
    return study


def test_a_packed_study_ends_as_one_that_is_not_in_a_quarter_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = searched(tmp_path / "plain")
    monkeypatch.setattr(packs, "SIZE", 8)
    packed = searched(tmp_path / "packed")
    assert (files(plain.folder), files(packed.folder)) == (48, 11)
    ours = {
        name: table()
        for name in ("trials", "epochs", "rungs")
        for table in [getattr(Store(plain.folder), name)]
    }
    for name, expected in ours.items():
        found = getattr(Store(packed.folder), name)()
        times = [
            c
            for c in expected
            if c
            in ("study", "asked", "placed", "decided", "finished", "run.updated", "run.started")
        ]
        assert found.drop(columns=times).equals(expected.drop(columns=times)), name


def test_a_study_with_packs_is_resumed_and_promotes_a_packed_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "SIZE", 4)
    searched(tmp_path / "study", 8)
    more = searched(tmp_path / "study", 16)
    assert {len(t.epochs) for t in more.trials.values()} == {1, 2, 4}
    rows = Store(more.folder).trials()
    assert rows["trial_id"].tolist() == [f"t{n:05d}" for n in range(16)]
    assert set(rows["status"]) == {"stopped", "finished"}
    assert len(Store(more.folder).epochs()) == sum(t.epochs_trained for t in more.trials.values())


def test_checkpoints_of_a_damaged_pack_are_put_aside_and_its_trials_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "SIZE", 4)
    study = searched(tmp_path / "study", 12)
    pack = min((study.folder / "trials").glob("packed-*"))
    pack.write_bytes(b"torn")
    lost = {f"t{n:05d}" for n in range(12)} - set(Store(study.folder).trials()["trial_id"])
    assert lost
    for name in lost | {"t00011"}:
        (study.folder / "checkpoints" / name).mkdir(parents=True, exist_ok=True)
    again = searched(tmp_path / "study", 12)
    assert sorted(again.trials) == [f"t{n:05d}" for n in range(12)]
    hidden = [p.name for p in (study.folder / "checkpoints").glob(".*damaged*")]
    assert {name.split(".")[1] for name in hidden} >= lost - {"t00011"}

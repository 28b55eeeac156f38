from pathlib import Path

import pytest

from rkdsearch.results.cells import records
from rkdsearch.results.store import Store
from rkdsearch.search.stored_trials import StoredTrials
from tests.results import version_1
from tests.search.files import CAPPED, FakeWorker, checkpoint_of, load_space, on_disk, run


class KilledError(Exception):
    """The driver is gone."""


def rungs_of(folder: Path) -> list[tuple[int, str]]:
    """What was decided of the baseline."""
    return [
        (r["epochs"], r["decision"])
        for r in records(Store(folder).rungs())
        if r["trial_id"] == "t00000"
    ]


def test_a_trial_whose_checkpoint_is_lost_starts_afresh_and_every_rung_is_decided_once(
    tmp_path: Path,
) -> None:
    folder, space = tmp_path / "study", load_space(tmp_path)

    def killed(moment: str) -> None:
        if moment == "reported":  # the baseline has gone on from its first rung
            raise KilledError

    with pytest.raises(KilledError):
        run(folder, space, FakeWorker(killed))
    assert rungs_of(folder) == [(1, "continued")]
    checkpoint_of(folder, "t00000").unlink()
    worker = FakeWorker()
    run(folder, space, worker)
    assert [epoch for trial, epoch in worker.trained if trial == "t00000"] == [1, 2, 3, 4]
    assert rungs_of(folder) == [(1, "continued"), (2, "continued")]


def test_a_trial_comes_back_from_its_rows_as_it_was(tmp_path: Path) -> None:
    space = load_space(tmp_path)
    study = run(tmp_path / "study", space)
    stored = StoredTrials(study.ledger.store, study.space)
    for row in stored.rows:
        trial = study.trials[row["trial_id"]]
        again = stored.trial(row, trial.config, trial.segments, trial.costs)
        for name in (
            "ordinal",
            "origin",
            "label",
            "hyperparameters",
            "status",
            "notes",
            "epochs_by_segment",
        ):
            assert getattr(again, name) == getattr(trial, name), (row["trial_id"], name)
        assert [(d.epochs, d.decision) for d in again.decisions] == [
            (d.epochs, d.decision) for d in trial.decisions
        ]


@pytest.mark.parametrize("over", [1, 6])
def test_a_study_of_schema_version_1_resumes_to_the_same_end(tmp_path: Path, over: int) -> None:
    space = load_space(tmp_path, **CAPPED)
    run(tmp_path / "unbroken", space)
    folder, left = tmp_path / "study", iter([True] * over)

    def killed(moment: str) -> None:
        if moment == "assignment over" and not next(left, False):
            raise KilledError

    with pytest.raises(KilledError):
        run(folder, space, FakeWorker(killed))
    written = version_1.rewrite(folder)
    assert list((folder / "checkpoints").glob("*/leg-0"))
    assert all(written[table] for table in ("trials", "epochs", "rungs")), written
    run(folder, space)
    assert on_disk(folder) == on_disk(tmp_path / "unbroken")

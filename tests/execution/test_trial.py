from pathlib import Path

import pytest
import ray

from rkdsearch import config as run
from rkdsearch.config.fidelity import Fidelity
from rkdsearch.errors import WorkerError
from rkdsearch.execution.trial import run_trial, see_study
from rkdsearch.file_lock import one_writer, writer_of
from rkdsearch.search.assignment import Assignment

CONFIG = run.build(
    {
        "data.name": "digits",
        "student": {"name": "small_cnn", "width": 4},
        "method.name": "natural",
        "attack.steps": 0,
        "training": {"epochs": 3, "batch_size": 512, "device": "cpu"},
        "validation": {"images": 50, "every": 3, "attack.steps": 1},
    }
)


def test_a_resumed_trial_reports_its_last_epoch_once_more_and_trains_on(tmp_path: Path) -> None:
    assignment = Assignment("t00000", CONFIG, tmp_path, (Fidelity(epochs=1), Fidelity(epochs=3)))
    trial = run_trial(assignment)
    report = next(trial)
    first, facts = report.result, report.facts
    trial.close()  # type: ignore[attr-defined]  # it is a generator
    assert (first.epoch, first.clean_accuracy is not None) == (1, True)
    assert facts["run.processes"] == 1
    assert facts["run.ray"] == ray.__version__
    again = [report.result for report in run_trial(assignment)]
    assert [e.epoch for e in again] == [1, 2, 3]
    assert again[0] == first
    assert [e.clean_accuracy is not None for e in again] == [True, False, True]


def test_a_worker_that_sees_another_folder_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.77.0.3")
    with one_writer(tmp_path / "study"):
        writer = writer_of(tmp_path / "study")
        assert writer.startswith("searched by process ")
        see_study(tmp_path / "study", writer)
        with pytest.raises(
            WorkerError, match=r"^node 10.77.0.3 does not see .*/other as the search does: mount"
        ):
            see_study(tmp_path / "other", writer)
    see_study(tmp_path / "other", "")  # a search without a lock, as tests have it

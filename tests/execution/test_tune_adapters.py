import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from rkdsearch.errors import DiskError, Failure
from rkdsearch.execution.interruption import Interruption
from rkdsearch.execution.messages import (
    Answer,
    FullDisk,
    Notice,
    TrialFailure,
    WorkOrder,
    packed,
    unpacked,
)
from rkdsearch.execution.tune_adapters import StudyCallback, StudyScheduler, StudySearcher
from rkdsearch.search.study import Study
from tests.execution.orders import REPORT
from tests.search.files import load_space
from tests.search.witness import fill_disk


def test_a_trial_whose_worker_is_lost_too_often_fails_and_says_so(tmp_path: Path) -> None:
    study = Study(tmp_path, load_space(tmp_path, resources={"max_failures": 1}), 2, {})
    searcher = StudySearcher(study, Interruption(study.folder))
    searcher.suggest("a")
    searcher.on_trial_complete("a", error=True)
    lost = study.trials["t00000"]
    assert (lost.status, lost.error, lost.failure) == (
        "failed",
        "its worker or node was lost 2 times",
        "worker",
    )
    searcher.suggest("b")
    searcher.on_trial_complete("b")
    assert [t.status for t in study.trials.values()] == ["failed", "running"]


def test_a_row_that_cannot_be_written_is_kept_for_the_end_of_rays_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(tmp_path, load_space(tmp_path), 2, {})
    interruption = Interruption(study.folder)
    searcher = StudySearcher(study, interruption)
    searcher.suggest("a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", os.replace)  # undone here
        fill_disk(tmp_path)
        searcher.on_trial_complete("a", error=True)
    assert isinstance(interruption.reason, DiskError)
    with pytest.raises(
        DiskError,
        match=(
            r"t00000.parquet: could not be written: No space left on device; is the folder yours,"
            r" and the disk n"
        ),
    ):
        StudyCallback(study, None, str, interruption).on_step_end(1, [])


@pytest.mark.parametrize(
    ("answer", "decision", "status"),
    [
        (REPORT, "CONTINUE", "running"),
        (TrialFailure("the loss is nan", Failure.LOSS), "STOP", "failed"),
        # its process is asked for one more step, so that it raises and ends
        (TrialFailure("the device is lost", Failure.WORKER), "CONTINUE", "failed"),
        (FullDisk("last.safetensors: could not be written"), "CONTINUE", "running"),
        (Notice("last.safetensors was damaged"), "CONTINUE", "running"),
    ],
)
def test_each_answer_of_a_worker_has_its_consequence(
    tmp_path: Path, answer: Answer, decision: str, status: str
) -> None:
    study = Study(tmp_path, load_space(tmp_path), 2, {})
    interruption, notices = Interruption(study.folder), list[str]()
    config = StudySearcher(study, interruption).suggest("a")
    order: WorkOrder = unpacked(config)
    assert (order.assignment.trial_id, order.assignment.folder.is_absolute()) == ("t00000", True)
    trial = SimpleNamespace(config=config, max_failures=3)
    scheduler = StudyScheduler(study, notices.append, interruption)
    assert scheduler.on_trial_result(None, trial, packed(answer)) == decision
    assert study.trials["t00000"].status == status
    assert trial.max_failures == (
        0 if answer == TrialFailure("the device is lost", Failure.WORKER) else 3
    )
    assert isinstance(interruption.reason, DiskError) == isinstance(answer, FullDisk)
    assert notices == (
        ["trial t00000: last.safetensors was damaged"] if isinstance(answer, Notice) else []
    )

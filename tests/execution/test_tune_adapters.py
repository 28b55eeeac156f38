import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from rkdsearch.errors import DiskError, Failure, StudyError
from rkdsearch.execution.failures import Streak
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


def searcher_of(study: Study, interruption: Interruption, places: int = 1) -> StudySearcher:
    return StudySearcher(study, interruption, Streak(), lambda: places)


def started(trial_id: str) -> SimpleNamespace:
    """Tune's trial, as the callback is given it."""
    return SimpleNamespace(
        config={"trial_id": trial_id},
        trial_id=f"tune-{trial_id}",
        num_failures=1,
        error_file=None,
    )


def test_as_many_trials_wait_as_the_cluster_can_take_and_one_where_it_is_full(
    tmp_path: Path,
) -> None:
    study = Study(tmp_path, load_space(tmp_path), 9, {})
    interruption = Interruption(study.folder)
    searcher = searcher_of(study, interruption, places=3)
    callback = StudyCallback(study, None, str, interruption)
    assert [searcher.suggest(str(n)) is not None for n in range(4)] == [True, True, True, False]
    assert len(study.ledger.waiting) == 3
    for trial_id in list(study.trials):
        callback.on_trial_start(1, [], started(trial_id))
    assert (len(study.ledger.executing), len(study.ledger.waiting)) == (3, 0)
    # one waits for the next place that becomes free
    assert [searcher.suggest(str(n)) is not None for n in range(4, 6)] == [True, False]
    callback.on_trial_recover(1, [], started("t00001"))
    assert [t.trial_id for t in study.ledger.waiting] == ["t00001", "t00003"]


def test_a_lost_worker_is_counted_and_a_preempted_node_is_not(tmp_path: Path) -> None:
    study, said = Study(tmp_path, load_space(tmp_path), 9, {}), list[str]()
    callback = StudyCallback(study, None, said.append, Interruption(study.folder))
    assert searcher_of(study, Interruption(study.folder)).suggest("a") is not None
    trial = started("t00000")
    for trial.num_failures in (0, 1, 1, 2):
        callback.on_trial_recover(1, [], trial)
    assert said == [
        f"trial t00000 lost its worker, started again ({how})"
        for how in (
            "its node was preempted, which is not counted",
            "1 of 3",
            "its node was preempted, which is not counted",
            "2 of 3",
        )
    ]


def test_three_trials_in_a_row_that_the_machine_failed_alike_end_the_search(tmp_path: Path) -> None:
    study = Study(tmp_path, load_space(tmp_path), 9, {})
    interruption = Interruption(study.folder)
    searcher = searcher_of(study, interruption, places=9)
    scheduler = StudyScheduler(study, str, interruption, searcher._streak)
    trials = [SimpleNamespace(config=searcher.suggest(str(n)), max_failures=3) for n in range(5)]
    for port, trial in enumerate(trials[:2]):
        failed = TrialFailure(f"connectFullMesh failed, port {port}", Failure.WORKER)
        scheduler.on_trial_result(None, trial, packed(failed))
    scheduler.on_trial_result(None, trials[2], packed(REPORT))
    for port, trial in enumerate(trials[:3]):
        assert interruption.reason is None
        failed = TrialFailure(f"connectFullMesh failed, port 7{port}", Failure.WORKER)
        scheduler.on_trial_result(None, trial, packed(failed))
    assert isinstance(interruption.reason, StudyError)
    assert str(interruption.reason).startswith(
        "3 trials in a row (t00000, t00001, t00002) failed in the same way, and no epoch was"
        " finished in between: connectFullMesh failed, port 72; the search has stopped"
    )


def test_a_trial_whose_worker_is_lost_too_often_fails_and_says_so(tmp_path: Path) -> None:
    study = Study(tmp_path, load_space(tmp_path, resources={"max_failures": 1}), 2, {})
    searcher = searcher_of(study, Interruption(study.folder))
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
    searcher = searcher_of(study, interruption)
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
    config = searcher_of(study, interruption).suggest("a")
    order: WorkOrder = unpacked(config)
    assert (order.assignment.trial_id, order.assignment.folder.is_absolute()) == ("t00000", True)
    trial = SimpleNamespace(config=config, max_failures=3)
    scheduler = StudyScheduler(study, notices.append, interruption, Streak())
    assert scheduler.on_trial_result(None, trial, packed(answer)) == decision
    assert study.trials["t00000"].status == status
    assert trial.max_failures == (
        0 if answer == TrialFailure("the device is lost", Failure.WORKER) else 3
    )
    assert isinstance(interruption.reason, DiskError) == isinstance(answer, FullDisk)
    assert notices == (
        ["trial t00000: last.safetensors was damaged"] if isinstance(answer, Notice) else []
    )

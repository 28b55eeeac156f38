from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from rkdsearch import config as run
from rkdsearch.errors import DiskError, NonFiniteLossError, RkdError
from rkdsearch.training.stages import Stage
from rkdsearch.trial import RayTrial, Worker, run_trial

CONFIG = run.build(
    {
        "data.name": "digits", "student": {"name": "small_cnn", "width": 4}, "method.name": "natural", "attack.steps": 0,
        "training": {"epochs": 3, "batch_size": 512, "device": "cpu"}, "validation": {"images": 50, "every": 3, "attack.steps": 1},
    }
)  # fmt: skip


def test_a_trial_taken_up_reports_its_last_epoch_once_more_and_trains_on(tmp_path: Path) -> None:
    stages = (Stage(1), Stage(3))
    trial = run_trial(CONFIG, tmp_path, stages)
    first, facts = next(trial)
    trial.close()  # type: ignore[attr-defined]  # it is a generator
    assert (first.epoch, first.clean_accuracy is not None) == (1, True)
    assert facts["run.processes"] == 1
    assert facts["run.ray"] == ray.__version__
    again = [epoch for epoch, _ in run_trial(CONFIG, tmp_path, stages)]
    assert [e.epoch for e in again] == [1, 2, 3]
    assert again[0] == first
    assert [e.clean_accuracy is not None for e in again] == [True, False, True]


def trial_whose_next_epoch(raises: Exception) -> RayTrial:
    def epochs() -> Iterator[dict[str, Any]]:
        raise raises
        yield {}

    trial = RayTrial.__new__(RayTrial)
    trial._gang = None
    trial._epochs = epochs()
    return trial


def test_what_a_user_can_mend_is_told_in_its_own_words() -> None:
    trial = trial_whose_next_epoch(NonFiniteLossError("epoch 2, batch 1: the loss is nan"))
    assert trial.step() == {"failure": "epoch 2, batch 1: the loss is nan"}


def test_a_bug_of_one_method_is_told_with_its_place_and_on_one_line() -> None:
    failure = trial_whose_next_epoch(IndexError("too\nfar")).step()["failure"]
    assert failure.startswith("IndexError: too far (test_trial.py:")


def test_a_full_disk_is_no_failure_of_the_trial() -> None:
    trial = trial_whose_next_epoch(DiskError("last.safetensors: could not be written: No space left on device"))
    assert trial.step() == {"disk": "last.safetensors: could not be written: No space left on device"}


def test_what_one_process_of_a_gang_meets_is_told_as_its_own_words_and_not_tried_again() -> None:
    error = ray.exceptions.RayTaskError(
        "step", "Traceback ...", RkdError("epoch 1, batch 1: the loss is nan"), "ray::Worker", 1, "127.0.0.1"
    )
    assert trial_whose_next_epoch(error.as_instanceof_cause()).step() == {"failure": "epoch 1, batch 1: the loss is nan"}


def test_a_process_of_a_gang_raises_sentences_alone() -> None:
    worker = Worker()
    worker._reports = trial_whose_next_epoch(IndexError("too far"))._epochs  # type: ignore[assignment]
    with pytest.raises(RkdError, match=r"IndexError: too far \(test_trial.py:"):
        worker.step()


def test_a_damaged_checkpoint_fails_its_trial_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "last.safetensors").write_bytes(b"half")
    trial = RayTrial.__new__(RayTrial)
    trial._gang = None
    trial._epochs = ({} for _ in run_trial(CONFIG, tmp_path, ()))
    assert trial.step()["failure"].endswith("; delete it to start this run afresh")


def test_a_lost_worker_is_rays_business() -> None:
    with pytest.raises(ray.exceptions.RayError):
        trial_whose_next_epoch(ray.exceptions.ActorDiedError()).step()

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from rkdsearch import config as run
from rkdsearch.errors import NonFiniteLossError
from rkdsearch.trial import RayTrial, run_trial

CONFIG = run.build(
    {
        "data.name": "digits", "student": {"name": "small_cnn", "width": 4}, "method.name": "natural", "attack.steps": 0,
        "training": {"epochs": 3, "batch_size": 512, "device": "cpu"}, "validation": {"images": 50, "every": 3, "attack.steps": 1},
    }
)  # fmt: skip


def test_a_trial_taken_up_reports_its_last_epoch_once_more_and_trains_on(tmp_path: Path) -> None:
    trial = run_trial(CONFIG, tmp_path, frozenset({1}))
    first, facts = next(trial)
    trial.close()  # type: ignore[attr-defined]  # it is a generator
    assert (first.epoch, first.clean_accuracy is not None) == (1, True)
    assert facts["run.processes"] == 1
    assert facts["run.ray"] == ray.__version__
    again = [epoch for epoch, _ in run_trial(CONFIG, tmp_path, frozenset({1}))]
    assert [e.epoch for e in again] == [1, 2, 3]
    assert again[0] == first
    assert [e.clean_accuracy is not None for e in again] == [True, False, True]


def trial_whose_next_epoch(raises: Exception) -> RayTrial:
    def epochs() -> Iterator[dict[str, Any]]:
        raise raises
        yield {}

    trial = RayTrial.__new__(RayTrial)
    trial._epochs = epochs()
    return trial


def test_what_a_user_can_mend_is_told_in_its_own_words() -> None:
    trial = trial_whose_next_epoch(NonFiniteLossError("epoch 2, batch 1: the loss is nan"))
    assert trial.step() == {"failure": "epoch 2, batch 1: the loss is nan"}


def test_a_bug_of_one_method_is_told_with_its_place_and_on_one_line() -> None:
    failure = trial_whose_next_epoch(IndexError("too\nfar")).step()["failure"]
    assert failure.startswith("IndexError: too far (test_trial.py:")


def test_a_lost_worker_is_rays_business() -> None:
    with pytest.raises(ray.exceptions.RayError):
        trial_whose_next_epoch(ray.exceptions.ActorDiedError()).step()

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch

from rkdsearch.errors import (
    CheckpointError,
    DiskError,
    NonFiniteLossError,
    OutOfMemoryError,
    WorkerError,
)
from rkdsearch.execution.trainable import RayTrial
from tests.execution.test_trial import CONFIG


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
    assert trial.step() == {"error": "epoch 2, batch 1: the loss is nan", "failure": "loss"}


def test_a_bug_of_one_method_is_told_with_its_place_and_on_one_line() -> None:
    told = trial_whose_next_epoch(IndexError("too\nfar")).step()
    assert told["error"].startswith("IndexError: too far (test_trainable.py:")
    assert told["failure"] == "error"


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        # before the first epoch: the trainer has no sentence for it there
        (torch.OutOfMemoryError("CUDA out of memory"), "memory"),
        (OutOfMemoryError("epoch 1: the device is out of memory"), "memory"),
        # the process goes on
        (
            torch.AcceleratorError(
                "CUDA error: out of memory\nSearch for cudaErrorMemoryAllocation"
            ),
            "memory",
        ),
        (
            RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1"
                " bytes"
            ),
            "memory",
        ),
        (OSError(116, "Stale file handle"), "files"),
        (CheckpointError("last.safetensors: belongs to a run with another config"), "files"),
    ],
)
def test_what_the_machine_did_is_told_from_what_the_method_did(
    error: Exception, failure: str
) -> None:
    trial = trial_whose_next_epoch(error)
    assert trial.step()["failure"] == failure
    trial._epochs = iter([{"epoch": 1}])
    assert trial.step() == {"epoch": 1}


def test_a_full_disk_is_no_failure_of_the_trial() -> None:
    trial = trial_whose_next_epoch(
        DiskError("last.safetensors: could not be written: No space left on device")
    )
    assert trial.step() == {
        "disk": "last.safetensors: could not be written: No space left on device"
    }


def test_what_one_process_of_a_gang_meets_is_told_as_its_own_words_and_not_tried_again() -> None:
    error = ray.exceptions.RayTaskError(
        "step",
        "Traceback ...",
        NonFiniteLossError("epoch 1, batch 1: the loss is nan"),
        "ray::Worker",
        1,
        "127.0.0.1",
    )
    told = trial_whose_next_epoch(error.as_instanceof_cause()).step()
    assert told == {"error": "epoch 1, batch 1: the loss is nan", "failure": "loss"}


def test_a_process_whose_device_is_lost_trains_no_other_trial() -> None:
    trial = trial_whose_next_epoch(
        torch.AcceleratorError(
            "CUDA error: device-side assert triggered\nSearch for `cudaErrorAssert'"
        )
    )
    told = trial.step()
    assert told["error"].startswith("CUDA error: device-side assert triggered (test_trainable.py:")
    assert told["error"].endswith(
        "): its process can use the device no more, later trials get a new one;"
        " CUDA_LAUNCH_BLOCKING=1 finds the true place"
    )
    assert told["failure"] == "worker"
    with pytest.raises(RuntimeError, match="Tune lets go of an actor that raises"):
        trial.step()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"
            " [127.0.0.1]:5021"
        ),
        torch.distributed.DistBackendError(
            "NCCL error: remote process exited or there was a network error"
        ),
    ],
)
def test_a_process_whose_gang_has_lost_another_one_is_tried_again(error: RuntimeError) -> None:
    told = trial_whose_next_epoch(error).step()
    assert told["failure"] == "worker"
    assert told["error"].endswith("another process of its gang is lost, or cannot be reached")


def test_a_gang_that_does_not_answer_is_ended_with_its_trial() -> None:
    ended: list[str] = []
    trial = trial_whose_next_epoch(
        WorkerError("an epoch of its 2 processes must end within 6 hours")
    )
    trial._gang = SimpleNamespace(close=lambda: ended.append("the gang"))  # type: ignore[assignment]
    assert trial.step() == {
        "error": "an epoch of its 2 processes must end within 6 hours",
        "failure": "worker",
    }
    assert ended == ["the gang"]


def taken_up(folder: Path) -> RayTrial:
    trial = RayTrial.__new__(RayTrial)
    assignment = {
        "trial_id": "t00000", "config": CONFIG.to_dict(), "folder": str(folder), "fidelities": [{"epochs": 1}, {"epochs": 3}],
        "allow_imports": [], "processes": 1, "cpu": 1, "gpu": 0,
    }  # fmt: skip
    trial.setup({"assignment": json.dumps(assignment)})
    return trial


def test_a_checkpoint_that_is_damaged_while_its_trial_waits_is_put_aside_and_the_trial_trained_afresh(
    tmp_path: Path,
) -> None:
    before = taken_up(tmp_path).step()
    last = tmp_path / "last.safetensors"
    whole = last.read_bytes()
    last.write_bytes(whole[:-100])
    trial = taken_up(tmp_path)
    told = [trial.step() for _ in range(3)]
    assert [t["epoch"] for t in told] == [1, 2, 3]
    assert json.loads(told[0]["result"])["loss"] == json.loads(before["result"])["loss"]
    assert (
        told[0]["notice"]
        == f"{last} was damaged and is put aside as last.safetensors.damaged; its run is trained"
        " afresh"
    )
    assert not any("notice" in t for t in told[1:])
    assert (tmp_path / "last.safetensors.damaged").read_bytes() == whole[:-100]


def test_a_lost_worker_is_rays_business() -> None:
    with pytest.raises(ray.exceptions.RayError):
        trial_whose_next_epoch(ray.exceptions.ActorDiedError()).step()

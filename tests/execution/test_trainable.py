from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import torch

from rkdsearch.errors import (
    CheckpointError,
    DiskError,
    Failure,
    NonFiniteLossError,
    OutOfMemoryError,
    WorkerError,
)
from rkdsearch.execution.messages import (
    Answer,
    EpochReport,
    FullDisk,
    Notice,
    TrialFailure,
    packed,
    unpacked,
)
from rkdsearch.execution.trainable import RayTrial
from tests.execution.orders import REPORT, order_of


def trial_whose_next_epoch(raises: Exception) -> RayTrial:
    def answers() -> Iterator[Answer]:
        raise raises
        yield REPORT

    trial = RayTrial.__new__(RayTrial)
    trial._gang = None
    trial._answers = answers()
    return trial


def answer_of(trial: RayTrial) -> Answer:
    """The message of its next step, as the driver reads it."""
    answer: Answer = unpacked(trial.step())
    return answer


def failure_of(trial: RayTrial) -> TrialFailure:
    answer = answer_of(trial)
    assert isinstance(answer, TrialFailure)
    return answer


def test_what_a_user_can_mend_is_told_in_its_own_words() -> None:
    trial = trial_whose_next_epoch(NonFiniteLossError("epoch 2, batch 1: the loss is nan"))
    assert answer_of(trial) == TrialFailure("epoch 2, batch 1: the loss is nan", Failure.LOSS)


def test_an_error_that_came_through_ray_has_no_place_and_is_told_without_one() -> None:
    came = ray.exceptions.RayTaskError(
        "begin", "remote traceback", ModuleNotFoundError("no my_lab")
    )
    told = failure_of(trial_whose_next_epoch(came))
    assert told == TrialFailure("ModuleNotFoundError: no my_lab", Failure.ERROR)


def test_a_bug_of_one_method_is_told_with_its_place_and_on_one_line() -> None:
    told = failure_of(trial_whose_next_epoch(IndexError("too\nfar")))
    assert told.error.startswith("IndexError: too far (test_trainable.py:")
    assert told.kind is Failure.ERROR


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
    assert failure_of(trial).kind == failure
    trial._answers = iter([REPORT])
    assert answer_of(trial) == REPORT


def test_a_full_disk_is_no_failure_of_the_trial() -> None:
    trial = trial_whose_next_epoch(
        DiskError("last.safetensors: could not be written: No space left on device")
    )
    assert answer_of(trial) == FullDisk(
        "last.safetensors: could not be written: No space left on device"
    )


def test_what_one_process_of_a_gang_meets_is_told_as_its_own_words_and_not_tried_again() -> None:
    error = ray.exceptions.RayTaskError(
        "step",
        "Traceback ...",
        NonFiniteLossError("epoch 1, batch 1: the loss is nan"),
        "ray::Worker",
        1,
        "127.0.0.1",
    )
    told = answer_of(trial_whose_next_epoch(error.as_instanceof_cause()))
    assert told == TrialFailure("epoch 1, batch 1: the loss is nan", Failure.LOSS)


@pytest.mark.parametrize("lost", [ray.exceptions.RayActorError(preempted=True), None])
def test_a_peer_that_is_gone_is_rays_business_and_one_that_cannot_be_reached_a_failure(
    lost: ray.exceptions.RayActorError | None,
) -> None:
    error = ray.exceptions.RayTaskError(
        "step",
        "Traceback ...",
        WorkerError("Connection reset by peer; another process of its gang is lost"),
        "ray::GangProcess",
        1,
        "10.77.0.2",
    )
    ended: list[str] = []
    trial = trial_whose_next_epoch(error.as_instanceof_cause())
    trial._gang = SimpleNamespace(  # type: ignore[assignment]
        close=lambda: ended.append("the gang"), loss=lambda: lost
    )
    if lost is not None:
        with pytest.raises(ray.exceptions.RayActorError) as raised:
            trial.step()
        assert raised.value.preempted
    else:
        assert failure_of(trial).kind is Failure.WORKER
    assert ended == ["the gang"]


def test_a_process_whose_device_is_lost_trains_no_other_trial() -> None:
    trial = trial_whose_next_epoch(
        torch.AcceleratorError(
            "CUDA error: device-side assert triggered\nSearch for `cudaErrorAssert'"
        )
    )
    told = failure_of(trial)
    assert told.error.startswith("CUDA error: device-side assert triggered (test_trainable.py:")
    assert told.error.endswith(
        "): this process can no longer use the device, later trials get a new process;"
        " CUDA_LAUNCH_BLOCKING=1 finds the true place"
    )
    assert told.kind is Failure.WORKER
    with pytest.raises(RuntimeError, match="Tune ends an actor that raises"):
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
    told = failure_of(trial_whose_next_epoch(error))
    assert told.kind is Failure.WORKER
    assert told.error.endswith("another process of its gang is lost or cannot be reached")


def test_a_gang_that_does_not_answer_is_ended_with_its_trial() -> None:
    ended: list[str] = []
    trial = trial_whose_next_epoch(
        WorkerError("an epoch of its 2 processes must end within 6 hours")
    )
    trial._gang = SimpleNamespace(close=lambda: ended.append("the gang"))  # type: ignore[assignment]
    assert answer_of(trial) == TrialFailure(
        "an epoch of its 2 processes must end within 6 hours", Failure.WORKER
    )
    assert ended == ["the gang"]


def taken_up(folder: Path) -> RayTrial:
    trial = RayTrial.__new__(RayTrial)
    trial.setup(packed(order_of(folder)))
    return trial


def test_a_checkpoint_damaged_while_its_trial_waits_is_put_aside_and_training_restarts(
    tmp_path: Path,
) -> None:
    before = answer_of(taken_up(tmp_path))
    last = tmp_path / "last.safetensors"
    whole = last.read_bytes()
    last.write_bytes(whole[:-100])
    trial = taken_up(tmp_path)
    notice, *reports = [answer_of(trial) for _ in range(4)]
    assert notice == Notice(
        f"{last} was damaged and is put aside as last.safetensors.damaged; its run is trained"
        " afresh"
    )
    assert isinstance(before, EpochReport)
    results = [report.result for report in reports if isinstance(report, EpochReport)]
    assert [result.epoch for result in results] == [1, 2, 3]
    assert results[0].loss == before.result.loss
    assert (tmp_path / "last.safetensors.damaged").read_bytes() == whole[:-100]


def test_a_lost_worker_is_rays_business() -> None:
    with pytest.raises(ray.exceptions.RayError):
        trial_whose_next_epoch(ray.exceptions.ActorDiedError()).step()

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rkdsearch.config import AveragingConfig
from rkdsearch.training import checkpoint
from rkdsearch.training.averaging import Average
from tests.training.runs import TINY, described, train


class Number(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(100.0))  # a first weight that must be forgotten


def follow(config: AveragingConfig, values: list[float], *, epochs: int = 1) -> list[float]:
    """The average after each value that the student takes: at a step, or, for SWA, at an epoch."""
    student, found = Number(), []
    average = Average(config, student, epochs)
    for i, value in enumerate(values):
        student.value.data.fill_(value)
        average.after_step(student)
        if config.name == "swa":
            average.after_epoch(student, i)
        found.append(float(average.network.get_parameter("value")))
    return found


def test_an_ema_is_the_plain_mean_at_first_and_then_decays() -> None:
    assert follow(AveragingConfig(name="ema", decay=0.75), [1, 2, 3, 4, 5, 5]) == pytest.approx(
        [1, 1.5, 2, 2.5, 3.125, 3.59375]
    )


def test_swa_is_the_student_before_it_starts_and_the_mean_of_epochs_after() -> None:
    config = AveragingConfig(name="swa", start=0.5)
    assert follow(config, [9, 8, 2, 4, 9, 5], epochs=4)[:4] == pytest.approx([9, 8, 2, 3])
    assert follow(config, [9, 8, 2, 4, 9, 5], epochs=6) == pytest.approx([9, 8, 2, 4, 6.5, 6])
    assert follow(AveragingConfig(name="swa", start=0.95), [9, 8, 2], epochs=3) == pytest.approx(
        [9, 8, 5]
    )


def test_statistics_that_are_no_batchnorms_are_the_students_own() -> None:
    norm = nn.InstanceNorm2d(2, affine=True, track_running_stats=True)
    averages = [Average(AveragingConfig(name=name), norm, 2) for name in ("ema", "swa")]
    norm(torch.full((4, 2, 3, 3), 5.0) + torch.randn(4, 2, 3, 3))
    for average in averages:
        average.after_step(norm)
        average.after_epoch(norm, 0)
        assert torch.equal(average.network.get_buffer("running_mean"), norm.running_mean)


def test_the_average_is_not_trained_and_is_no_part_of_the_student() -> None:
    student = Number()
    average = Average(AveragingConfig(name="ema"), student, 1)
    assert not average.network.get_parameter("value").requires_grad
    assert average.network.get_parameter("value").data_ptr() != student.value.data_ptr()


def test_batchnorm_statistics_are_estimated_anew_as_the_mean_over_batches() -> None:
    norm = nn.Sequential(nn.BatchNorm1d(1, momentum=0.3))
    norm[0].running_mean.fill_(77.0)
    average = Average(AveragingConfig(name="swa"), norm, 1)
    given = []
    average.network.get_submodule("0").register_forward_pre_hook(
        lambda norm, _: given.append(norm.momentum)
    )
    average.reestimate_batchnorm(iter([torch.tensor([[1.0], [3.0]]), torch.tensor([[4.0], [8.0]])]))
    # with None, torch would read its count of batches back from the device
    assert given == [1.0, 0.5]
    estimated = average.network.get_submodule("0")
    assert float(estimated.get_buffer("running_mean")) == pytest.approx(4.0)  # of 2 and 6
    assert float(estimated.get_buffer("running_var")) == pytest.approx(5.0)  # of 2 and 8, unbiased
    assert estimated.momentum == 0.3
    assert not average.network.training
    assert float(norm[0].running_mean) == 77.0


def test_a_network_without_batchnorm_reads_no_image() -> None:
    def images() -> Tensor:
        raise AssertionError("an image was read")

    average = Average(AveragingConfig(name="swa"), Number(), 1)
    average.reestimate_batchnorm(images() for _ in range(1))


@pytest.mark.parametrize("name", ["ema", "swa"])
def test_the_average_is_what_a_run_validates_and_delivers(
    teachers: Path, tmp_path: Path, name: str
) -> None:
    trainer = train(
        described(
            teachers,
            "pgd_at",
            averaging={"name": name, "start": 0.0},
            training={"epochs": 3},
            **TINY,
        ),
        tmp_path,
    )
    assert trainer.average is not None
    results, _ = trainer.validate()
    assert (results.clean_accuracy, results.robust_accuracy) == (
        trainer.history[-1].clean_accuracy,
        trainer.history[-1].robust_accuracy,
    )
    tensors, said = checkpoint.read(tmp_path / "best.safetensors")
    student = trainer.student.state_dict()
    assert any(not torch.equal(tensors[name], student[name]) for name in student)
    if said["best"]["epoch"] == 3:
        assert all(
            torch.equal(tensors[name], tensor)
            for name, tensor in trainer.average.network.state_dict().items()
        )

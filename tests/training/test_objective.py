from pathlib import Path

import pytest
import torch
from torch import nn

from rkdsearch.attacks import Noise
from rkdsearch.errors import ConfigError
from rkdsearch.training.objective import TrainingObjective
from rkdsearch.training.precision import forward_context
from rkdsearch.training.trainer import Trainer
from tests.training.networks import Tiny
from tests.training.runs import TINY, described


def test_accelerate_wraps_the_student_and_its_companions_and_no_teacher(teachers: Path) -> None:
    run = Trainer(described(teachers, {"name": "crdnd", "compensation": "matrix"}))
    prefixes = {name.split(".")[0] for name, _ in run.objective.named_parameters()}
    assert prefixes == {"student", "companions"}
    assert "companions.noise_matrix.weight" in dict(run.objective.named_parameters())
    frozen = {id(p) for network in run.teachers.values() for p in network.parameters()}
    assert not frozen & {id(p) for p in run.objective.parameters()}


def test_one_forward_is_the_whole_loss_and_its_terms_are_detached(teachers: Path) -> None:
    run = Trainer(described(teachers, "trades", **TINY))
    batch = next(run._batches.epoch(0))
    total, terms = run.objective(
        batch, Noise(torch.Generator().manual_seed(0)), epoch=0, lr_factor=1.0, teacher_logits={}
    )
    assert total.requires_grad
    assert total.shape == ()
    assert terms
    assert not any(term.requires_grad for term in terms.values())


def test_the_attack_moves_no_statistic_and_one_forward_pass_moves_each_once(teachers: Path) -> None:
    run = Trainer(
        described(
            teachers,
            "pgd_at",
            attack={"steps": 5},
            training={"epochs": 1, "batch_size": 100},
            **TINY,
        )
    )
    list(run.epochs())
    assert int(run.student.get_buffer("bn1.num_batches_tracked")) == 1


def test_companions_look_at_the_batches_of_all_processes_where_the_student_does(
    teachers: Path,
) -> None:
    config = described(teachers, "ciard", training={"batchnorm_across": "synchronised"})
    student, copied = Tiny(10, 1), Tiny(10, 1)
    trained = list(copied.parameters())
    companion = TrainingObjective(config, student, {"robust": copied}, {}, processes=2).companions[
        "robust"
    ]
    assert [type(companion.get_submodule(name)) for name in ("bn1", "bn2")] == [
        nn.SyncBatchNorm
    ] * 2
    # what optimizers hold
    assert [id(p) for p in companion.parameters()] == [id(p) for p in trained]


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_half_precision_is_a_context_around_each_forward(name: str, dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(2, 2)
    with forward_context(name, torch.device("cpu"))():
        assert layer(torch.zeros(1, 2)).dtype == dtype
    assert layer(torch.zeros(1, 2)).dtype == torch.float32


def test_a_loss_that_is_no_loss_is_told_with_its_law(teachers: Path) -> None:
    trainer = Trainer(described(teachers, "natural"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(trainer.config.method), "loss", lambda _, step: step.student(step.x))
        with pytest.raises(
            ConfigError, match=r"natural: loss must return a Loss, such as .* Tensor"
        ):
            list(trainer.epochs())

"""On a CUDA device: a run trains, and no step of it waits for the device."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rkdsearch.training.trainer import Trainer
from tests.training.runs import TINY, described


@pytest.mark.gpu
@pytest.mark.long
@pytest.mark.timeout(600)  # code is generated for every method anew
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["rslad", "ard", "ciard", "absld"])
def test_two_epochs_train_and_no_step_waits_for_the_device(
    teachers: Path, monkeypatch: pytest.MonkeyPatch, method: str, precision: str, compiled: bool
) -> None:
    training = {"device": "auto", "precision": precision, "compile": compiled}
    trainer, plain_step = Trainer(described(teachers, method, training=training, **TINY)), Trainer._step

    def watched(*arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
        # Not in the first epoch: kernels are chosen and compiled there.
        torch.cuda.set_sync_debug_mode("error" if trainer.history else "default")
        try:
            return plain_step(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Trainer, "_step", watched)
    before = [p.detach().clone() for p in trainer.student.parameters()]
    epochs = list(trainer.epochs())
    assert trainer.device.type == "cuda"
    assert len(epochs) == 2
    assert all(math.isfinite(epoch.loss) and epoch.robust_accuracy is not None for epoch in epochs)
    assert any(not torch.equal(p, old) for p, old in zip(trainer.student.parameters(), before, strict=True))

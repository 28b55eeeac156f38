"""On a CUDA device: a run trains, and no batch of an epoch waits for the device."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rkdsearch.data import Batch, Batches
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
    run = described(
        teachers,
        method,
        data={"augment": "crop_flip"},
        averaging={"name": "ema"},
        training=training,
        **TINY,
    )
    trainer, plain = Trainer(run), Batches.epoch
    armed: list[int] = []

    def watched(batches: Batches, epoch: int) -> Iterator[Batch]:
        """The same batches; neither their use nor the next one's making may wait."""
        running = plain(batches, epoch)
        first = next(running)  # what an epoch draws is sent to the device with it, all at once
        if epoch == 0:  # kernels are chosen and compiled there
            yield first
            yield from running
            return
        armed.append(epoch)
        torch.cuda.set_sync_debug_mode("error")
        yield first
        yield from running
        torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Batches, "epoch", watched)
    before = [p.detach().clone() for p in trainer.student.parameters()]
    try:
        epochs = list(trainer.epochs())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.device.type == "cuda"
    assert armed == [1]
    assert len(epochs) == 2
    assert all(math.isfinite(epoch.loss) and epoch.robust_accuracy is not None for epoch in epochs)
    assert any(
        not torch.equal(p, old) for p, old in zip(trainer.student.parameters(), before, strict=True)
    )

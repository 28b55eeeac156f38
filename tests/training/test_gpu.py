"""What can differ on a CUDA device. `pytest -m gpu tests/training/test_gpu.py`, or, with figures,
`python analysis/gpu_check.py`; both need torch, torchvision, accelerate, pydantic and pyautoattack.
"""

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from rkdsearch import methods, models
from rkdsearch.accuracy import allow_tf32
from rkdsearch.attacks import Attack, Linf
from rkdsearch.data import Batch, Batches
from rkdsearch.data.images import Images
from rkdsearch.errors import OutOfMemoryError
from rkdsearch.methods import Student, inner
from rkdsearch.models import ModelConfig
from rkdsearch.task import ImageTask
from rkdsearch.training.trainer import Trainer
from tests.training.runs import TINY, described, train

pytestmark = pytest.mark.gpu
CIFAR10 = ImageTask(classes=10, channels=3, height=32, width=32)


@pytest.fixture(scope="session")
def grey(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Section `data`: ten classes of 8x8 noise, as image files."""
    root = tmp_path_factory.mktemp("grey")
    drawn = np.random.default_rng(0).integers(256, size=(10, 14, 8, 8), dtype=np.uint8)
    for label, pictures in enumerate(drawn):
        (root / "train" / str(label)).mkdir(parents=True)
        for number, pixels in enumerate(pictures):
            Image.fromarray(pixels).save(root / "train" / str(label) / f"{number}.png")
    return {"name": f"folder:{root}", "train_images": 100}


def on_gpu(
    teachers: Path, grey: dict[str, Any], method: str, augment: str = "none", **training: Any
) -> Any:
    """The config of a run of two epochs of four steps."""
    return described(
        teachers,
        method,
        data={**grey, "augment": augment},
        training={"device": "auto", **training},
        averaging={"name": "ema"},
        **TINY,
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", methods.names())
def test_two_epochs_train_and_no_step_waits_for_the_device(
    teachers: Path,
    grey: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    precision: str,
) -> None:
    trainer = Trainer(on_gpu(teachers, grey, method, "crop_flip", precision=precision))
    armed = no_waits_in_the_second_epoch(monkeypatch)
    before = [p.detach().clone() for p in trainer.student.parameters()]
    try:
        epochs = list(trainer.epochs())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.device.type == "cuda"
    assert armed == [1]
    assert len(epochs) == 2
    assert all(math.isfinite(epoch.loss) and epoch.robust_accuracy is not None for epoch in epochs)
    after = list(trainer.student.parameters())
    assert all(p.dtype == torch.float32 and p.is_cuda for p in after)
    assert any(not torch.equal(p, old) for p, old in zip(after, before, strict=True))


def no_waits_in_the_second_epoch(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From its first batch to its last, a wait is an error; the epochs so watched are listed."""
    plain, armed = Batches.epoch, list[int]()

    def watched(batches: Batches, epoch: int) -> Iterator[Batch]:
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
    return armed


@pytest.mark.parametrize("method", methods.names())
def test_the_first_loss_in_bf16_is_that_of_fp32_to_a_twentieth(
    teachers: Path, grey: dict[str, Any], method: str
) -> None:
    exact, half = (
        train(on_gpu(teachers, grey, method, epochs=1, batch_size=100, precision=precision))
        for precision in ("fp32", "bf16")
    )
    wanted = exact.history[0].loss
    assert half.history[0].loss == pytest.approx(wanted, rel=0.05, abs=2e-3)


@pytest.mark.parametrize("method", ["rslad", "bmtard", "saad"])
def test_a_resumed_run_has_the_curve_of_the_one_that_never_stopped(
    teachers: Path, grey: dict[str, Any], tmp_path: Path, method: str
) -> None:
    config = on_gpu(teachers, grey, method, epochs=3, precision="fp64")
    whole = train(config, tmp_path / "whole")
    for epochs in (1, 2, 3):
        resumed = train(config, tmp_path / "resumed", epochs=epochs)
    assert resumed.device.type == "cuda"
    # Kernels add in any order, so not bit for bit.
    assert [epoch.loss for epoch in resumed.history] == pytest.approx(
        [epoch.loss for epoch in whole.history], abs=1e-8
    )


def test_a_gpu_and_a_cpu_train_alike_in_float64(teachers: Path, grey: dict[str, Any]) -> None:
    # Noise comes from another generator there: an attack without a random start.
    there, here = (
        train(
            described(
                teachers,
                "rslad",
                data=grey,
                attack={"start": "none", "objective": "label"},
                training={"device": device, "precision": "fp64"},
                **TINY,
            )
        )
        for device in ("auto", "cpu")
    )
    assert there.device.type == "cuda"
    assert [epoch.loss for epoch in there.history] == pytest.approx(
        [epoch.loss for epoch in here.history], abs=1e-8
    )


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "small_cnn", "mlp"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-2)])
def test_the_inference_copy_climbs_along_autograds_gradient(
    name: str, dtype: str, tolerance: float
) -> None:
    allow_tf32(allowed=False)
    network = models.build(ModelConfig(name=name), CIFAR10).to("cuda", getattr(torch, dtype))
    network.to(memory_format=torch.channels_last)
    x = torch.rand(8, 3, 32, 32, device="cuda", dtype=getattr(torch, dtype))
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.arange(8, device="cuda")
    with torch.no_grad():
        network.train()(x)  # BatchNorm's statistics are not the initial ones
    copy = models.inference_copy(network)()
    network.eval()
    wanted, found = (slope(called, x, y) for called in (network, copy))
    assert float((found - wanted).abs().max() / wanted.abs().max()) < tolerance
    # The attack's own way to the gradient, in closed form where the network has one.
    moved = Attack(Linf(0.1), 1, 0.1, "none").climb(
        inner.classification(y).of(Student(copy)),  # type: ignore[arg-type]  # only called
        x,
        x,
    )
    clear = wanted.abs() > wanted.abs().max() * 1e-2
    expected = (x + 0.1 * wanted.sign()).clamp(0, 1)
    assert float((moved - expected)[clear].abs().max()) < 1e-6


def slope(network: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    images = x.detach().clone().requires_grad_()
    loss = functional.cross_entropy(network(images), y, reduction="sum")
    return torch.autograd.grad(loss, images)[0]


@pytest.mark.parametrize(("precision", "exact"), [("fp32", True), ("tf32", False)])
def test_fp32_is_ieees_unless_the_config_asks_for_tf32(
    teachers: Path, grey: dict[str, Any], precision: str, exact: bool
) -> None:
    if torch.cuda.get_device_capability()[0] < 8:
        pytest.skip("needs a GPU with TF32: compute capability 8 or more")
    Trainer(on_gpu(teachers, grey, "natural", precision=precision))
    # 1 + 2^-12 needs 12 bits, TF32 has 10. Large enough that a tensor-core kernel is chosen.
    fine = torch.full((64, 64, 16, 16), 1 + 2**-12, device="cuda")
    fine = fine.contiguous(memory_format=torch.channels_last)
    kernel = torch.eye(64, device="cuda")[:, :, None, None]
    matrix = torch.full((256, 256), 1 + 2**-12, device="cuda") @ torch.eye(256, device="cuda")
    assert bool((matrix == 1 + 2**-12).all()) == exact
    if exact:
        assert bool((functional.conv2d(fine, kernel) == 1 + 2**-12).all())


def test_a_device_that_is_full_is_told_with_what_to_change(
    teachers: Path, grey: dict[str, Any]
) -> None:
    trainer = Trainer(on_gpu(teachers, grey, "rslad"))
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction(1e-9)
        with pytest.raises(
            OutOfMemoryError,
            match=r"epoch 1: the device is out of memory; lower training\.batch_size \(now 25\),"
            r" raise training\.microbatches \(now 1",
        ):
            hog(trainer)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(train(on_gpu(teachers, grey, "rslad")).history) == 2  # the device can be used again


def hog(trainer: Trainer) -> None:
    """Train on images that do not fit into what the process has reserved."""
    plain = trainer._batches.epoch

    def large(epoch: int) -> Iterator[Batch]:
        for batch in plain(epoch):
            yield Batch(batch.x.repeat(4000, 1, 1, 1), batch.y.repeat(4000), batch.index)

    trainer._teacher_logits = {}
    trainer._batches.epoch = large  # type: ignore[method-assign]
    list(trainer.epochs())


LOST = """
import os, sys, torch
from rkdsearch.execution.failures import as_rkd_error
values, beyond = torch.zeros(3, device="cuda"), torch.tensor([7], device="cuda")
for attempt in range(2):
    try:
        values[beyond].sum().item()
    except Exception as error:
        told = as_rkd_error(error)
        print(type(told).__name__, told.failure, "later trials get a new process" in str(told))
sys.stdout.flush()
os._exit(0)  # what torch would say at its end is of no interest
"""


def test_a_lost_cuda_context_retires_the_process() -> None:
    said = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == ["WorkerError worker True"] * 2


def pictures(count: int, *, mapped: bool = False) -> Images:
    drawn = np.random.default_rng(count).integers(256, size=(count, 8, 8, 3), dtype=np.uint8)
    labels = torch.arange(count) % 10
    return Images(torch.from_numpy(drawn), labels, 255.0, tuple("abcdefghij"), "", "", mapped)


@pytest.mark.parametrize("mapped", [False, True], ids=["on the device", "in a file"])
def test_a_gpu_sees_the_same_bytes_as_a_cpu(mapped: bool) -> None:
    here, there = (
        Batches(
            pictures(30, mapped=mapped),
            batch_size=10,
            seed=0,
            augment="crop_flip",
            extra=pictures(9, mapped=not mapped),
            extra_fraction=0.25,
            device=device,
        )
        for device in ("cpu", "cuda")
    )
    for a, b in zip(here.epoch(0), there.epoch(0), strict=True):
        assert b.x.is_cuda
        assert b.y.is_cuda
        assert torch.equal(a.index, b.index.cpu())
        assert torch.equal((a.x * 255).round(), (b.x.cpu() * 255).round())


def test_bytes_of_a_file_go_through_pinned_memory_and_no_batch_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pinned: list[bool] = []
    plain = torch.Tensor.to

    def sent(tensor: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
        if named.get("non_blocking"):
            pinned.append(tensor.is_pinned())
        return plain(tensor, *arguments, **named)

    monkeypatch.setattr(torch.Tensor, "to", sent)
    stored = pictures(40, mapped=True)
    running = Batches(stored, batch_size=10, seed=0, augment="crop_flip", device="cuda").epoch(0)
    found = [next(running)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        found += running
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert pinned == [True] * 8  # pixels and labels of four batches
    assert sorted(row for batch in found for row in batch.index.tolist()) == list(range(40))


@pytest.mark.long
@pytest.mark.timeout(600)  # code is generated for every method anew
@pytest.mark.parametrize("method", ["rslad", "ardir", "ciard"])
def test_a_compiled_run_loses_what_an_eager_one_loses_and_waits_no_more(
    teachers: Path, grey: dict[str, Any], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    eager = train(on_gpu(teachers, grey, method, precision="fp64"))
    armed = no_waits_in_the_second_epoch(monkeypatch)
    try:
        compiled = train(on_gpu(teachers, grey, method, precision="fp64", compile=True))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert armed == [1]
    assert [epoch.loss for epoch in compiled.history] == pytest.approx(
        [epoch.loss for epoch in eager.history], abs=1e-8
    )

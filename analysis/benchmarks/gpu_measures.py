"""Measurements of `gpu_parts.py`: one side's step, the device's peak, runs, two results."""

import gc
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sides import Ours, Published, Workload
from step import useful_flops
from torch import nn

from rkdsearch import config, models
from rkdsearch.accuracy import allow_tf32
from rkdsearch.config import TrainConfig
from rkdsearch.models import ModelConfig
from rkdsearch.task import ImageTask
from rkdsearch.training.precision import forward_context

# Calls by which the host waits for the device, as the profiler names them. An asynchronous copy
# from memory that is not pinned waits as well; the tests marked `gpu` look for those.
WAITS = (
    "cudaDeviceSynchronize",
    "cudaStreamSynchronize",
    "cudaEventSynchronize",
    "cudaMemcpy",
    "aten::_local_scalar_dense",
    "aten::nonzero",
)


Row = dict[str, object]
SMALL: dict[str, Any] = {"name": "small_cnn", "width": 4}


@dataclass(frozen=True)
class Place:
    """Place and time of a part's measurements. `folder` is its own, for its files.

    `data` names real images, as in the section `data`; None for noise.
    """

    device: str
    tiny: bool
    seconds: float
    folder: Path
    data: str | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.began + self.seconds - time.monotonic()

    def students(self) -> list[dict[str, Any]]:
        """Sections `student`."""
        return [SMALL] if self.tiny else [{"name": "resnet18"}, {"name": "mobilenet_v2"}]

    def teacher(self) -> dict[str, Any]:
        """Section `network` of the teacher."""
        return SMALL if self.tiny else {"name": "wide_resnet", "depth": 16, "width": 4}


def write(path: Path, rows: object) -> None:
    """Replace the file's content at once."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    beside.replace(path)


def synchronise(device: str) -> None:
    """Wait for the device; on a CPU there is nothing to wait for."""
    if device != "cpu":
        torch.cuda.synchronize()


def release(device: str) -> None:
    """Give back the memory of what is no longer used."""
    gc.collect()
    torch.compiler.reset()
    if device != "cpu":
        torch.cuda.empty_cache()


def measured(
    side: Callable[[Workload], Ours | Published], work: Workload, repeats: int, peak: float
) -> dict[str, object]:
    """Speed, share of `peak` (FLOP/s), memory and host waits of a side's step, after a warm-up."""
    allow_tf32(allowed=work.precision == "tf32")
    if work.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    running = side(work)
    running.warm_up()
    running.step()
    seconds = []
    for _ in range(repeats):
        synchronise(work.device)
        started = time.perf_counter()
        running.step()
        synchronise(work.device)
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds)
    found: dict[str, object] = {
        "images_per_second": work.batch / median,
        "slowest_seconds": max(seconds),
        "of_peak": useful_flops(work) / median / peak,
        "host_waits": host_waits(running.step),
    }
    if work.device != "cpu":
        found["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return found


def host_waits(step: Callable[[], object]) -> int | None:
    """Times that the host waits for the device in one step; None where no profiler runs."""
    from torch.profiler import ProfilerActivity, profile, record_function

    kinds = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(ProfilerActivity.CUDA)
    try:
        with profile(activities=kinds) as profiled:
            with record_function("one step"):
                step()
            synchronise("cuda" if torch.cuda.is_available() else "cpu")
    except RuntimeError:
        return None
    events = [(event.name, event.time_range) for event in profiled.events() or []]
    whole = next(time_range for name, time_range in events if name == "one step")
    inside = [name for name, found in events if whole.start <= found.start <= whole.end]
    return sum(name in WAITS for name in inside)


def convolution_peak(work: Workload, *, tiny: bool) -> float:
    """FLOP a second of the best 3x3 convolution in the workload's precision, channels last."""
    allow_tf32(allowed=work.precision == "tf32")
    batch, shapes = (4, [(8, 4)]) if tiny else (512, [(128, 16), (256, 8), (256, 16), (512, 8)])
    best, device = 0.0, torch.device(work.device)
    for channels, size in shapes:
        layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False, device=device)
        layer.to(memory_format=torch.channels_last)
        x = torch.randn(batch, channels, size, size, device=device)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), forward_context(work.precision, device)():
            for _ in range(4):
                synchronise(work.device)
                started = time.perf_counter()
                for _ in range(4):
                    layer(x)
                synchronise(work.device)
                taken = (time.perf_counter() - started) / 4
                best = max(best, 2 * 9 * channels**2 * batch * size**2 / taken)
    return best


def folded(work: Workload) -> nn.Module:
    """The workload's student as the test evaluation uses it: eval mode, folded, channels last."""
    student, _ = work.networks()
    return models.fold(student.eval().requires_grad_(False)).to(memory_format=torch.channels_last)


# ------------------------------------------------------------------------------------------ runs


def image_folder(root: Path, *, per_class: int) -> str:
    """A data set of 32x32 noise in ten classes, in files under `root`; returns its name."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for label in range(10):
        (root / "train" / str(label)).mkdir(parents=True)
        for number in range(per_class):
            pixels = generator.integers(256, size=(32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "train" / str(label) / f"{number}.png")
    return f"folder:{root}"


def described(
    folder: Path,
    method: str,
    images: str,
    *,
    student: dict[str, Any],
    teacher: dict[str, Any],
    training: dict[str, Any],
) -> TrainConfig:
    """A run of two epochs over 1,280 images at most. Its teacher's file lands in `folder`."""
    path = folder / "teacher.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        task = ImageTask(classes=10, channels=3, height=32, width=32)
        beside = folder / f"teacher-{time.monotonic_ns()}"
        save_file(models.build(ModelConfig.model_validate(teacher), task).state_dict(), beside)
        beside.replace(path)
    return config.build(
        {
            "method.name": method,
            "data": {
                "name": images,
                "augment": "crop_flip",
                "validation_fraction": 0.2,
                "train_images": None if training["batch_size"] <= 8 else 1280,
            },
            "student": student,
            "teachers.robust": {"network": teacher, "path": str(path)},
            "attack": {"eps": 8 / 255, "steps": 10 if training["batch_size"] > 8 else 2},
            "validation": {"attack": {"steps": 2}, "images": 10, "every": 2},
            "training": {"epochs": 2, **training},
        }
    )


def difference(one: Path, other: Path) -> dict[str, object]:
    """Largest differences between the losses and the weights of two `member` results."""
    losses = [json.loads(path.read_text())[0]["losses"] for path in (one, other)]
    weights = [load_file(f"{path}.safetensors") for path in (one, other)]
    return {
        "loss_difference": max(abs(a - b) for a, b in zip(*losses, strict=True)),
        "weight_difference": max(
            float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0]
        ),
    }

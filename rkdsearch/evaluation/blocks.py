"""A block of images under one job: attacked part by part, and recorded after every part.

A worker that is killed goes on with the part that it was in: the images that earlier parts broke,
and the time they took, stand in a small file. Batches are the same then, so the result is, bit for
bit, that of a worker that nobody killed.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rkdsearch import flags, models
from rkdsearch.accuracy import BATCH, compute_in_parts, correct, ieee_fp32
from rkdsearch.atomic_file import replace_file
from rkdsearch.attacks import Attack, MarginAttack, build_ball
from rkdsearch.attacks import autoattack as aa
from rkdsearch.evaluation.attacks import PGD_STEPS, AttackPart, PlannedAttack
from rkdsearch.evaluation.images import Pixels
from rkdsearch.evaluation.targets import EvaluationTarget
from rkdsearch.flags import ImageChecks
from rkdsearch.plugins import allow_import
from rkdsearch.teacher import load

BLOCK_IMAGES = BATCH
_CHECK_STEPS = 20


@dataclass(frozen=True)
class CheckJob:
    """The checks of one attack on one network: all rows that it speaks for share them."""

    target: EvaluationTarget
    attack: Attack | MarginAttack


@dataclass(frozen=True)
class EvaluationJob:
    """One network under one attack with one seed. `sources`: other networks, for `transfer`."""

    target: EvaluationTarget
    attack: PlannedAttack
    seed: int
    sources: tuple[EvaluationTarget, ...] = ()

    @property
    def name(self) -> str:
        """`t00003, autoattack, linf 0.0314, seed 0`, for people."""
        return f"{self.target.trial_id}, {self.attack.title}, seed {self.seed}"

    @property
    def check(self) -> CheckJob | None:
        """The checks behind the flags of this job's row; None for clean images.

        By the attack's own PGD; by the margin attack for all others: what AutoAttack's losses
        miss, the margin misses.
        """
        attack = self.attack
        if attack.norm is None:
            return None
        ball = build_ball(attack.norm, attack.eps)
        if attack.name in PGD_STEPS:
            length = attack.relative_step_size * attack.eps
            return CheckJob(self.target, Attack(ball, _CHECK_STEPS, length))
        return CheckJob(self.target, MarginAttack(ball, _CHECK_STEPS))


@dataclass(frozen=True)
class WorkerJob:
    """A job as a worker is given it."""

    job: EvaluationJob | CheckJob
    packages: tuple[str, ...]  # packages of the user that may be imported by name
    partial: Path | None = None  # folder of the records of unfinished blocks
    checked: int = flags.IMAGES  # images of each block that the checks behind flags look at


@dataclass(frozen=True)
class BlockResult:
    """One block of images under one job."""

    right: np.ndarray[Any, np.dtype[np.bool_]]  # (N,) classified correctly
    survivors: Mapping[str, int]  # images still right after each group of parts
    warnings: Sequence[str]  # of AutoAttack's package
    seconds: float
    device: str
    threads: int
    torch: str  # version


@dataclass
class _Record:
    """Record of a block so far."""

    right: list[bool] = field(default_factory=list)
    done: list[str] = field(default_factory=list)  # parts, in their order
    survivors: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @classmethod
    def read(cls, file: Path | None, maker: str, images: int) -> "_Record":
        """The record in `file`, if the same `maker` made it; an empty one otherwise."""
        try:
            found = {} if file is None else json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        if found.pop("maker", None) != maker or len(found.get("right", ())) != images:
            return cls()
        return cls(**{**found, "right": [digit == "1" for digit in found["right"]]})

    def write(self, file: Path | None, maker: str) -> None:
        if file is not None:
            right = "".join("1" if r else "0" for r in self.right)
            replace_file(file, json.dumps({**vars(self), "right": right, "maker": maker}))


@ieee_fp32()
def run_block(work: WorkerJob, images: Pixels, block: int) -> BlockResult:
    """Measure one block of images; an unfinished record of it is continued.

    Raises OutOfMemoryError where one image is too many for the device, TeacherError where the
    weights do not fit, ConfigError where the attack has no such ball.
    """
    # Accelerate, which this imports, is slow to load: the driver does without it.
    from rkdsearch.training.rows import device_name

    job = work.job
    assert isinstance(job, EvaluationJob)
    network, x, y = _begun(work, images, block)
    device = x.device
    sources = {source.short_name: partial(_network, source, device) for source in job.sources}
    # A record by other code or another device might end in other bits.
    maker = f"{version('rkdsearch')} {torch.__version__} {device_name(device)} {device.type}"
    file = None if work.partial is None else work.partial / f"{block}.json"
    record = _Record.read(file, maker, len(y))
    _run_parts(job, network, sources, x, y, record, lambda: record.write(file, maker))
    return BlockResult(
        right=np.array(record.right),
        survivors=record.survivors,
        warnings=record.warnings,
        seconds=record.seconds,
        device=device_name(device),
        threads=torch.get_num_threads(),
        torch=str(torch.__version__),
    )


@ieee_fp32()
def run_checks(work: WorkerJob, images: Pixels, block: int) -> ImageChecks:
    """The checks on some images of one block. Raises as `run_block` does."""
    assert isinstance(work.job, CheckJob)
    network, x, y = _begun(work, images, block)
    some = flags.spread(len(x), work.checked)
    return flags.check(network, x[some], y[some], work.job.attack)


def _begun(work: WorkerJob, images: Pixels, block: int) -> tuple[nn.Module, Tensor, Tensor]:
    """The network, and the images and labels of the block, on the run's device."""
    from rkdsearch.training.teacher import device_of

    allow_import(*work.packages)
    torch.set_num_threads(1)  # the sums of a convolution, and with them last bits, depend on it
    config = work.job.target.config
    device = device_of(config)
    rows = slice(block * BLOCK_IMAGES, (block + 1) * BLOCK_IMAGES)
    x, y = images.floats(rows, device, channels_last=config.training.channels_last)
    return _network(work.job.target, device), x, y


def _run_parts(
    job: EvaluationJob,
    network: nn.Module,
    sources: Mapping[str, Callable[[], nn.Module]],
    x: Tensor,
    y: Tensor,
    record: _Record,
    save: Callable[[], None],
) -> None:
    """Complete the record, and `save` it after every part."""
    started, place = time.perf_counter(), job.name
    at_once = len(y)

    def passed(part: AttackPart | None, xs: Tensor, ys: Tensor) -> Tensor:
        """True where the prediction is right on x' of the part, or on x."""
        nonlocal at_once

        def compute(rows: slice) -> tuple[Tensor, ...]:
            x_adv = xs[rows] if part is None else part.attacked(xs[rows], ys[rows])
            return (correct(network, x_adv, ys[rows]),)

        (found,), at_once = compute_in_parts(compute, len(ys), at_once, place=place)
        return found

    def noted(name: str, right: Tensor) -> None:
        nonlocal started
        now = time.perf_counter()
        record.right = right.tolist()
        record.survivors[name] = int(right.sum())
        record.seconds, started = record.seconds + now - started, now

    if not record.right:
        noted("clean", passed(None, x, y))
        if job.attack.name == "autoattack":
            with aa.collected_warnings() as found:
                aa.checks(network, x, y)
            record.warnings = list(found)
    classes = job.target.task.classes
    for part in job.attack.parts(network, classes, job.seed, sources):
        if part.name in record.done:
            continue
        right = torch.tensor(record.right, device=x.device)
        left = right.nonzero().squeeze(1)
        if len(left):
            with aa.collected_warnings() as found:
                right[left] = passed(part, x[left], y[left])
            record.warnings = sorted({*record.warnings, *found})
        record.done.append(part.name)
        noted(part.counted_as, right)
        save()


@lru_cache(maxsize=4)
def _network(target: EvaluationTarget, device: torch.device) -> nn.Module:
    """The inference copy of the target's network; those of the last jobs stay in memory."""
    config = target.config
    if target.role is None:
        network = load(target.weights, config.student, target.task, sha256=target.sha256)
    else:
        teacher = config.teachers.of(target.role)
        network = load(
            target.weights,
            teacher.network,
            target.task,
            sha256=target.sha256,
            key=teacher.key,
            ignore=teacher.ignore,
        )
    return models.fold(network.to(device))

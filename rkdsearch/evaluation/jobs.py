"""Evaluation jobs: a network under an attack with a seed, measured in blocks of test images."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, assert_never

import numpy as np
import torch

from rkdsearch import data, models
from rkdsearch.accuracy import BATCH, evaluate_accuracy, evaluate_autoattack
from rkdsearch.data.splits import stratified_subset
from rkdsearch.errors import OutOfMemoryError
from rkdsearch.evaluation.targets import EvaluationTarget
from rkdsearch.plugins import allow_import
from rkdsearch.results.columns import cells_of
from rkdsearch.results.intervals import accuracy
from rkdsearch.results.rows import EvaluationRow, EvaluationRun
from rkdsearch.results.states import EvaluationAttack
from rkdsearch.teacher import load

BLOCK_IMAGES = BATCH  # `evaluate_accuracy` seeds random starts by batch: a block is one batch of it
PGD_STEPS = 20


@dataclass(frozen=True)
class EvaluationJob:
    """One network under one attack with one seed."""

    target: EvaluationTarget
    attack: EvaluationAttack
    seed: int


@dataclass(frozen=True)
class WorkerJob:
    """An evaluation job as a worker is given it."""

    job: EvaluationJob
    gpu: float  # share of a GPU that the worker holds
    packages: tuple[str, ...]  # packages of the user that may be imported by name


@dataclass(frozen=True)
class BlockResult:
    """One block of images under one job."""

    right: np.ndarray[Any, np.dtype[np.bool_]]  # (N,) classified correctly
    flags: Sequence[str]  # signs of a broken evaluation
    seconds: float
    device: str
    torch: str  # version


def evaluation_jobs(
    targets: Sequence[EvaluationTarget], attacks: Sequence[EvaluationAttack], seeds: int
) -> list[EvaluationJob]:
    """One job per network, attack and seed.

    Clean images need one seed. Teachers skip AutoAttack: it serves to compare students.
    """
    return [
        EvaluationJob(target, attack, seed)
        for target in targets
        for attack in attacks
        if not (target.role is not None and attack == "autoattack")
        for seed in range(1 if attack == "clean" else seeds)
    ]


def subset(
    images: data.Images, count: int | None, seed: int
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], str]:
    """Indices of `count` test images, stratified by class, and their fingerprint.

    They are the same for every network. None takes all images.
    """
    labels = images.labels.numpy()
    rows = stratified_subset(labels, count, seed=seed, field="--images")
    digest = hashlib.sha256(rows.astype("<i8").tobytes())
    digest.update(labels[rows].astype("<i8").tobytes())
    return rows, digest.hexdigest()


def run_block(work: WorkerJob, images: tuple[Any, Any], block: int) -> BlockResult:
    """Measure one block of `images`, which are arrays x (N, C, H, W) and y (N,).

    Raises OutOfMemoryError where the device is full.
    """
    try:
        return _run_block(work, images, block)
    except torch.OutOfMemoryError:
        raise OutOfMemoryError(
            f"{work.job.target.trial_id}, {work.job.attack}: the device is out of memory with"
            f" {BLOCK_IMAGES} images at a time; "
            + (
                "does another program use it?"
                if work.gpu == 1
                else f"raise --gpu, each worker's share of a GPU (now {work.gpu:g}, at most 1)"
            )
        ) from None


def _run_block(work: WorkerJob, images: tuple[Any, Any], block: int) -> BlockResult:
    # Accelerate, which these import, is slow to load: the driver does without it.
    from rkdsearch.training.rows import device_name
    from rkdsearch.training.teacher import device_of

    started = time.perf_counter()
    allow_import(*work.packages)
    torch.set_num_threads(1)
    job, config = work.job, work.job.target.config
    device = device_of(config)
    rows = slice(block * BLOCK_IMAGES, (block + 1) * BLOCK_IMAGES)
    x, y = (torch.tensor(a[rows], device=device) for a in images)
    x = data.to_layout(x, channels_last=config.training.channels_last)
    network = _network(job.target, device)
    validation_attack = config.validation.attack
    flags: list[str] = []
    pgd = validation_attack.papers_pgd(PGD_STEPS)
    match job.attack:
        case "clean":
            right = evaluate_accuracy(network, x, y, pgd, restarts=0)[0].clean
        case "pgd20":
            restarts, seed = validation_attack.restarts, job.seed + block
            right = evaluate_accuracy(network, x, y, pgd, restarts=restarts, seed=seed)[0].robust
        case "autoattack":
            results, flags = evaluate_autoattack(network, x, y, attack=pgd, seed=job.seed)
            right = results.robust
        case _:
            assert_never(job.attack)
    return BlockResult(
        right=right.cpu().numpy(),
        flags=flags,
        seconds=time.perf_counter() - started,
        device=device_name(device),
        torch=str(torch.__version__),
    )


def _network(target: EvaluationTarget, device: torch.device) -> torch.nn.Module:
    """The inference copy of the target's network."""
    config = target.config
    network_config = (
        config.student if target.role is None else config.teachers.of(target.role).network
    )
    task = data.load_training(config.data).train.task
    network = load(target.weights, network_config, task, sha256=target.sha256)
    return models.fold(network.to(device))


def row_of(
    job: EvaluationJob, blocks: Sequence[BlockResult], y: Any, of_images: int, digest: str
) -> dict[str, object]:
    """The job's row in `evaluations/`, from its blocks in their order and the labels y (N,)."""
    right = np.concatenate([block.right for block in blocks])
    validation_attack, attacked = job.target.config.validation.attack, job.attack != "clean"
    estimate = accuracy(int(right.sum()), len(right))
    row = EvaluationRow(
        trial_id=job.target.trial_id,
        label=job.target.label,
        checkpoint="best",
        split="test",
        attack=job.attack,
        norm=validation_attack.norm if attacked else None,
        eps=validation_attack.eps if attacked else 0.0,
        test_attack_steps=PGD_STEPS if job.attack == "pgd20" else None,
        seed=job.seed,
        images=len(right),
        of_images=of_images,
        correct=int(right.sum()),
        accuracy=float(right.mean()),
        low=estimate.low,
        high=estimate.high,
        worst_class_accuracy=float(min(right[y == k].mean() for k in np.unique(y))),
        seconds=sum(block.seconds for block in blocks),
        flags=sorted({flag for block in blocks for flag in block.flags}),
        per_image="".join("1" if r else "0" for r in right),
        subset_sha256=digest,
        weights_sha256=job.target.sha256,
        evaluated=datetime.now(UTC),
        run=EvaluationRun(
            torch=blocks[0].torch,
            device=blocks[0].device,
            version=version("rkdsearch"),
        ),
    )
    return cells_of(row)

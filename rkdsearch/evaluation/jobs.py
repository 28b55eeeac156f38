"""The exam on test images: the only room, with the command above it, that opens the test set. Its work is shared out over Ray.

A shard is one checkpoint, one attack, one seed and a block of images. Shards are small and are
taken up as workers come free, because AutoAttack's time depends on how many images are still
standing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from rkdsearch import config as run
from rkdsearch import data
from rkdsearch.data.splits import stratified_subset
from rkdsearch.errors import OutOfMemoryError
from rkdsearch.evaluation.targets import EvaluationTarget
from rkdsearch.plugins import allow_import
from rkdsearch.results.intervals import accuracy

SHARD = 250  # images; the batch of `evaluation`, whose random starts are seeded by a batch's place
PGD_STEPS = 20


@dataclass(frozen=True)
class EvaluationJob:
    """One candidate under one attack with one seed."""

    target: EvaluationTarget
    attack: str
    seed: int


def evaluation_jobs(
    found: Sequence[EvaluationTarget], attacks: Sequence[str], seeds: int
) -> list[EvaluationJob]:
    """Everybody sits every attack; a teacher is spared AutoAttack, which is for what is compared."""
    return [
        EvaluationJob(target, attack, seed)
        for target in found
        for attack in attacks
        if not (target.role is not None and attack == "autoattack")
        for seed in range(1 if attack == "clean" else seeds)
    ]


def subset(
    images: data.Images, count: int | None, seed: int
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], str]:
    """The test images to be used, stratified, the same for every candidate; and their fingerprint."""
    labels = images.labels.numpy()
    rows = stratified_subset(labels, count, seed=seed, field="--images")
    digest = hashlib.sha256(rows.astype("<i8").tobytes())
    digest.update(labels[rows].astype("<i8").tobytes())
    return rows, digest.hexdigest()


def run_job(job: Mapping[str, Any], images: tuple[Any, Any], block: int) -> dict[str, Any]:
    """One shard, on a worker: 0/1 flags of its images, the complaints of the attack, and what it took. Raises OutOfMemoryError."""
    import torch

    try:
        return _run_job(job, images, block)
    except torch.OutOfMemoryError:
        gpu = job["gpu"]
        raise OutOfMemoryError(
            f"{job['trial_id']}, {job['attack']}: the device is out of memory with {SHARD}"
            " images at a time; "
            + (
                "does another program use it?"
                if gpu == 1
                else f"raise --gpu, each worker's share of a GPU (now {gpu:g}, at most 1)"
            )
        ) from None


def _run_job(job: Mapping[str, Any], images: tuple[Any, Any], block: int) -> dict[str, Any]:
    import time

    import torch

    from rkdsearch import models
    from rkdsearch.accuracy import evaluate_accuracy, evaluate_autoattack
    from rkdsearch.teacher import load
    from rkdsearch.training.rows import device_name
    from rkdsearch.training.teacher import device_of

    started = time.perf_counter()
    allow_import(*job["allow_imports"])
    torch.set_num_threads(1)
    config = run.build(job["config"])
    device = device_of(config)
    rows = slice(block * SHARD, (block + 1) * SHARD)
    x, y = (torch.tensor(a[rows], device=device) for a in images)
    x = data.to_layout(x, channels_last=config.training.channels_last)
    network_config = (
        config.student if job["role"] is None else config.teachers.of(job["role"]).network
    )
    splits = data.load_training(config.data)
    network = models.fold(
        load(
            Path(job["weights"]),
            network_config,
            splits.train.task,
            sha256=job["sha256"],
        ).to(device)
    )
    exam = config.validation.attack
    flags: list[str] = []
    if job["attack"] == "autoattack":
        verdict, flags = evaluate_autoattack(network, x, y, attack=exam.build(), seed=job["seed"])
    else:
        pgd = exam.model_copy(update={"steps": PGD_STEPS})
        verdict, _ = evaluate_accuracy(
            network, x, y, pgd.build(), restarts=exam.restarts, seed=job["seed"] + block
        )
    right = verdict.clean if job["attack"] == "clean" else verdict.robust
    return {
        "right": right.int().tolist(),
        "flags": flags,
        "seconds": time.perf_counter() - started,
        "device": device_name(device),
        "torch": torch.__version__,
    }


def row_of(
    job: EvaluationJob, answers: Sequence[Mapping[str, Any]], y: Any, of_images: int, digest: str
) -> dict[str, object]:
    """The job's row in `evaluations/`, from its blocks' results."""
    right = np.concatenate([np.array(a["right"], dtype=bool) for a in answers])
    exam, attacked = job.target.config.validation.attack, job.attack != "clean"
    estimate = accuracy(int(right.sum()), len(right))
    return {
        "trial_id": job.target.trial_id,
        "label": job.target.label,
        "checkpoint": "best",
        "split": "test",
        "attack": job.attack,
        "norm": exam.norm if attacked else None,
        "eps": exam.eps if attacked else 0.0,
        "test_attack_steps": PGD_STEPS if job.attack == "pgd20" else None,
        "seed": job.seed,
        "images": len(right),
        "of_images": of_images,
        "correct": int(right.sum()),
        "accuracy": float(right.mean()),
        "low": estimate.low,
        "high": estimate.high,
        "worst_class_accuracy": float(min(right[y == k].mean() for k in np.unique(y))),
        "seconds": sum(a["seconds"] for a in answers),
        "flags": sorted({f for a in answers for f in a["flags"]}),
        "per_image": "".join("1" if r else "0" for r in right),
        "subset_sha256": digest,
        "weights_sha256": job.target.sha256,
        "evaluated": datetime.now(UTC),
        "run.torch": answers[0]["torch"],
        "run.device": answers[0]["device"],
        "run.version": version("rkdsearch"),
    }

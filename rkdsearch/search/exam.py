"""The exam on test images: the only room, with the command above it, that opens the test set. Its work is shared out over Ray.

A shard is one checkpoint, one attack, one seed and a block of images. Shards are small and are taken up as workers come free, because
AutoAttack's time depends on how many images are still standing.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from rkdsearch import config as run
from rkdsearch import data
from rkdsearch.config import TrainConfig
from rkdsearch.data.splits import some
from rkdsearch.errors import StudyError
from rkdsearch.plugins import allow_import, allowed_imports
from rkdsearch.results import summary
from rkdsearch.results.intervals import accuracy
from rkdsearch.results.store import Store
from rkdsearch.search import ledger

SHARD = 250  # images; the batch of `evaluation`, whose random starts are seeded by a batch's place
PGD_STEPS = 20


@dataclass(frozen=True)
class Candidate:
    """Something to be examined: a trial's best checkpoint, or a teacher."""

    trial_id: str
    label: str
    config: TrainConfig
    weights: Path
    role: str | None = None  # of a teacher


@dataclass(frozen=True)
class Sitting:
    """One candidate under one attack with one seed."""

    candidate: Candidate
    attack: str
    seed: int


def candidates(folder: Path, *, front: bool, trial: str | None) -> list[Candidate]:
    """Who is examined: one trial; or the validation front, the published settings and the teachers. Raises StudyError where there is none."""
    study = summary.read(folder)
    trials = study.trials
    if trials.empty:
        raise StudyError(f"{folder}: holds no trials; `rkdsearch tune` makes them")
    rows = summary.records(trials)
    best = set(study.front["trial_id"])
    if trial is not None:
        chosen = [r for r in rows if r["trial_id"] == trial]
        if not chosen:
            raise StudyError(f"{folder}: there is no trial '{trial}'; `rkdsearch status {folder}` lists what there is")
    else:
        chosen = [r for r in rows if r["status"] == "finished" and (not front or r["trial_id"] in best or r["origin"] == "first")]
    if not chosen:
        raise StudyError(f"{folder}: no trial has finished yet; continue the search with `rkdsearch tune ... --study {folder} --resume`")
    found = [_candidate(folder, row) for row in chosen]
    return found + _teachers(folder, found[0].config)


def _candidate(folder: Path, row: Mapping[str, Any]) -> Candidate:
    weights = ledger.folder_of(folder, row["trial_id"]) / "best.safetensors"
    if not weights.exists():
        raise StudyError(
            f"{weights}: is missing, so trial {row['trial_id']} ({row['status']}) cannot be examined; "
            "was it stopped before its full-length run, or the folder copied without checkpoints?"
        )
    from rkdsearch.training import checkpoint

    config = run.build(checkpoint.read(weights)[1]["config"], row["trial_id"])
    return Candidate(row["trial_id"], row["label"] or config_label(config), config, weights)


def config_label(config: TrainConfig) -> str:
    """A trial that nobody named."""
    from rkdsearch.methods import name_of

    return f"{name_of(config.method)}, eps {config.attack.eps:.3f} x {config.attack.steps}, lr {config.optimizer.lr:.3g}"


def _teachers(folder: Path, config: TrainConfig) -> list[Candidate]:
    file = folder / "study.json"
    described = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    found = []
    for role, facts in described.get("teachers", {}).items():
        teacher = getattr(config.teachers, role)
        if teacher is not None and facts.get("path"):
            found.append(
                Candidate("teacher" if role == "robust" else f"teacher-{role}", f"{role} teacher", config, Path(facts["path"]), role)
            )
    return found


def sittings(found: Sequence[Candidate], attacks: Sequence[str], seeds: int) -> list[Sitting]:
    """Everybody sits every attack; a teacher is spared AutoAttack, which is for what is compared."""
    return [
        Sitting(candidate, attack, seed)
        for candidate in found
        for attack in attacks
        if not (candidate.role is not None and attack == "autoattack")
        for seed in range(1 if attack == "clean" else seeds)
    ]


def subset(images: data.Images, count: int | None, seed: int) -> tuple[np.ndarray[Any, np.dtype[np.int64]], str]:
    """The test images to be used, stratified, the same for every candidate; and their fingerprint."""
    labels = images.labels.numpy()
    rows = some(labels, count, seed=seed, field="--images")
    digest = hashlib.sha256(rows.astype("<i8").tobytes())
    digest.update(labels[rows].astype("<i8").tobytes())
    return rows, digest.hexdigest()


def examine(
    folder: Path, todo: Sequence[Sitting], *, images: int | None, address: str | None = None
) -> Iterator[tuple[Sitting, dict[str, object]]]:
    """Every sitting's row, as they end, written to `evaluations/`; what stands there already for the same images is skipped."""
    import ray
    import torch

    from rkdsearch.search.tuner import connected

    store = Store(folder)
    config = todo[0].candidate.config
    test = data.load_test(config.data)
    rows, digest = subset(test, images, config.data.split_seed)
    known = store.evaluations()
    known = known[known["subset_sha256"] == digest]
    there = {(r["trial_id"], r["attack"], r["seed"]) for r in summary.records(known)}
    left = [s for s in todo if (s.candidate.trial_id, s.attack, s.seed) not in there]
    if not left:
        return
    x, y = test.take(torch.from_numpy(rows)).floats(slice(None))
    with connected(address):
        shared = ray.put((x.numpy(), y.numpy()))
        task = ray.remote(num_cpus=1, max_retries=2)(sit)
        waiting: dict[Any, tuple[Sitting, int]] = {}
        # The long ones first, so that no worker is left with one at the end.
        for sitting in sorted(left, key=lambda s: s.attack != "autoattack"):
            for block in range(math.ceil(len(rows) / SHARD)):
                waiting[task.remote(_described(sitting), shared, block)] = (sitting, block)
        answers: dict[Sitting, dict[int, dict[str, Any]]] = {s: {} for s in left}
        while waiting:
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            sitting, block = waiting.pop(ready)
            answers[sitting][block] = ray.get(ready)
            if len(answers[sitting]) == math.ceil(len(rows) / SHARD):
                row = _row(sitting, [answers[sitting][b] for b in sorted(answers[sitting])], y.numpy(), len(test), digest)
                store.write_evaluation(row)
                yield sitting, row


def _described(sitting: Sitting) -> dict[str, Any]:
    c = sitting.candidate
    return {
        "config": c.config.to_dict(),
        "weights": str(c.weights.resolve()),
        "role": c.role,
        "attack": sitting.attack,
        "seed": sitting.seed,
        "allow_imports": allowed_imports(),
    }


def sit(sitting: Mapping[str, Any], images: tuple[Any, Any], block: int) -> dict[str, Any]:
    """One shard, on a worker: 0/1 flags of its images, the complaints of the attack, and what it took."""
    import time

    import torch

    from rkdsearch import models
    from rkdsearch.evaluation import judge, judge_by_autoattack
    from rkdsearch.teacher import load
    from rkdsearch.training.rows import device_name

    started = time.perf_counter()
    allow_import(*sitting["allow_imports"])
    torch.set_num_threads(1)
    config = run.build(sitting["config"])
    device = torch.device("cuda" if torch.cuda.is_available() and config.training.device != "cpu" else "cpu")
    rows = slice(block * SHARD, (block + 1) * SHARD)
    x, y = (torch.tensor(a[rows], device=device) for a in images)
    x = x.contiguous(memory_format=torch.channels_last)
    network_config = config.student if sitting["role"] is None else getattr(config.teachers, sitting["role"]).network
    splits = data.load_training(config.data)
    classes, shape = len(splits.train.classes), splits.train
    network = models.fold(
        load(Path(sitting["weights"]), network_config, classes=classes, channels=shape.channels, size=shape.size).to(device)
    )
    exam = config.validation.attack
    flags: list[str] = []
    if sitting["attack"] == "autoattack":
        verdict, flags = judge_by_autoattack(network, x, y, attack=exam.build(), seed=sitting["seed"])
    else:
        pgd = exam.model_copy(update={"steps": PGD_STEPS})
        verdict, _ = judge(network, x, y, pgd.build(), restarts=exam.restarts, seed=sitting["seed"] + block)
    right = verdict.clean if sitting["attack"] == "clean" else verdict.robust
    return {
        "right": right.int().tolist(),
        "flags": flags,
        "seconds": time.perf_counter() - started,
        "device": device_name(device),
        "torch": torch.__version__,
    }


def _row(sitting: Sitting, answers: Sequence[Mapping[str, Any]], y: Any, of_images: int, digest: str) -> dict[str, object]:
    right = np.concatenate([np.array(a["right"], dtype=bool) for a in answers])
    exam, attacked = sitting.candidate.config.validation.attack, sitting.attack != "clean"
    estimate = accuracy(int(right.sum()), len(right))
    steps = {"pgd20": PGD_STEPS}.get(sitting.attack)
    return {
        "trial_id": sitting.candidate.trial_id,
        "label": sitting.candidate.label,
        "checkpoint": "best",
        "split": "test",
        "attack": sitting.attack,
        "norm": exam.norm if attacked else None,
        "eps": exam.eps if attacked else 0.0,
        "steps": steps,
        "seed": sitting.seed,
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
        "evaluated": datetime.now(UTC),
        "run.torch": answers[0]["torch"],
        "run.device": answers[0]["device"],
        "run.version": version("rkdsearch"),
    }

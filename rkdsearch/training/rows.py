"""A run as Parquet rows: what was measured, and where and by what it was made. The same for a trial of a search and a run alone."""

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from rkdsearch.accuracy import TeacherReliability
from rkdsearch.config import TrainConfig
from rkdsearch.training.epoch import EpochResult
from rkdsearch.training.trainer import Trainer


def measured(
    config: TrainConfig,
    epochs: Sequence[EpochResult],
    facts: Mapping[str, object],
    *,
    earlier: Sequence[EpochResult] = (),
) -> dict[str, object]:
    """`metric.*`, `fidelity.*` and `run.*` of a run after these epochs; `facts` are what `facts_of` said.

    `earlier` epochs were trained for the same trial before this run began: they cost time.
    """
    seconds = sum(e.seconds for e in (*earlier, *epochs))
    # A run may go on with another number of processes: `facts` know the last one.
    now = facts.get("run.processes") or 1
    assert isinstance(now, int)
    process_seconds = sum(e.seconds * (e.processes or now) for e in (*earlier, *epochs))
    row: dict[str, object] = {
        "reconstructed": config.method.reconstructed is not None,
        "fidelity.epochs": epochs[-1].epoch if epochs else 0,
        "fidelity.of_epochs": config.training.epochs,
        "fidelity.training_attack_steps": (
            epochs[-1].training_attack_steps if epochs else config.attack.steps
        ),
        "fidelity.validation_attack_steps": config.validation.attack.steps,
        "run.seed": config.training.seed,
        "run.wall_seconds": seconds,
        "run.device_seconds": process_seconds / now * devices(facts),
        "run.updated": datetime.now(UTC),
        **facts,
    }
    if epochs:
        first = (*earlier, *epochs)[0]
        row["run.started"] = datetime.fromtimestamp(first.finished - first.seconds, UTC)
    judged = next((e for e in reversed(epochs) if e.clean_accuracy is not None), None)
    if judged is not None and judged.best is not None:
        row |= {
            "metric.clean_accuracy": judged.best.clean_accuracy,
            "metric.robust_accuracy": judged.best.robust_accuracy,
            "metric.worst_class_accuracy": judged.best.worst_class_accuracy,
            "metric.best_epoch": judged.best.epoch,
            "metric.last_clean_accuracy": judged.clean_accuracy,
            "metric.last_robust_accuracy": judged.robust_accuracy,
            "metric.robust_overfitting_gap": judged.robust_overfitting_gap,
            "fidelity.validation_images": judged.images,
            "fidelity.validation_attack_steps": (
                judged.validation_attack_steps or config.validation.attack.steps
            ),
        }
    return row


def devices(facts: Mapping[str, object]) -> float:
    """How many devices a run holds, by its facts; one of which nothing is known holds one."""
    found = facts.get("run.devices", 1.0)
    assert isinstance(found, float)
    return found


def epoch(result: EpochResult) -> dict[str, object]:
    """The epoch's row in `epochs/`."""
    row: dict[str, object] = {
        "epoch": result.epoch,
        "loss": result.loss,
        "terms": result.terms,
        "clean_accuracy": result.clean_accuracy,
        "robust_accuracy": result.robust_accuracy,
        "worst_class_accuracy": result.worst_class_accuracy,
        "lr": result.lr,
        "images_per_second": result.images_per_second,
        "seconds": result.seconds,
        "training_attack_steps": result.training_attack_steps,
        "validation_attack_steps": result.validation_attack_steps,
        "processes": result.processes,
        "finished": datetime.fromtimestamp(result.finished, UTC),
    }
    if result.reliability is not None:
        row |= {f"teacher.{name}": share for name, share in asdict(result.reliability).items()}
    return row


def read_epoch(row: Mapping[str, Any]) -> EpochResult:
    """The epoch of a row of `epochs/`, nulls as None. `best` is not in it: a checkpoint has it."""
    shares = [row[f"teacher.{f.name}"] for f in fields(TeacherReliability)]
    same = {f.name: row[f.name] for f in fields(EpochResult) if f.name in row}
    known = None if shares[0] is None else TeacherReliability(*shares)
    return EpochResult(
        **{
            **same,
            "epochs": 0,
            "terms": json.loads(row["terms"] or "{}"),
            "finished": row["finished"].timestamp(),
        },
        reliability=known,
    )


def facts_of(trainer: Trainer) -> dict[str, object]:
    """`run.*`: where and by what this run was made."""
    return {
        "run.git_commit": git_commit(),
        "run.version": version("rkdsearch"),
        "run.torch": torch.__version__,
        "run.python": platform.python_version(),
        "run.device": device_name(trainer.device),
        "run.processes": trainer.processes,
        "run.devices": float(trainer.processes),
        "run.parameters": trainer.size.parameters,
        "run.multiply_adds": trainer.size.multiply_adds,
        "run.teacher_sha256": trainer.teacher_hashes.get("robust"),
        "run.natural_teacher_sha256": trainer.teacher_hashes.get("natural"),
        **{f"run.{name}": value for name, value in trainer.splits.hashes.items()},
    }


@lru_cache(maxsize=1)
def git_commit() -> str | None:
    """The commit of the code, `-dirty` where files were changed; None outside a checkout."""
    where = Path(__file__).parent
    try:
        done = subprocess.run(
            # git is looked up in PATH, as everywhere
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],  # noqa: S607
            cwd=where,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def device_name(device: torch.device) -> str:
    """The name of the accelerator, or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


@lru_cache(maxsize=1)
def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )

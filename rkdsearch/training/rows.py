"""Parts of a run's rows (`results/rows`), the same for a trial of a search and a single run."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from rkdsearch.accuracy import ByClass, TeacherReliability
from rkdsearch.config import TrainConfig
from rkdsearch.plugins import imported_packages
from rkdsearch.provenance import provenance
from rkdsearch.results.columns import cells_of
from rkdsearch.results.flags import Flag, raised
from rkdsearch.results.rows import (
    Checks,
    ClassCells,
    EpochRow,
    Metrics,
    ReachedFidelity,
    ReliabilityCells,
    RunFacts,
    RunRecord,
)
from rkdsearch.training.epoch import EpochResult
from rkdsearch.training.trainer import Trainer


def metrics(epochs: Sequence[EpochResult]) -> Metrics | None:
    """Validation results after these epochs; None where none was validated."""
    judged = _last_validated(epochs)
    if judged is None or judged.best is None:
        return None
    return Metrics(
        clean_accuracy=judged.best.clean_accuracy,
        robust_accuracy=judged.best.robust_accuracy,
        worst_class_accuracy=judged.best.worst_class_accuracy,
        by_class=_class_cells(judged.best.by_class),
        best_epoch=judged.best.epoch,
        last_clean_accuracy=judged.clean_accuracy,
        last_robust_accuracy=judged.robust_accuracy,
        robust_overfitting_gap=judged.robust_overfitting_gap,
    )


def checks(epochs: Sequence[EpochResult]) -> Checks | None:
    """The checks of a run's best network; None before its full length, and of earlier versions."""
    return epochs[-1].checks if epochs else None


def flags(epochs: Sequence[EpochResult]) -> tuple[Flag, ...] | None:
    """The flags that these raise; None where there are none."""
    found = checks(epochs)
    return None if found is None else raised(found)


def _class_cells(measured: ByClass | None) -> ClassCells | None:
    if measured is None:
        return None
    return ClassCells(
        balanced_clean_accuracy=measured.balanced_clean,
        balanced_robust_accuracy=measured.balanced_robust,
        clean_accuracy=measured.clean,
        robust_accuracy=measured.robust,
    )


def _read_classes(row: Mapping[str, Any]) -> ByClass | None:
    texts = [row.get(f"by_class.{kind}_accuracy") for kind in ("clean", "robust")]
    if None in texts:
        return None
    clean, robust = (tuple(json.loads(str(text))) for text in texts)
    return ByClass(clean, robust)


def reached_fidelity(config: TrainConfig, epochs: Sequence[EpochResult]) -> ReachedFidelity:
    """Fidelity of a run after these epochs."""
    judged = _last_validated(epochs)
    return ReachedFidelity(
        epochs=epochs[-1].epoch if epochs else 0,
        of_epochs=config.training.epochs,
        training_attack_steps=epochs[-1].training_attack_steps if epochs else config.attack.steps,
        validation_attack_steps=(judged.validation_attack_steps if judged else None)
        or config.validation.attack.steps,
        validation_images=judged.images if judged else None,
    )


def run_record(
    config: TrainConfig,
    epochs: Sequence[EpochResult],
    facts: Mapping[str, object],
    *,
    wall_seconds: float,
    device_seconds: float,
) -> RunRecord:
    """Seed and times of a run after these epochs; `facts` are cells of `RunFacts`."""
    started = facts.get("run.started")
    if epochs:
        started = datetime.fromtimestamp(epochs[0].finished - epochs[0].seconds, UTC)
    assert started is None or isinstance(started, datetime)
    return RunRecord(
        seed=config.training.seed,
        wall_seconds=wall_seconds,
        device_seconds=device_seconds,
        started=started,
        updated=datetime.now(UTC),
    )


def single_run_record(
    config: TrainConfig, epochs: Sequence[EpochResult], facts: Mapping[str, object]
) -> RunRecord:
    """The same of a run without a search, where each process has a device of its own.

    A resumed run may have had another number of processes before: `facts` hold the latest number.
    """
    now = facts.get("run.processes") or 1
    assert isinstance(now, int)
    process_seconds = sum(e.seconds * (e.processes or now) for e in epochs)
    return run_record(
        config,
        epochs,
        facts,
        wall_seconds=sum(e.seconds for e in epochs),
        device_seconds=process_seconds / now * devices(facts),
    )


def _last_validated(epochs: Sequence[EpochResult]) -> EpochResult | None:
    found = (e for e in reversed(epochs) if e.clean_accuracy is not None and e.best is not None)
    return next(found, None)


def devices(facts: Mapping[str, object]) -> float:
    """Devices that a run holds, by its facts; 1 where nothing is known."""
    found = facts.get("run.devices", 1.0)
    assert isinstance(found, float)
    return found


def epoch(result: EpochResult, segment: int = 0) -> EpochRow:
    """The row of an epoch in a segment of its trial."""
    shares = result.reliability
    return EpochRow(
        epoch=result.epoch,
        loss=result.loss,
        terms=result.terms,
        clean_accuracy=result.clean_accuracy,
        robust_accuracy=result.robust_accuracy,
        worst_class_accuracy=result.worst_class_accuracy,
        by_class=_class_cells(result.by_class),
        teacher=None if shares is None else ReliabilityCells(**asdict(shares)),
        lr=result.lr,
        images_per_second=result.images_per_second,
        seconds=result.seconds,
        training_attack_steps=result.training_attack_steps,
        finished=datetime.fromtimestamp(result.finished, UTC),
        segment=segment,
        validation_attack_steps=result.validation_attack_steps,
        processes=result.processes,
        node=result.node,
    )


def read_epoch(row: Mapping[str, Any]) -> EpochResult:
    """The epoch of a row of `epochs/`, nulls as None; without `best`, which checkpoints hold."""
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
        by_class=_read_classes(row),
        reliability=known,
    )


def read_checks(row: Mapping[str, Any]) -> Checks | None:
    """The checks in a row of `trials/`, nulls as None; None where nobody looked."""
    counts = {f.name: row.get(f"check.{f.name}") for f in fields(Checks)}
    known = {name: int(count) for name, count in counts.items() if count is not None}
    return Checks(**known) if {"images", "right"} <= known.keys() else None


def facts_of(trainer: Trainer) -> dict[str, object]:
    """Cells of `RunFacts`: code, versions, device, student and files of this run."""
    code = provenance()
    facts = RunFacts(
        git_commit=code.git_commit,
        git_diff_sha256=code.git_diff_sha256,
        versions=code.versions,
        command=code.command,
        threads=torch.get_num_threads(),
        version=code.version,
        packages=imported_packages() or None,
        torch=torch.__version__,
        ray=None,
        python=platform.python_version(),
        device=device_name(trainer.device),
        node=trainer.node,
        processes=trainer.processes,
        devices=float(trainer.processes),
        costs=asdict(trainer.size),
        teacher_sha256=trainer.teacher_hashes.get("robust"),
        natural_teacher_sha256=trainer.teacher_hashes.get("natural"),
        preprocessing=trainer.splits.train.preprocessing or None,
        **trainer.splits.hashes,
    )
    return cells_of(facts, "run.")


def device_name(device: torch.device) -> str:
    """Name of the accelerator, or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


@lru_cache(maxsize=1)
def processor() -> str:
    """Name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )

"""The students that validation attacks are compared on: many methods, widths, training eps and temperatures, and AutoAttack's verdict on each.

Everything is kept under a cache folder, and a second start does only what is missing: the teacher
(small CNN of width 32 by TRADES), a folder of checkpoints for each student, and AutoAttack's
verdicts on the first validation images. Test images are never opened.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rkdsearch import config as run
from rkdsearch import data, models
from rkdsearch.accuracy import judge_by_autoattack
from rkdsearch.config import TrainConfig
from rkdsearch.data.splits import some
from rkdsearch.teacher import ROLES, load
from rkdsearch.training import teacher as teachers
from rkdsearch.training.trainer import Trainer

EPOCHS = 30
COMMON: Mapping[str, Any] = {
    "data": {"name": "digits", "validation_fraction": 0.3, "test_fraction": 0.25},
    "validation": {"attack": {"eps": 0.15, "steps": 10}, "every": 6},
    "attack.eps": 0.15,
    "attack.steps": 10,
    "optimizer.lr": 0.1,
    "schedule.name": "cosine",
    "training": {"epochs": EPOCHS, "device": "cpu"},
}


def _student(method: str, width: int, eps: float | None = None, **fields: object) -> dict[str, Any]:
    """A digits student; `fields` are its method's, but for `steps` (of its attack), `epochs`, `lr` and `label_smoothing`."""
    own = {
        "steps": "attack.steps",
        "epochs": "training.epochs",
        "lr": "optimizer.lr",
        "label_smoothing": "training.label_smoothing",
    }
    values: dict[str, Any] = {
        "method.name": method,
        "student": {"name": "small_cnn", "width": width},
    }
    if eps is not None:
        values["attack.eps"] = eps
    return values | {own.get(name, f"method.{name}"): value for name, value in fields.items()}


# those of many kinds first: whoever has little time stops early
STUDENTS: tuple[Mapping[str, Any], ...] = (
    _student("natural", 8),
    _student("pgd_at", 8, 0.15),
    _student("trades", 8, 0.15),
    _student("rslad", 8, 0.15),
    _student("iad", 8, 0.15, warm_up=0.1),
    _student("ard", 8, 0.15, temperature=5.0),
    _student("crdnd", 8, 0.15),
    _student("ardir", 8, 0.15),
    _student("adaad", 8, 0.15),
    _student("saad", 8, 0.15),
    _student("kd", 8),
    _student("pgd_at", 2, 0.15),
    _student("iad", 2, 0.2, temperature=2.0, warm_up=0.0, steps=5, epochs=20),
    _student("rslad", 4, 0.1, temperature=8.0, steps=5, epochs=20),
    _student("pgd_at", 4, 0.05, steps=2, epochs=20),
    _student("rslad", 8, 0.14, temperature=0.5, steps=5, epochs=20),
    _student("natural", 16),
    _student("trades", 4, 0.1, consistency_weight=1.0, steps=5, epochs=20),
    _student("pgd_at", 8, 0.15, label_smoothing=0.3, steps=5, epochs=20),
    _student("trades", 2, 0.15, steps=5, epochs=20),
    _student("crdnd", 4, 0.2, steps=5, epochs=20),
    _student("ard", 8, 0.1, temperature=30.0, steps=5, epochs=20),
    _student("pgd_at", 16, 0.25, steps=5, epochs=20),
    _student("rslad", 16, 0.2, temperature=4.0, steps=5, epochs=20),
    _student("natural", 2, label_smoothing=0.3),
    _student("akd", 8, 0.15, steps=5, epochs=20),
    _student("iad", 8, 0.13, temperature=0.5, warm_up=0.1, steps=5, epochs=20),
    _student("saad", 4, 0.2, steps=5, epochs=20),
    _student("kd", 16, temperature=4.0),
    _student("absld", 8, 0.15, steps=5, epochs=20),
    _student("trades", 16, 0.25, consistency_weight=9.0, steps=5, epochs=20),
    _student("ardir", 16, 0.2, steps=5, epochs=20),
    _student("igdm", 8, 0.15, steps=5, epochs=20),
    _student("adaad", 16, 0.1, steps=5, epochs=20),
    _student("pgd_at", 16, 0.15, epochs=100, steps=5),
)


@dataclass(frozen=True)
class Judged:
    """A folded student, validation images x (N, C, H, W) with labels y (N,), and which of them are right on x and after AutoAttack, (N,) booleans."""

    name: str
    network: nn.Module
    eps: float
    x: Tensor
    y: Tensor
    clean: Tensor
    robust: Tensor


def judged(count: int, cache: Path, *, ready: bool = False) -> Iterator[Judged]:
    """Each student, trained and judged by AutoAttack on `count` validation images where that is not done yet.

    With `ready`, only those where it is.
    """
    roles = {role: _teacher(role, cache) for role in ROLES}
    for settings in STUDENTS:
        values = run.merge(COMMON, settings)
        config = run.build({**values, "teachers": roles})
        name = _name(settings)
        folder = cache / re.sub(r"[^a-z0-9.]+", "-", f"digits {name}")
        if ready and not (folder / f"autoattack-{count}.json").exists():
            continue
        seconds = _trained(config, folder)
        splits = data.load_training(config.data)
        rows = some(
            splits.validation.labels.numpy(), count, seed=config.data.split_seed, field="--images"
        )
        images = splits.validation.take(torch.from_numpy(rows))
        x = data.Pictures(images, torch.device("cpu"), torch.float32, True)[:count]
        network = _network(config, folder, splits)
        clean, robust, by_autoattack = _verdict(
            folder / f"autoattack-{count}.json", network, config, x, images.labels
        )
        print(
            f"{name:58} clean {clean.float().mean():.3f}  AutoAttack"
            f" {robust.float().mean():.3f}  ({seconds:.0f} s to train, {by_autoattack:.0f} s"
            " AutoAttack)",
            flush=True,
        )
        yield Judged(name, network, config.validation.attack.eps, x, images.labels, clean, robust)


def _name(settings: Mapping[str, Any]) -> str:
    words = {"attack.eps": "eps", "attack.steps": "steps", "training.epochs": "epochs"}
    rest = [
        f"{words.get(key, key.split('.')[-1])} {value:g}"
        for key, value in settings.items()
        if key not in ("student", "method.name")
    ]
    return ", ".join([f"{settings['method.name']} w{settings['student']['width']}", *rest])


def _teacher(role: str, cache: Path) -> dict[str, Any]:
    """A teacher's section: small CNN of width 32 by TRADES, or by natural training."""
    robust = role == "robust"
    changes = {
        "method.name": "trades" if robust else "natural",
        "student": {"name": "small_cnn", "width": 32},
    }
    if robust:
        changes["training.epochs"] = 60
    config = run.build(run.merge(COMMON, changes))
    folder = cache / ("digits-teacher" if robust else "digits-teacher-natural")
    _trained(config, folder)
    return {"network": config.student.model_dump(), "path": str(folder / "best.safetensors")}


def _trained(config: TrainConfig, folder: Path) -> float:
    """Train to the end where that is not done; returns the seconds of the run."""
    if not teachers.is_trained(config, folder):
        for _ in Trainer(config, folder).epochs():
            pass
    return sum(epoch.seconds for epoch in teachers.history_of(folder))


def _network(config: TrainConfig, folder: Path, splits: data.Splits) -> nn.Module:
    train = splits.train
    loaded = load(
        folder / "best.safetensors",
        config.student,
        classes=len(train.classes),
        channels=train.channels,
        size=train.size,
    )
    return models.fold(loaded)


def _verdict(
    file: Path, network: nn.Module, config: TrainConfig, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, float]:
    if not file.exists():
        started = time.perf_counter()
        verdict, _ = judge_by_autoattack(network, x, y, attack=config.validation.attack.build())
        known = {
            "clean": verdict.clean.int().tolist(),
            "robust": verdict.robust.int().tolist(),
            "seconds": time.perf_counter() - started,
        }
        file.write_text(json.dumps(known), encoding="utf-8")
    known = json.loads(file.read_text(encoding="utf-8"))
    return (
        torch.tensor(known["clean"]).bool(),
        torch.tensor(known["robust"]).bool(),
        known["seconds"],
    )

"""The students that validation attacks are compared on, and AutoAttack's results on each.

Many methods, widths, training eps and temperatures, on digits (8x8), and some on Fashion-MNIST
(28x28) where its Parquet files are there. Everything is kept in a cache folder, and a second start
does only what is missing: two teachers of each data set (small CNNs, by TRADES and by natural
training), a folder of checkpoints for each student, and AutoAttack's results on some validation
images. Test images are never opened.
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
from rkdsearch.accuracy import correct
from rkdsearch.attacks.autoattack import auto_attack
from rkdsearch.config import TrainConfig
from rkdsearch.data.splits import stratified_subset
from rkdsearch.teacher import ROLES, Role, load
from rkdsearch.training import teacher as teachers
from rkdsearch.training.trainer import Trainer

EPOCHS = 30
COMMON: Mapping[str, Any] = {
    "data": {"name": "digits", "validation_fraction": 0.3, "test_fraction": 0.25},
    # PGD on the cross-entropy selects the best epochs, as when the attacks were first compared
    "validation": {
        "attack": {"objective": "cross_entropy", "eps": 0.15, "steps": 10},
        "every": 6,
    },
    "attack.eps": 0.15,
    "attack.steps": 10,
    "optimizer.lr": 0.1,
    "schedule.name": "cosine",
    "training": {"epochs": EPOCHS, "device": "cpu"},
}


# Fashion-MNIST: fewer images and epochs, because an image costs 50 times as much.
COMMON_FASHION: Mapping[str, Any] = {
    **COMMON,
    "data": {"validation_fraction": 0.02, "train_images": 4000},
    "validation": {
        "attack": {"objective": "cross_entropy", "eps": 0.1, "steps": 5},
        "images": 200,
        "every": 5,
    },
    "attack.eps": 0.1,
    "attack.steps": 5,
    "training": {"epochs": 10, "device": "cpu"},
}


def _student(method: str, width: int, eps: float | None = None, **fields: object) -> dict[str, Any]:
    """Settings of a student.

    `fields` are its method's, except `steps` (of its training attack), `epochs`, `lr` and
    `label_smoothing`.
    """
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


# Many kinds first: the run may be stopped early.
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
FASHION_STUDENTS: tuple[Mapping[str, Any], ...] = (
    _student("natural", 8, lr=0.02),
    _student("pgd_at", 8),
    _student("trades", 4),
    _student("rslad", 8),
    _student("adaad", 4, steps=3),
    _student("iad", 8, warm_up=0.1, lr=0.02),
    _student("ard", 8, 0.05, temperature=5.0, lr=0.02),
    _student("kd", 8),
    _student("pgd_at", 2, lr=0.02),
    _student("trades", 8, 0.15, consistency_weight=1.0),
)


@dataclass(frozen=True)
class Benchmark:
    """Students of one data set: its name, what their runs share, and teachers' width and epochs."""

    name: str
    common: Mapping[str, Any]
    students: tuple[Mapping[str, Any], ...]
    teacher_width: int = 32
    robust_teacher_epochs: int = 60


DIGITS = Benchmark("digits", COMMON, STUDENTS)


def fashion_mnist(folder: Path) -> Benchmark:
    """Students on Fashion-MNIST, from a folder of train*.parquet files."""
    common = {**COMMON_FASHION, "data": {**COMMON_FASHION["data"], "name": f"parquet:{folder}"}}
    return Benchmark(
        "fashion-mnist", common, FASHION_STUDENTS, teacher_width=16, robust_teacher_epochs=15
    )


@dataclass(frozen=True)
class EvaluatedStudent:
    """A folded student, validation images x (N, C, H, W) with labels y (N,), AutoAttack's results.

    `clean` and `robust` as in `ImageResults`, (N,) booleans.
    """

    name: str
    network: nn.Module
    eps: float
    x: Tensor
    y: Tensor
    clean: Tensor
    robust: Tensor


def evaluated_students(
    benchmark: Benchmark, count: int, cache: Path, *, ready: bool = False
) -> Iterator[EvaluatedStudent]:
    """Each student, trained and attacked by AutoAttack on `count` validation images.

    Only what is not in the cache is done. With `ready`, only students whose results are there.
    """
    roles = {role: _teacher(benchmark, role, cache) for role in ROLES}
    for settings in benchmark.students:
        config = run.build({**run.merge(benchmark.common, settings), "teachers": roles})
        name = _name(settings)
        folder = cache / re.sub(r"[^a-z0-9.]+", "-", f"{benchmark.name} {name}")
        results = folder / f"autoattack-{count}.json"
        if ready and not results.exists():
            continue
        seconds = _train(config, folder)
        splits = data.load_training(config.data)
        rows = stratified_subset(
            splits.validation.labels.numpy(), count, seed=config.data.split_seed, field="--images"
        )
        x, y = splits.validation.floats(torch.from_numpy(rows))
        network = _network(config, folder, splits)
        clean, robust, by_autoattack = _autoattack(results, network, config, x, y)
        print(
            f"{name:58} clean {clean.float().mean():.3f}  AutoAttack"
            f" {robust.float().mean():.3f}  ({seconds:.0f} s to train, {by_autoattack:.0f} s"
            " AutoAttack)",
            flush=True,
        )
        if benchmark is not DIGITS:  # names are keys of the cache
            name = f"{benchmark.name} {name}"
        yield EvaluatedStudent(name, network, config.validation.attack.eps, x, y, clean, robust)


def _name(settings: Mapping[str, Any]) -> str:
    words = {"attack.eps": "eps", "attack.steps": "steps", "training.epochs": "epochs"}
    rest = [
        f"{words.get(key, key.split('.')[-1])} {value:g}"
        for key, value in settings.items()
        if key not in ("student", "method.name")
    ]
    return ", ".join([f"{settings['method.name']} w{settings['student']['width']}", *rest])


def _teacher(benchmark: Benchmark, role: Role, cache: Path) -> dict[str, Any]:
    """A teacher's section of a config: a small CNN, by TRADES or by natural training."""
    robust = role == "robust"
    changes: dict[str, Any] = {
        "method.name": "trades" if robust else "natural",
        "student": {"name": "small_cnn", "width": benchmark.teacher_width},
    }
    if robust:
        changes["training.epochs"] = benchmark.robust_teacher_epochs
    config = run.build(run.merge(benchmark.common, changes))
    folder = cache / (f"{benchmark.name}-teacher" + ("" if robust else "-natural"))
    _train(config, folder)
    return {"network": config.student.model_dump(), "path": str(folder / "best.safetensors")}


def _train(config: TrainConfig, folder: Path) -> float:
    """Train to the end, unless that is done. Returns the seconds of the run."""
    if not teachers.is_trained(config, folder):
        for _ in Trainer(config, folder).epochs():
            pass
    return sum(epoch.seconds for epoch in teachers.history_of(folder))


def _network(config: TrainConfig, folder: Path, splits: data.Splits) -> nn.Module:
    return models.fold(load(folder / "best.safetensors", config.student, splits.train.task))


def _autoattack(
    file: Path, network: nn.Module, config: TrainConfig, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, float]:
    """Clean and robust, (N,) booleans, and seconds: of the file, which is written once."""
    if not file.exists():
        started = time.perf_counter()
        robust, _ = auto_attack(network, x, y, ball=config.validation.attack.build().ball)
        known = {
            "clean": correct(network, x, y).int().tolist(),
            "robust": robust.int().tolist(),
            "seconds": time.perf_counter() - started,
        }
        file.write_text(json.dumps(known), encoding="utf-8")
    known = json.loads(file.read_text(encoding="utf-8"))
    return (
        torch.tensor(known["clean"]).bool(),
        torch.tensor(known["robust"]).bool(),
        known["seconds"],
    )

"""A made-up study with learning curves, stopped trials, baselines, test results, teachers."""

import atexit
import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np

from rkdsearch.results.cells import PAIR, records
from rkdsearch.results.columns import Column
from rkdsearch.results.intervals import wilson
from rkdsearch.results.rows import Checks
from rkdsearch.results.store import Store

CONFIG = (
    Column("config.method.name", "string", "", "method"),
    Column("config.method.temperature", "float", "", "softening"),
    Column("config.method.adversarial_weight", "float", "", "alpha"),
    Column("config.optimizer.lr", "float", "", "initial learning rate"),
    Column("config.attack.eps", "float", "pixels of [0, 1]", "radius"),
    Column("config.validation.attack.objective", "string", "", "validation attack"),
)
METHODS = ("natural", "pgd_at", "trades", "ard", "iad", "rslad", "adaad", "crdnd", "mtard", "igdm")
START = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
EPOCHS, RUNGS, IMAGES, TEST_IMAGES = 24, (3, 8), 360, 297
SPACE = """# digits: every method of the mission, minutes on two cores
search:
  optimizer.lr:              {float: [0.01, 0.3], log: true}
  method.name:
    choice: [natural, pgd_at, trades, ard, iad, rslad, adaad, crdnd, mtard, igdm]
  method.temperature:        {float: [1.0, 30.0], log: true, when: {method.name: [ard, iad, rslad]}}
  attack.eps:                {choice: [4/255, 8/255, 10/255]}
"""


# The checks of a sound network.
SEEN = {f"check.{f.name}": 0 for f in fields(Checks)} | {"check.images": 200, "check.right": 180}


def make_study(
    folder: Path,
    *,
    trials: int = 60,
    running: int = 0,
    evaluated: bool = True,
    evil: str = "",
    seed: int = 0,
) -> Store:
    """Write a study; `evil` text goes into every label, error, name and JSON value."""
    made = _made(trials, running, evil, seed, evaluated=evaluated)
    shutil.copytree(made, folder, dirs_exist_ok=True)
    return Store(folder, CONFIG)


@cache  # many tests ask for the same study
def _made(trials: int, running: int, evil: str, seed: int, *, evaluated: bool) -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    random = np.random.default_rng(seed)
    store = Store(folder, CONFIG)
    (folder / "study.json").write_text(json.dumps(_description(evil)), encoding="utf-8")
    students: list[tuple[str, str, float, float]] = []
    for ordinal in range(trials):
        name = (
            METHODS[ordinal % len(METHODS)]
            if ordinal < len(METHODS)
            else str(random.choice(METHODS))
        )
        published = ordinal < 6
        temperature, weight = 10 ** random.uniform(0, 1.5), random.uniform(0.3, 1.0)
        lr, eps = 10 ** random.uniform(-2, -0.5), float(random.choice([4, 8, 10])) / 255
        unsafe = {"text" + evil: evil} if evil else {}
        trial_id = f"{name}-{ordinal:03d}"
        natural = name == "natural"
        quality = (
            random.normal(0, 0.012)
            - 0.05 * (math.log10(lr) + 1.2) ** 2
            + 0.012 * METHODS.index(name) / 3
        )
        robust = (
            0.03 + random.uniform(0, 0.02)
            if natural
            else 0.62 + quality + 3.2 * (eps - 6 / 255) + 0.12 * weight
        )
        clean = (
            0.982 + quality / 6
            if natural
            else 0.965 + quality / 2 - 2.4 * (eps - 4 / 255) - 0.04 * weight
        )
        curve = _curve(random, clean, robust)
        status, length = _fate(
            ordinal, published=published, robust=robust, natural=natural, failed=ordinal % 17 == 16
        )
        if ordinal >= trials - running:
            status, length = "running", int(random.integers(1, EPOCHS))
        curve = curve[:length]
        started = START + timedelta(seconds=40 * ordinal)
        store.write_epochs(
            trial_id,
            [_epoch(n, row, started, natural=natural) for n, row in enumerate(curve, start=1)],
        )
        store.write_rungs(trial_id, _rungs(curve, status, started))
        best = max(range(length), key=lambda n: curve[n][1] + curve[n][0])
        store.write_trial(
            {
                "trial_id": trial_id,
                "study": "digits",
                "ordinal": ordinal,
                "origin": "baseline" if published else "search",
                "label": f"{name.upper().replace('_', '-')}, published{evil}"
                if published
                else None,
                "status": status,
                "error": (
                    f"NonFiniteLossError: loss was nan at step 12{evil}"
                    if status == "failed"
                    else None
                ),
                "reconstructed": name == "crdnd",
                "hyperparameters": {
                    "method.name": name,
                    "method.temperature": temperature,
                    "optimizer.lr": lr,
                    "attack.eps": eps,
                    **unsafe,
                },
                "config.method.name": name + evil,
                "config.method.temperature": temperature
                if name in {"ard", "iad", "rslad"}
                else None,
                "config.method.adversarial_weight": None if natural else weight,
                "config.optimizer.lr": lr,
                "config.attack.eps": eps,
                "config.validation.attack.objective": "cross_entropy",
                "flags": [] if status == "finished" else None,
                **(SEEN if status == "finished" else {}),
                "metric.clean_accuracy": curve[best][0],
                "metric.robust_accuracy": curve[best][1],
                "metric.worst_class_accuracy": curve[best][1] * 0.8,
                "metric.by_class.balanced_clean_accuracy": curve[best][0],
                "metric.by_class.balanced_robust_accuracy": curve[best][1],
                "metric.by_class.clean_accuracy": [1.0, None, 0.123],
                "metric.by_class.robust_accuracy": [0.5, None, 0.0456],
                "metric.best_epoch": best + 1,
                "metric.last_clean_accuracy": curve[-1][0],
                "metric.last_robust_accuracy": curve[-1][1],
                "metric.robust_overfitting_gap": max(robust for _, robust in curve) - curve[-1][1],
                "fidelity.validation_images": IMAGES,
                "fidelity.epochs": length,
                "fidelity.of_epochs": EPOCHS,
                "fidelity.training_attack_steps": 10,
                "fidelity.validation_attack_steps": 20 if status == "finished" else 10,
                "run.seed": ordinal,
                "run.git_commit": "0f3c1d2",
                "run.version": "0.1.0",
                "run.torch": "2.15.0",
                "run.ray": "2.60.0",
                "run.python": "3.11.7",
                "run.device": "cpu: 2 cores" + evil,
                "run.processes": 1,
                "run.parameters": 38_794,
                "run.wall_seconds": 1.4 * length,
                "run.device_seconds": 1.4 * length,
                "run.teacher_sha256": "a" * 64,
                "run.split_sha256": "b" * 64,
                "run.started": started,
                "run.updated": started + timedelta(seconds=1.4 * length),
            }
        )
        if status == "finished":
            students.append((trial_id, trial_id, curve[best][0], curve[best][1]))
    if evaluated:
        from rkdsearch.results.front import front_rows

        best_ids = set(front_rows(store.trials())["trial_id"]) | {t for t, *_ in students[:6]}
        write_tests(
            store,
            [s for s in students if s[0] in best_ids]
            + [("teacher", "WRN teacher" + evil, 0.95, 0.74)],
            random,
        )
    # as those of a long search are: a file is read in the time of a hundred rows
    store.pack(store.trials()["trial_id"])
    return folder


def flag(store: Store, trial_id: str, name: str) -> None:
    """Flag a trial of a written study."""
    (row,) = (r for r in records(store.trials()) if r["trial_id"] == trial_id)
    store.write_trial({**row, "flags": [name]})


def forget_checks(store: Store) -> None:
    """Write the rows of a study again as if nobody had looked for flags."""
    for rows, write in (
        (store.trials(), store.write_trial),
        (store.evaluations(), store.write_evaluation),
    ):
        for row in records(rows):
            write({**row, **dict.fromkeys(SEEN), "flags": None})


def repeat(store: Store, ordinals: Sequence[int]) -> None:
    """Two replicates of each, 0.01 and 0.03 less accurate than the chosen run, clean and robust."""
    trials = store.trials()
    for row in records(trials[trials["ordinal"].isin(ordinals)]):
        for seed, lost in ((1, 0.01), (2, 0.03)):
            metrics = {name: row[name] - lost for name in PAIR}
            hyperparameters = {**json.loads(row["hyperparameters"]), "training.seed": seed}
            again = {
                "trial_id": f"{row['trial_id']}-r{seed}",
                "origin": "replicate",
                "label": None,
                "hyperparameters": hyperparameters,
                "run.seed": seed,
            }
            store.write_trial({**row, **again, **metrics})


def write_tests(
    store: Store, students: Sequence[tuple[str, str, float, float]], random: np.random.Generator
) -> None:
    """Clean, PGD-20 and AutoAttack rows of each (trial_id, label, clean, robust).

    The same images are hard for everybody.
    """
    hard = random.uniform(size=TEST_IMAGES)
    for trial_id, label, clean, robust in students:
        for attack, share in (
            ("clean", clean),
            ("pgd20", robust - 0.01),
            ("autoattack", max(robust - 0.035, 0.0)),
        ):
            right = hard + random.normal(0, 0.02, TEST_IMAGES) < share
            estimate = wilson(int(right.sum()), TEST_IMAGES)
            store.write_evaluation(
                {
                    "trial_id": trial_id,
                    "label": label,
                    "checkpoint": "best",
                    "split": "test",
                    "attack": attack,
                    "norm": None if attack == "clean" else "linf",
                    "eps": None if attack == "clean" else 8 / 255,
                    "test_attack_steps": 20 if attack == "pgd20" else None,
                    "attack_seed": 0,
                    "images": TEST_IMAGES,
                    "of_images": TEST_IMAGES,
                    "correct": int(right.sum()),
                    "accuracy": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "worst_class_accuracy": estimate.value * 0.8,
                    "seconds": 2.0,
                    "flags": None if attack == "clean" else [],
                    **({} if attack == "clean" else SEEN),
                    "warnings": (
                        ["white-box weaker than black-box"] if trial_id.startswith("crdnd") else []
                    ),
                    "per_image": "".join("1" if flag else "0" for flag in right),
                    "subset_sha256": "c" * 64,
                    "evaluated": START + timedelta(hours=2),
                    "run.torch": "2.15.0",
                    "run.device": "cpu: 2 cores",
                    "run.version": "0.1.0",
                }
            )


def _description(evil: str) -> dict[str, object]:
    exam = {
        "objective": "cross_entropy",
        "norm": "linf",
        "eps": 8 / 255,
        "steps": 20,
        "restarts": 1,
    }
    teacher = {
        "label": "WRN, adversarially trained" + evil,
        "sha256": "a" * 64,
        "network": {"name": "wide_resnet", "width": 2},
        "images": IMAGES,
        "measured_on": "validation images, not held out: it was trained on all of them" + evil,
    }
    return {
        "name": "digits" + evil,
        "space": SPACE + evil,
        "seed": 0,
        "objectives": ["clean_accuracy", "robust_accuracy"],
        "ladder": [{"epochs": rung, "attack_steps": 10} for rung in RUNGS],
        "validation_attack": exam,
        "split_sha256": "b" * 64,
        "teachers": {"robust": {**teacher, "clean_accuracy": 0.955, "robust_accuracy": 0.755}},
        "version": "0.1.0",
        "created": START.isoformat(),
    }


def _curve(random: np.random.Generator, clean: float, robust: float) -> list[tuple[float, float]]:
    """Rises fast, peaks at two thirds, then robust accuracy is lost again: robust overfitting."""
    rows = []
    for n in range(1, EPOCHS + 1):
        rise = 1 - 0.75 * math.exp(-n / 4)
        lost = 0.05 * max(0.0, (n - 16) / 8)
        noise = random.normal(0, 0.006, 2)
        rows.append(
            (
                min(1.0, clean * min(1.0, rise + 0.1) + noise[0] / 2),
                max(0.0, robust * rise - lost * (robust > 0.2) + noise[1]),
            )
        )
    return rows


def _fate(
    ordinal: int, *, published: bool, robust: float, natural: bool, failed: bool
) -> tuple[str, int]:
    if failed:
        return "failed", 2
    if published or natural or robust > 0.74 or ordinal % 5 == 0:
        return "finished", EPOCHS
    return ("stopped", RUNGS[0]) if robust < 0.70 else ("stopped", RUNGS[1])


def _epoch(
    number: int, row: tuple[float, float], started: datetime, *, natural: bool
) -> dict[str, object]:
    reliable = 0.86 - 0.004 * number
    return {
        "epoch": number,
        "loss": 2.3 * math.exp(-number / 6) + 0.2,
        "terms": {"adversarial": 1.2 * math.exp(-number / 6), "natural": 0.1},
        "clean_accuracy": row[0],
        "robust_accuracy": row[1],
        "worst_class_accuracy": row[1] * 0.8,
        "teacher.right_on_adversarial": None if natural else reliable,
        "teacher.right_on_clean_only": None if natural else 0.97 - reliable,
        "teacher.wrong_on_both": None if natural else 0.03,
        "lr": 0.1,
        "images_per_second": 1400.0,
        "seconds": 1.4,
        "training_attack_steps": 10,
        "finished": started + timedelta(seconds=1.4 * number),
    }


def _rungs(
    curve: list[tuple[float, float]], status: str, started: datetime
) -> list[dict[str, object]]:
    reached = [rung for rung in (*RUNGS, EPOCHS) if rung <= len(curve)]
    return [
        {
            "epochs": rung,
            "validation_attack_steps": 20 if rung == EPOCHS else 10,
            "clean_accuracy": curve[rung - 1][0],
            "robust_accuracy": curve[rung - 1][1],
            "best_epoch": rung,
            "rank": 1 + place,
            "of": 12,
            "decision": (
                "finished"
                if rung == EPOCHS
                else "stopped"
                if status == "stopped" and rung == reached[-1]
                else "promoted"
            ),
            "rule": "asynchronous halving by non-dominated rank",
            "decided": started + timedelta(seconds=1.4 * rung),
        }
        for place, rung in enumerate(reached)
    ]

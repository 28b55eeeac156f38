"""Does every method train? Each one on digits for a few epochs, against natural training, n seeds.

    python analysis/every_method.py --seeds 3

Prints a Markdown table: validation accuracies (mean and range over seeds) of the best epoch, clean
and under the validation attack. The settings are the methods' own defaults at one learning rate:
this says that a method works, not which is better. Rows are kept as they end, so a second start
goes on.
"""

import argparse
import json
import platform
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from rkdsearch import config as run
from rkdsearch import methods
from rkdsearch.teacher import ROLES
from rkdsearch.training import teacher as teachers
from rkdsearch.training.trainer import Trainer

EPOCHS = 25
COMMON: Mapping[str, Any] = {
    "data": {"name": "digits", "validation_fraction": 0.3},
    "validation": {"attack": {"eps": 0.1, "steps": 10}, "every": 5},
    "attack.eps": 0.1,
    "optimizer.lr": 0.1,
    "schedule.name": "cosine",
    "training": {"epochs": EPOCHS, "device": "cpu"},
}
ACCURACIES = ("clean_accuracy", "robust_accuracy")
TEACHER: Mapping[str, Any] = {**COMMON, "student": {"name": "small_cnn", "width": 32}}
# Where a default is made for another length or scale; each with its reason.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    # 30 on 10 classes of easy digits leaves next to no gradient in 25 epochs
    "ard": {"method.temperature": 5.0},
    "adaiad": {"method.temperature": 5.0},  # likewise
    # nobody knows anything at first: its own 1/K needs hundreds of epochs
    "peeraid": {"method.kl_scale": 1.0},
}


def student(method: str, seed: int, cache: Path) -> dict[str, float]:
    """Accuracies of one method with one seed; the teachers are trained once and cached."""
    values = {
        **COMMON,
        "student": {"name": "small_cnn", "width": 8},
        "method.name": method,
        **SETTINGS.get(method, {}),
    }
    values["training"] = {**COMMON["training"], "seed": seed}
    values["teachers"] = {role: made(role, cache) for role in ROLES}
    *_, last = Trainer(run.build(values)).epochs()
    assert last.best is not None
    return {name: getattr(last.best, name) for name in ACCURACIES}


def made(role: str, cache: Path) -> dict[str, Any]:
    """A teacher's section: trained where it is not there yet."""
    config = run.build({**TEACHER, "method.name": "trades" if role == "robust" else "natural"})
    home = teachers.folder_of(config, cache)
    for _ in Trainer(config, home).epochs():
        pass
    return {"network": config.student.model_dump(), "path": str(home / "best.safetensors")}


def measured(
    names: tuple[str, ...], seeds: int, cache: Path
) -> Iterator[tuple[str, list[dict[str, float]]]]:
    """Each method's results, read from `cache` where they are known."""
    for name in names:
        found = []
        for seed in range(seeds):
            file = cache / f"{name}-{seed}.json"
            if not file.exists():
                file.write_text(json.dumps(student(name, seed, cache)), encoding="utf-8")
            found.append(json.loads(file.read_text(encoding="utf-8")))
        yield name, found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("runs/every_method"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    attack = run.build({**TEACHER, "method.name": "natural"}).validation.attack
    arguments.cache.mkdir(parents=True, exist_ok=True)
    print(
        f"digits, small_cnn width 8, {EPOCHS} epochs, {attack.title} on 404 validation images,"
        f" n = {arguments.seeds} seeds;"
    )
    print(f"torch {torch.__version__}, one CPU thread, {platform.machine()}\n")
    print("| method | clean | robust | robust, lowest seed |\n|---|---|---|---|")
    for name, found in measured(methods.names(), arguments.seeds, arguments.cache):
        clean, robust = ([best[accuracy] for best in found] for accuracy in ACCURACIES)
        print(
            f"| {name} | {statistics.mean(clean):.3f} | {statistics.mean(robust):.3f} |"
            f" {min(robust):.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

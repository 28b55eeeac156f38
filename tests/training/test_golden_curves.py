"""Golden curves: sixteen steps of five methods in float64, number for number as they were recorded.

A change that should move no number leaves them as they are. One that should is recorded anew, with
its reason in the commit: `python -m tests.training.test_golden_curves`.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from rkdsearch.training.trainer import Trainer
from tests.training.runs import described, teacher_file

FILE = Path(__file__).parent.parent / "golden" / "curves.json"
PAPERS_PGD = {"objective": "cross_entropy", "eps": 0.05, "steps": 2}  # as when they were recorded
METHODS: dict[str, dict[str, Any]] = {
    "rslad": {"name": "rslad", "temperature": 2.0},
    "iad": {"name": "iad", "temperature": 2.0, "warm_up": 0.25, "soft_label_weight": 0.8},
    "crdnd": {"name": "crdnd"},
    "ardir": {"name": "ardir"},
    "trades": {"name": "trades", "consistency_weight": 6.0},
}


def curve(method: str, folder: Path) -> list[dict[str, Any]]:
    """Losses, their terms and validation accuracies of four epochs of four steps."""
    for seed, role in enumerate(("robust", "natural")):
        _confident_teacher(folder / f"{role}.safetensors", seed=seed)
    config = described(
        folder,
        METHODS[method],
        student={"name": "small_cnn", "width": 8},
        attack={"eps": 0.1, "steps": 3},
        optimizer={"lr": 0.05 if method == "crdnd" else 0.2},
        validation={"attack": PAPERS_PGD, "images": 200, "every": 1},
        training={"epochs": 4, "precision": "fp64"},
    )
    return [
        {
            "loss": epoch.loss,
            "terms": epoch.terms,
            "lr": epoch.lr,
            "clean_accuracy": epoch.clean_accuracy,
            "robust_accuracy": epoch.robust_accuracy,
            "worst_class_accuracy": epoch.worst_class_accuracy,
        }
        for epoch in Trainer(config).epochs()
    ]


def _confident_teacher(file: Path, *, seed: int) -> None:
    """A fresh network whose last layer is scaled, so that its answers differ by several nats."""
    weights = load_file(teacher_file(file, seed=seed))
    last = [name for name in weights if name.endswith("weight")][-1]
    save_file(
        {name: tensor * 40 if name == last else tensor for name, tensor in weights.items()}, file
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_short_run_in_float64_has_the_recorded_curve(method: str, tmp_path: Path) -> None:
    golden = json.loads(FILE.read_text(encoding="utf-8"))[method]
    found = curve(method, tmp_path)
    assert len(found) == len(golden) == 4
    for now, then in zip(found, golden, strict=True):
        assert now.keys() == then.keys()
        assert now.pop("terms") == pytest.approx(then.pop("terms"), rel=1e-9, abs=1e-9)
        assert now == pytest.approx(then, rel=1e-9, abs=1e-9)


def main() -> None:
    """Record the curves as they are now."""
    found = {}
    for method in METHODS:
        with TemporaryDirectory() as folder:
            found[method] = curve(method, Path(folder))
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

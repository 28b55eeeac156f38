"""A run that is exported, and rows of its test evaluation."""

from datetime import UTC, datetime
from typing import Any

VALUES = {
    "method.name": "crdnd",
    "data": {"name": "digits", "validation_fraction": 0.3},
    "student": {"name": "small_cnn", "width": 4},
    "validation.attack": {"eps": 8 / 255, "steps": 2},
    "attack.steps": 1,
    "training": {"epochs": 1, "device": "cpu"},
    "teachers.robust": {
        "network": {"name": "mlp", "width": 16},
        "recipe": {
            "method": {"name": "trades"},
            "attack": {"steps": 1, "eps": 8 / 255},
            "training": {"epochs": 1, "device": "cpu"},
        },
    },
}


def evaluation(attack: str, seed: int, correct: str, **more: Any) -> dict[str, object]:
    right = correct.count("1")
    return {
        "trial_id": "run",
        "label": "crdnd",
        "checkpoint": "best",
        "split": "test",
        "attack": attack,
        "norm": "linf",
        "eps": 8 / 255,
        "attack_seed": seed,
        "images": len(correct),
        "of_images": 450,
        "correct": right,
        "accuracy": right / len(correct),
        "low": 0.0,
        "high": 1.0,
        "flags": None if attack == "clean" else [],
        "warnings": [],
        "per_image": correct,
        "subset_sha256": "ab",
        "evaluated": datetime(2026, 1, 2, tzinfo=UTC),
        **more,
    }

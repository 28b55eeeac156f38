"""One entry for RobustBench, copied from the study's rows: null where nothing was measured or nothing is published."""

from collections.abc import Sequence
from typing import Any

from rkdsearch.attacks import BALLS
from rkdsearch.export.card import Delivery, Row, fraction, named
from rkdsearch.methods import name_of
from rkdsearch.results import summary


def entry(d: Delivery) -> dict[str, Any]:
    """RobustBench's `model_info` keys, percent as text there; null where nothing was measured or nothing is published."""
    exam = d.config.validation.attack
    tested: dict[str, list[Row]] = {}
    for row in d.tests:
        tested.setdefault(row["attack"], []).append(row)
    strong = tested.get("autoattack", [])
    worst = standing(strong)
    clean = next((row["accuracy"] for row in tested.get("clean", [])), None)
    images = sorted({int(row["images"]) for rows in tested.values() for row in rows})
    return {
        "link": None,
        "name": f"{d.study}/{d.trial['trial_id']}",
        "authors": None,
        "additional_data": d.config.data.extra is not None,
        "number_forward_passes": 1,
        "dataset": d.config.data.name,
        "venue": None,
        "architecture": named(d.config.student),
        "threat_model": BALLS[exam.norm].title,
        "eps": fraction(exam.eps),
        "clean_acc": None if clean is None else f"{100 * clean:.2f}",
        "autoattack_acc": None if worst is None else f"{100 * worst:.2f}",
        "reported": None,
        "unreliable": any(summary.signs(row["flags"]) for row in strong) if strong else None,
        "test_images": images[0] if len(images) == 1 else images or None,
        "seeds": len(strong) or None,
        "method": name_of(d.config.method),
        "reconstructed": d.config.method.reconstructed is not None,
        "sha256": d.sha256,
    }


def standing(rows: Sequence[Row]) -> float | None:
    """The fraction of images that no seed broke; the worst seed's where the seeds saw different images; None without rows."""
    flags = [row["per_image"] for row in rows]
    if (
        not rows
        or len({row["subset_sha256"] for row in rows}) > 1
        or not all(flags)
        or len(set(map(len, flags))) > 1
    ):
        return min((float(row["accuracy"]) for row in rows), default=None)
    return sum(set(image) == {"1"} for image in zip(*flags, strict=True)) / len(flags[0])

"""RobustBench entry of an exported network, copied from the study's rows."""

from collections.abc import Sequence
from typing import Any

from rkdsearch.attacks import BALLS
from rkdsearch.exporting.exported_network import ExportedNetwork, Row, network_text
from rkdsearch.methods import name_of
from rkdsearch.results.cells import radius_text
from rkdsearch.results.flags import images_seen, signs_of_failure

SEEN = 0.01  # tolerated share of test images that the network was trained or chosen on


def entry(d: ExportedNetwork) -> dict[str, Any]:
    """RobustBench's `model_info` keys; accuracies are percentages as text.

    None where a value was not measured or not published.
    """
    attack = d.config.validation.attack
    tested: dict[str, list[Row]] = {}
    for row in d.tests:
        tested.setdefault(row["attack"], []).append(row)
    autoattack_rows = tested.get("autoattack", [])
    robust = robust_to_every_seed(autoattack_rows)
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
        "architecture": network_text(d.config.student),
        "threat_model": BALLS[attack.norm].title,
        "eps": radius_text(attack.eps),
        "clean_acc": None if clean is None else f"{100 * clean:.2f}",
        "autoattack_acc": None if robust is None else f"{100 * robust:.2f}",
        "reported": None,
        "unreliable": _unreliable(autoattack_rows),
        "test_images": images[0] if len(images) == 1 else images or None,
        "attack_seeds": len(autoattack_rows) or None,
        "test_openings": d.openings or None,
        "method": name_of(d.config.method),
        "reconstructed": d.config.method.reconstructed is not None,
        "sha256": d.sha256,
    }


def _unreliable(rows: Sequence[Row]) -> bool | None:
    """True with any sign of a failed attack, or with many images that are not new.

    None where nobody looked for some of them.
    """
    if any(signs_of_failure(row) or images_seen(row) > SEEN * row["images"] for row in rows):
        return True
    return None if not rows or any(row["flags"] is None for row in rows) else False


def robust_to_every_seed(rows: Sequence[Row]) -> float | None:
    """Fraction of images that are robust under every seed of AutoAttack; None without rows.

    The lowest accuracy of any seed where the seeds were run on different images.
    """
    flags = [row["per_image"] for row in rows]
    if (
        not rows
        or len({row["subset_sha256"] for row in rows}) > 1
        or not all(flags)
        or len(set(map(len, flags))) > 1
    ):
        return min((float(row["accuracy"]) for row in rows), default=None)
    return sum(set(image) == {"1"} for image in zip(*flags, strict=True)) / len(flags[0])

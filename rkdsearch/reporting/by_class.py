"""Accuracies by class of the networks on the front, for the page."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rkdsearch.reporting.tested import Kind, TestedRow
from rkdsearch.results.cells import parse
from rkdsearch.results.states import ATTACKS

_SHOWN = 20  # classes; of more, those that are least robust on average

Row = Mapping[str, Any]


def by_class(front: Sequence[Row], described: object) -> dict[str, Any] | None:
    """Class names, and for each network (clean, robust) of each class on validation images.

    `described` are the names in `study.json`; classes are called by their numbers without. None
    where no network has accuracies by class.
    """
    read = [(row, _values(row, "clean"), _values(row, "robust")) for row in front]
    found = [(row, clean, robust) for row, clean, robust in read if clean and robust]
    if not found:
        return None
    count = max(len(robust) for _, _, robust in found)
    names: Sequence[Any] = range(count)
    if isinstance(described, list) and len(described) >= count:
        names = described
    rows = [
        {
            "trial": row,
            "balanced": tuple(
                row.get(f"metric.by_class.balanced_{kind}_accuracy") for kind in ("clean", "robust")
            ),
            "cells": [(_at(clean, k), _at(robust, k)) for k in range(count)],
        }
        for row, clean, robust in found
    ]
    return _table(
        [str(name) for name in names],
        rows,
        images="validation images",
        attack="its robust accuracy",
        whose="at the best epoch of the run that was selected",
    )


def by_class_tested(networks: Sequence[TestedRow]) -> dict[str, Any] | None:
    """The same on test images, of the delivered networks of the front.

    Under the attack that leaves them least on average, of those that all of them met on the images
    of their clean accuracy. None where no test result has accuracies by class.
    """
    pairs = [
        (row, found)
        for row in networks
        if row.on_front and row.kind != Kind.MEANS and "clean" in row.tests
        if (found := {a: v for a, test in _on_same_images(row).items() if (v := _counts(test))})
    ]
    met = set.intersection(*(set(found) for _, found in pairs)) if pairs else set()
    if "clean" not in met or len(met) < 2:
        return None

    def left(attack: str) -> float:
        return sum(_balanced(found[attack]) for _, found in pairs)

    attack = min(sorted(met - {"clean"}), key=left)
    counts = sorted({int(row.tests["clean"]["images"]) for row, _ in pairs})
    names = list(dict.fromkeys(name for _, found in pairs for name in found["clean"]))
    rows = [
        {
            "trial": row.trial,
            "balanced": (_balanced(found["clean"]), _balanced(found[attack])),
            "cells": [(found["clean"].get(name), found[attack].get(name)) for name in names],
        }
        for row, found in pairs
    ]
    return _table(
        names,
        rows,
        images=f"{' or '.join(map(str, counts))} test images",
        attack=f"its accuracy under {ATTACKS.get(attack, attack)}",
        whose="of the delivered networks",
    )


def _on_same_images(row: TestedRow) -> dict[str, dict[str, Any]]:
    """The results on the very images of the clean one."""
    images = row.tests["clean"]["subset_sha256"]
    return {a: test for a, test in row.tests.items() if test["subset_sha256"] == images}


def _table(names: Sequence[str], rows: Sequence[dict[str, Any]], **said: str) -> dict[str, Any]:
    """Table of at most `_SHOWN` classes, the least robust on average."""

    def mean_robust(k: int) -> float:
        known = [row["cells"][k][1] for row in rows if row["cells"][k][1] is not None]
        return sum(known) / len(known) if known else 1.0

    count = len(rows[0]["cells"])
    chosen = sorted(sorted(range(count), key=mean_robust)[:_SHOWN])
    return {
        **said,
        "names": [names[k] for k in chosen],
        "left_out": count - len(chosen),
        "rows": [{**row, "cells": [row["cells"][k] for k in chosen]} for row in rows],
    }


def _balanced(accuracies: Mapping[str, float]) -> float:
    return sum(accuracies.values()) / len(accuracies)


def _counts(test: Row) -> dict[str, float]:
    """Accuracy of each class in a test result, by its name; empty where the row has none."""
    return {
        str(name): pair[0] / pair[1]
        for name, pair in parse(test.get("per_class")).items()
        if isinstance(pair, list) and len(pair) == 2 and pair[1]
    }


def _at(values: Sequence[float | None], k: int) -> float | None:
    return values[k] if k < len(values) else None


def _values(row: Row, kind: str) -> list[float | None]:
    text = row.get(f"metric.by_class.{kind}_accuracy")
    try:
        values = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        values = None
    return values if isinstance(values, list) else []

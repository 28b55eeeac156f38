"""Validation accuracies by class of the networks on the front, for the page."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

_SHOWN = 20  # classes; of more, those that are least robust on average

Row = Mapping[str, Any]


def by_class(front: Sequence[Row], described: object) -> dict[str, Any] | None:
    """Class names, and for each network (clean, robust) of each class, fractions of 1.

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

    def mean_robust(k: int) -> float:
        known = [v for _, _, robust in found if (v := _at(robust, k)) is not None]
        return sum(known) / len(known) if known else 1.0

    chosen = sorted(sorted(range(count), key=mean_robust)[:_SHOWN])
    return {
        "names": [str(names[k]) for k in chosen],
        "left_out": count - len(chosen),
        "rows": [
            {
                "trial": row,
                "cells": [(_at(clean, k), _at(robust, k)) for k in chosen],
            }
            for row, clean, robust in found
        ],
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

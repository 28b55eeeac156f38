"""Cells of a data frame as plain values, and the columns that many readers name."""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # half a second: a process of a gang writes no rows, and does without
    import pandas as pd

CLEAN, ROBUST = "metric.clean_accuracy", "metric.robust_accuracy"
PAIR = (CLEAN, ROBUST)
WORST_CLASS = "metric.worst_class_accuracy"
ACCURACIES = (CLEAN, ROBUST, WORST_CLASS)
METHOD = "config.method.name"
FULL_EPOCHS = "config.training.epochs"  # of the full run that the trial was made for


def records(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """Rows as plain values; None where a value is missing."""
    names = [str(name) for name in frame.columns]
    cells = frame.astype(object).to_numpy(copy=True)  # a frame of objects alone gives a view
    cells[frame.isna().to_numpy()] = None
    return [dict(zip(names, row, strict=True)) for row in cells.tolist()]


def parse(text: object) -> dict[str, Any]:
    """The object in a JSON column; empty for a null and for any other text."""
    found = _json(text)
    return found if isinstance(found, dict) else {}


def flags_of(text: object) -> list[str]:
    """The texts in a JSON list, such as `flags` and `warnings`; empty for any other text."""
    found = _json(text)
    return [str(flag) for flag in found] if isinstance(found, list) else []


def methods_of(trials: "pd.DataFrame") -> "pd.Series[str]":
    """The method of each trial; `unknown` where the rows hold no configuration."""
    if METHOD not in trials:
        import pandas as pd

        return pd.Series("unknown", index=trials.index, dtype="str")
    return trials[METHOD].fillna("unknown")


def _json(text: object) -> object:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None


def shares_of(text: object) -> list[float | None] | None:
    """The fractions of 1 in a JSON list, null for an unknown one; None for any other text."""
    found = _json(text)
    if not isinstance(found, list) or not all(isinstance(v, int | float | None) for v in found):
        return None
    return found


def radius_text(eps: float) -> str:
    """A ball's radius as papers write it: `8/255` for whole grey levels below 255, or `0.5`."""
    levels = round(255 * eps)
    return f"{levels}/255" if 0 < levels < 255 and abs(255 * eps - levels) < 1e-6 else f"{eps:g}"

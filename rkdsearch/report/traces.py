"""What all pictures share: rows, looks, hover texts, axes; as Plotly's JSON, plain values that the browser draws.

Colours that must follow the reader's light or dark theme are written `$ink`, `$faint`, `$paper`,
`$grid`: the page puts in the real ones. Points are SVG: Plotly's WebGL traces would need `eval`,
which the page forbids.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rkdsearch.results import summary
from rkdsearch.results.summary import CLEAN, METHOD, ROBUST

Row = Mapping[str, Any]
Figure = dict[str, Any]

ACCURACY = {"tickformat": ".3~p", "zeroline": False}

# Okabe and Ito's colours without black and yellow, which vanish on one of the two backgrounds;
# shapes tell the second seven from the first
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
_SHAPES = ("circle", "square", "triangle-up", "triangle-down", "pentagon", "hexagram")


@dataclass(frozen=True)
class Look:
    """How one method is drawn, everywhere."""

    colour: str
    shape: str


@dataclass(frozen=True)
class Panel:
    """One of several axes in a picture."""

    x: str
    y: str
    log: bool = False


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """A look for each method, by its place in the alphabet."""
    return {
        name: Look(_COLOURS[n % len(_COLOURS)], _SHAPES[n // len(_COLOURS) % len(_SHAPES)])
        for n, name in enumerate(sorted(set(methods)))
    }


def plain(text: object) -> str:
    """Text in which Plotly finds no markup."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def number(value: object) -> str:
    """A configuration's value in few characters."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def method_of(row: Row) -> str:
    """The row's method, as `summary.method_of` has it."""
    return str(row.get(METHOD) or "unknown")


def title(row: Row) -> str:
    """How the page calls a trial: its label, or its method and name."""
    return str(row["label"] or f"{method_of(row)} · {row['trial_id']}")


def settings(row: Row) -> str:
    """What was searched, in one line."""
    return ", ".join(
        f"{name} = {number(value)}" for name, value in summary.parse(row["hyperparameters"]).items()
    )


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction of 1 for the eye."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def points(name: str, rows: Sequence[Row], marker: Figure, more: Figure) -> Figure:
    """Trials as points that tell their configuration when hovered over."""
    return {
        "name": name,
        "mode": "markers",
        "x": [row[CLEAN] for row in rows],
        "y": [row[ROBUST] for row in rows],
        "marker": marker,
        "customdata": [_hover(row) for row in rows],
        "hovertemplate": "%{customdata}<extra></extra>",
        **more,
    }


def _hover(row: Row) -> str:
    lines = [f"<b>{plain(title(row))}</b>", f"clean {row[CLEAN]:.1%} · robust {row[ROBUST]:.1%}"]
    if row["seeds"]:
        lines.append(f"means over {row['seeds']} fresh seeds")
    lines.append(
        f"{plain(row['status'])}, epoch {row['fidelity.epochs']} of {row['fidelity.of_epochs']}"
    )
    if row["reconstructed"]:
        lines.append("RECONSTRUCTED method")
    lines += [
        f"{plain(name)} = {plain(number(value))}"
        for name, value in summary.parse(row["hyperparameters"]).items()
    ]
    return "<br>".join(lines)


def is_number(value: object) -> bool:
    """Whether a stranger's value can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def figure(traces: Sequence[Figure], height: int, layout: Figure) -> Figure:
    """A picture `height` pixels high, as wide as the page."""
    return {
        "data": [{"type": "scatter", **trace} for trace in traces],
        "layout": {"height": height, **layout},
    }


def panels_figure(
    traces: Sequence[Figure], height: int, panels: Sequence[Panel], columns: int
) -> Figure:
    """A picture of several axes, `columns` of them side by side; traces name theirs, `x`, `x2`, ..."""
    axes: Figure = {}
    for n, panel in enumerate(panels):
        axis = "" if n == 0 else str(n + 1)
        kind = {"type": "log", "exponentformat": "power"} if panel.log else {"type": "linear"}
        axes[f"xaxis{axis}"] = {"title": {"text": plain(panel.x)}, "zeroline": False, **kind}
        axes[f"yaxis{axis}"] = {"title": {"text": plain(panel.y)}, **ACCURACY}
    grid = {
        "rows": -(-len(panels) // columns),
        "columns": columns,
        "pattern": "independent",
        "xgap": 0.14,
        "ygap": 0.3,
    }
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    return figure(traces, height, {"grid": grid, "legend": legend, **axes})

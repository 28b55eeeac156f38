"""Parts of every picture: looks, hover texts, axes. A picture is Plotly's JSON in plain values.

`$ink`, `$faint`, `$paper` and `$grid` are colours of the reader's light or dark theme, which the
page fills in. Points are SVG: Plotly's WebGL traces would need `eval`,
which the page forbids.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rkdsearch.results.cells import CLEAN, METHOD, ROBUST, parse

Row = Mapping[str, Any]
Figure = dict[str, Any]

RING = {"symbol": "circle-open", "size": 17, "color": "$ink", "line": {"width": 1.2}}
ACCURACY = {"tickformat": ".3~p", "zeroline": False}

# Okabe and Ito's colours without black and yellow, which vanish on one of the two backgrounds;
# shapes tell the second seven from the first
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
_SHAPES = ("circle", "square", "triangle-up", "triangle-down", "pentagon", "hexagram")
_DIAMONDS = ("diamond", "diamond-wide", "diamond-tall", "star-diamond")


@dataclass(frozen=True)
class Look:
    """Colour and shape of a method, the same in every picture, and the shape of its baselines."""

    colour: str
    shape: str
    baseline: str


@dataclass(frozen=True)
class Panel:
    """A pair of axes, one of several in a picture."""

    x: str
    y: str
    log: bool = False


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """One look a method, by alphabetical order."""

    def look(n: int) -> Look:
        turn, colour = divmod(n, len(_COLOURS))
        shapes = _SHAPES[turn % len(_SHAPES)], _DIAMONDS[turn % len(_DIAMONDS)]
        return Look(_COLOURS[colour], *shapes)

    return {name: look(n) for n, name in enumerate(sorted(set(methods)))}


def escaped(text: object) -> str:
    """Text with escaped markup."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def number(value: object) -> str:
    """A value with at most four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def method_of(row: Row) -> str:
    """The method of a row; `unknown` where it holds no configuration."""
    return str(row.get(METHOD) or "unknown")


def title(row: Row) -> str:
    """Title of a trial: its label, or its method and name."""
    return str(row["label"] or f"{method_of(row)} · {row['trial_id']}")


def settings(row: Row) -> str:
    """The hyperparameters of a row in one line."""
    return ", ".join(
        f"{name} = {number(value)}" for name, value in parse(row["hyperparameters"]).items()
    )


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction of 1 in percent; a dash for None."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def points(name: str, rows: Sequence[Row], marker: Figure, more: Figure) -> Figure:
    """Trials as points whose hover text is their configuration."""
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
    lines = [f"<b>{escaped(title(row))}</b>", f"clean {row[CLEAN]:.1%} · robust {row[ROBUST]:.1%}"]
    if row["seeds"]:
        lines.append(f"means over {row['seeds']} replicates")
    lines.append(
        f"{escaped(row['status'])}, epoch {row['fidelity.epochs']} of {row['fidelity.of_epochs']}"
    )
    if row["reconstructed"]:
        lines.append("RECONSTRUCTED method")
    lines += [
        f"{escaped(name)} = {escaped(number(value))}"
        for name, value in parse(row["hyperparameters"]).items()
    ]
    return "<br>".join(lines)


def is_number(value: object) -> bool:
    """True for a finite number; false for any other value of a JSON text."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def figure(traces: Sequence[Figure], height: int, layout: Figure) -> Figure:
    """A picture of `height` pixels, as wide as the page."""
    return {
        "data": [{"type": "scatter", **trace} for trace in traces],
        "layout": {"height": height, **layout},
    }


def panels_figure(
    traces: Sequence[Figure], height: int, panels: Sequence[Panel], columns: int
) -> Figure:
    """A picture of several panels, `columns` side by side. Traces name their axes: x, x2, ..."""
    axes: Figure = {}
    for n, panel in enumerate(panels):
        axis = "" if n == 0 else str(n + 1)
        kind = {"type": "log", "exponentformat": "power"} if panel.log else {"type": "linear"}
        axes[f"xaxis{axis}"] = {"title": {"text": escaped(panel.x)}, "zeroline": False, **kind}
        axes[f"yaxis{axis}"] = {"title": {"text": escaped(panel.y)}, **ACCURACY}
    grid = {
        "rows": -(-len(panels) // columns),
        "columns": columns,
        "pattern": "independent",
        "xgap": 0.14,
        "ygap": 0.3,
    }
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    return figure(traces, height, {"grid": grid, "legend": legend, **axes})

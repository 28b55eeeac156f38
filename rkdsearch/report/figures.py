"""The page's pictures, as Plotly's JSON: traces and layouts of plain values, drawn by the browser.

Colours that must follow the reader's light or dark theme are written `$ink`, `$faint` and `$paper`; the page puts in the real ones.
Points are SVG: Plotly's WebGL traces would need `eval`, which the page forbids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rkdsearch.results import summary
from rkdsearch.results.summary import CLEAN, METHOD, ROBUST

Row = Mapping[str, Any]
Figure = dict[str, Any]

# Okabe and Ito's colours without black and yellow, which vanish on one of the two backgrounds; shapes tell the second seven from the first
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
_SHAPES = ("circle", "square", "triangle-up", "triangle-down", "pentagon", "hexagram")
_CURVES = 80  # more lines than this are a carpet, and slow
_LABELS = 12  # more labels than this hide each other; hovering still names every point
_AXES = {"xaxis": "clean", "yaxis": "robust"}
_ACCURACY = {"tickformat": ".0%", "zeroline": False}


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
        name: Look(_COLOURS[n % len(_COLOURS)], _SHAPES[n // len(_COLOURS) % len(_SHAPES)]) for n, name in enumerate(sorted(set(methods)))
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


def pareto(trials: Sequence[Row], front: Sequence[Row], teachers: Mapping[str, Row]) -> Figure:
    """Every measured trial, clean against robust: full for finished, hollow for the rest; the front, published settings, teachers."""
    measured = [row for row in trials if row[CLEAN] is not None and row[ROBUST] is not None]
    style = looks([method_of(row) for row in trials])
    edge = {
        "name": "front",
        "mode": "lines",
        # what a point dominates lies below and to its left: the edge goes down first, then right
        "x": [row[CLEAN] for row in front],
        "y": [row[ROBUST] for row in front],
        "line": {"shape": "vh", "width": 2, "color": "$ink"},
        "hoverinfo": "skip",
    }
    traces = [edge]
    for finished in (False, True):
        rows = [row for row in measured if (row["status"] == "finished") == finished]
        for name, look in style.items():
            searched = [row for row in rows if method_of(row) == name and row["origin"] != "first"]
            marker = {"symbol": look.shape if finished else f"{look.shape}-open", "color": look.colour, "size": 9 if finished else 7}
            # one legend entry a method, also for a method that has no finished trial
            more = {"opacity": 1.0 if finished else 0.5, "legendgroup": name, "showlegend": finished, "legendrank": 1000}
            traces.append(_points(plain(name), searched, marker, more))
        traces += _published([row for row in rows if row["origin"] == "first"], style, finished=finished)
    traces += [_teacher(role, teacher) for role, teacher in teachers.items() if _is_number(teacher.get("clean_accuracy"))]
    layout: Figure = {axis: {"title": {"text": f"{name} accuracy (validation)"}, **_ACCURACY} for axis, name in _AXES.items()}
    return _figure(traces, 580, {**layout, **_closer([row for row in measured if row["status"] == "finished"])})


def _published(rows: Sequence[Row], style: Mapping[str, Look], *, finished: bool) -> list[Figure]:
    if not rows:
        return []
    ordered = sorted(rows, key=lambda row: float(row[CLEAN]))
    line = {"width": 1.5, "color": "$ink"}
    marker = {
        "symbol": "diamond" if finished else "diamond-open",
        "size": 13,
        "color": [style[method_of(r)].colour for r in ordered],
        "line": line,
    }
    more: Figure = {"legendrank": 900}
    if len(ordered) <= _LABELS:
        sides = ("middle left", "bottom center", "middle right", "top center")  # neighbours write to different sides
        places = [sides[n % len(sides)] for n in range(len(ordered))]
        more |= {"mode": "markers+text", "text": [plain(title(row)) for row in ordered], "textposition": places, "textfont": {"size": 11}}
    return [_points("published setting" if finished else "published, unfinished", ordered, marker, more)]


def _teacher(role: str, teacher: Row) -> Figure:
    name = f"{plain(role)} teacher"
    return {
        "name": name,
        "mode": "markers",
        "x": [teacher["clean_accuracy"]],
        "y": [teacher.get("robust_accuracy")],
        "marker": {"symbol": "star", "size": 17, "color": "$paper", "line": {"width": 1.8, "color": "$ink"}},
        "legendrank": 950,
        "hovertemplate": f"<b>{name}</b><br>{plain(teacher.get('label') or '')}<br>clean %{{x:.1%}} · robust %{{y:.1%}}<extra></extra>",
    }


def _closer(finished: Sequence[Row]) -> Figure:
    """Two buttons, where undefended students squeeze the others into a corner: everything, or those at least half as robust as the best."""
    best = max((row[ROBUST] for row in finished), default=0.0)
    near = [row for row in finished if row[ROBUST] >= best / 2]
    if len(near) == len(finished):
        return {}
    ranges: Figure = {}
    for axis, key in (("xaxis", CLEAN), ("yaxis", ROBUST)):
        low, high = min(row[key] for row in near), max(row[key] for row in near)
        ranges[f"{axis}.range"] = [low - 0.08 * (high - low) - 0.002, high + 0.08 * (high - low) + 0.002]
    everything = {f"{axis}.autorange": True for axis in _AXES}
    buttons = [
        {"label": label, "method": "relayout", "args": [args]} for label, args in (("all trials", everything), ("robust trials", ranges))
    ]
    place = {
        "type": "buttons",
        "direction": "right",
        "x": 0,
        "y": 1.02,
        "xanchor": "left",
        "yanchor": "bottom",
        "pad": {"t": 0},
        "showactive": False,
    }
    return {"updatemenus": [{**place, "buttons": buttons, "bgcolor": "$paper", "bordercolor": "$faint"}]}


def curves(trials: Sequence[Row], epochs: Sequence[Row], front: Sequence[Row]) -> Figure | None:
    """Robust (left) and clean (right) accuracy over epochs: the front's trials in colour, the others faint."""
    by_trial: dict[str, list[Row]] = {}
    for row in epochs:
        if row["robust_accuracy"] is not None:
            by_trial.setdefault(row["trial_id"], []).append(row)
    if not by_trial:
        return None
    style = looks([method_of(row) for row in trials])
    chosen = {row["trial_id"] for row in front}
    others = [row for row in trials if row["trial_id"] in by_trial and row["trial_id"] not in chosen][: max(0, _CURVES - len(chosen))]
    traces = []
    for row in [*others, *(row for row in front if row["trial_id"] in by_trial)]:
        points = by_trial[row["trial_id"]]
        on_front = row["trial_id"] in chosen
        for axis, key in (("", "robust_accuracy"), ("2", "clean_accuracy")):
            traces.append(
                {
                    "name": plain(title(row)),
                    "legendgroup": row["trial_id"],
                    "showlegend": on_front and not axis,
                    "mode": "lines",
                    "x": [point["epoch"] for point in points],
                    "y": [point[key] for point in points],
                    "xaxis": f"x{axis}",
                    "yaxis": f"y{axis}",
                    "line": {"width": 2.2 if on_front else 1, "color": style[method_of(row)].colour if on_front else "$faint"},
                    "hovertemplate": f"{plain(title(row))}<br>epoch %{{x}}: %{{y:.1%}}<extra></extra>" if on_front else None,
                    "hoverinfo": None if on_front else "skip",
                }
            )
    return _panels(traces, 400, [Panel("epoch", "robust accuracy"), Panel("epoch", "clean accuracy")], columns=2)


def reliability(epochs: Sequence[Row], front: Sequence[Row]) -> Figure | None:
    """What the teacher knew about the images that the front's students were trained on, in the last epoch: three shares."""
    last = {row["trial_id"]: row for row in epochs if row["teacher.right_on_adversarial"] is not None}
    rows = [(row, last[row["trial_id"]]) for row in front if row["trial_id"] in last]
    if not rows:
        return None
    shares = (
        ("right on x'", "right_on_adversarial", "#0072B2"),
        ("right on x only", "right_on_clean_only", "#E69F00"),
        ("wrong on both", "wrong_on_both", "#D55E00"),
    )
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": [plain(title(row)) for row, _ in rows],
            "x": [epoch[f"teacher.{key}"] for _, epoch in rows],
            "marker": {"color": colour},
            "hovertemplate": f"%{{y}}<br>teacher {name}: %{{x:.1%}}<extra></extra>",
        }
        for name, key, colour in shares
    ]
    layout = {
        "barmode": "stack",
        "xaxis": {**_ACCURACY, "range": [0, 1]},
        "yaxis": {"automargin": True},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
    }
    return _figure(traces, 110 + 30 * len(rows), layout)


def slices(trials: Sequence[Row]) -> Figure | None:
    """Robust accuracy of finished trials against each number that was searched, coloured by method."""
    finished = [row for row in trials if row["status"] == "finished" and row[ROBUST] is not None]
    sampled = [(row, summary.parse(row["sampled"])) for row in finished]
    names = sorted({name for _, values in sampled for name, value in values.items() if _is_number(value)})
    varied = [name for name in names if len({values[name] for _, values in sampled if _is_number(values.get(name))}) > 1]
    if not varied:
        return None
    style = looks([method_of(row) for row in trials])
    traces: list[Figure] = []
    panels: list[Panel] = []
    shown: set[str] = set()
    for n, name in enumerate(varied):
        axis = "" if n == 0 else str(n + 1)
        numbers = [(row, values[name]) for row, values in sampled if _is_number(values.get(name))]
        low, high = min(value for _, value in numbers), max(value for _, value in numbers)
        panels.append(Panel(name, "robust accuracy" if n % 3 == 0 else "", log=low > 0 and high / low >= 8))
        for method, look in style.items():
            pairs = [(row, value) for row, value in numbers if method_of(row) == method]
            if pairs:
                marker = {"symbol": look.shape, "color": look.colour, "size": 7}
                more = {"legendgroup": method, "showlegend": method not in shown}
                trace = _points(plain(method), [row for row, _ in pairs], marker, more)
                shown.add(method)
                traces.append({**trace, "x": [value for _, value in pairs], "xaxis": f"x{axis}", "yaxis": f"y{axis}"})
    return _panels(traces, 300 * ((len(varied) + 2) // 3), panels, columns=min(3, len(varied)))


def title(row: Row) -> str:
    """How the page calls a trial: its label, or its method and name."""
    return str(row["label"] or f"{method_of(row)} · {row['trial_id']}")


def _points(name: str, rows: Sequence[Row], marker: Figure, more: Figure) -> Figure:
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
    lines.append(f"{plain(row['status'])}, epoch {row['fidelity.epochs']} of {row['fidelity.of_epochs']}")
    if row["reconstructed"]:
        lines.append("RECONSTRUCTED method")
    lines += [f"{plain(name)} = {plain(number(value))}" for name, value in summary.parse(row["sampled"]).items()]
    return "<br>".join(lines)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _figure(traces: Sequence[Figure], height: int, layout: Figure) -> Figure:
    return {"data": [{"type": "scatter", **trace} for trace in traces], "layout": {"height": height, **layout}}


def _panels(traces: Sequence[Figure], height: int, panels: Sequence[Panel], columns: int) -> Figure:
    axes: Figure = {}
    for n, panel in enumerate(panels):
        axis = "" if n == 0 else str(n + 1)
        axes[f"xaxis{axis}"] = {"title": {"text": plain(panel.x)}, "type": "log" if panel.log else "linear", "zeroline": False}
        axes[f"yaxis{axis}"] = {"title": {"text": plain(panel.y)}, **_ACCURACY}
    grid = {"rows": -(-len(panels) // columns), "columns": columns, "pattern": "independent", "xgap": 0.14, "ygap": 0.3}
    return _figure(traces, height, {"grid": grid, **axes})

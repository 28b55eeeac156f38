"""The page's pictures."""

from collections.abc import Callable, Mapping, Sequence

from rkdsearch.report import labels
from rkdsearch.report.traces import (
    ACCURACY,
    Figure,
    Look,
    Panel,
    Row,
    figure,
    is_number,
    looks,
    method_of,
    panels_figure,
    plain,
    points,
    title,
)
from rkdsearch.results import summary
from rkdsearch.results.objectives import COSTS, OBJECTIVES
from rkdsearch.results.pareto import non_dominated
from rkdsearch.results.states import Origin
from rkdsearch.results.summary import CLEAN, ROBUST

View = Mapping[str, tuple[float, float]]  # limits by metric
# where on the picture clean and robust accuracy are
Place = Callable[[float, float], tuple[float, float]]

_CURVES = 80  # more lines than this are a carpet, and slow
_PLOT = (860.0, 470.0)  # pixels inside the axes of the Pareto picture, on a page of full width
_RING = {"symbol": "circle-open", "size": 17, "color": "$ink", "line": {"width": 1.2}}
_AXES = {"xaxis": "clean", "yaxis": "robust"}
# Plotly's words
_SIDES = {
    "right": "middle right",
    "left": "middle left",
    "top": "top center",
    "bottom": "bottom center",
}


def pareto(trials: Sequence[Row], front: Sequence[Row], teachers: Mapping[str, Row]) -> Figure:
    """Every measured configuration, clean against robust: full for finished, hollow for the rest; the front, baselines, teachers.

    The line is the front's edge in these two accuracies. Whoever is on it for another objective's
    sake has a ring. `trials` are the rows of `summary.configurations`: who was repeated stands at
    its means, with bars of one deviation over seeds.
    """
    measured = [row for row in trials if row[CLEAN] is not None and row[ROBUST] is not None]
    style = looks([method_of(row) for row in trials])
    view = closer_view(measured, teachers)
    corners = edge_of(front)
    edge: Figure = {
        "name": "front",
        "mode": "lines",
        # what a point dominates lies below and to its left: the edge goes down first, then right
        "x": [row[CLEAN] for row in corners],
        "y": [row[ROBUST] for row in corners],
        "line": {"shape": "vh", "width": 2, "color": "$ink"},
        "hoverinfo": "skip",
    }
    traces = [edge]
    for finished in (False, True):
        rows = [row for row in measured if (row["status"] == "finished") == finished]
        for name, look in style.items():
            searched = [
                row for row in rows if method_of(row) == name and row["origin"] != Origin.BASELINE
            ]
            marker = {
                "symbol": look.shape if finished else f"{look.shape}-open",
                "color": look.colour,
                "size": 9 if finished else 7,
            }
            more: Figure = {
                "opacity": 1.0 if finished else 0.5,
                "legendgroup": plain(name),
                "showlegend": finished,
                "legendrank": 1000,
            }
            more |= _bars(searched, look.colour)
            # a point without a place: a method that only baselines used has its legend entry too
            nowhere: Figure = {} if searched else {"x": [None], "y": [None], "customdata": [""]}
            traces.append(points(plain(name), searched, marker, more | nowhere))
        baselines = [row for row in rows if row["origin"] == Origin.BASELINE]
        if baselines:
            sides = (
                _sides(baselines, measured, corners, view) if finished else [None] * len(baselines)
            )
            traces.append(_baselines(baselines, style, sides, finished=finished))
    behind = [row for row in front if row not in corners]
    if behind:
        traces.append(points("front, by another objective", behind, _RING, {"legendrank": 800}))
    traces += [_teacher(role, teacher) for role, teacher in drawable(teachers).items()]
    layout: Figure = {
        axis: {"title": {"text": f"{name} accuracy (validation)"}, **ACCURACY}
        for axis, name in _AXES.items()
    }
    outside = [
        row
        for row in measured
        if not all(low <= row[key] <= high for key, (low, high) in view.items())
    ]
    if outside:
        for (axis, settings), limits in zip(layout.items(), view.values(), strict=True):
            layout[axis] = {**settings, "range": list(limits)}
        layout["updatemenus"] = [_views(view, len(outside))]
    return figure(traces, 580, layout)


def edge_of(front: Sequence[Row]) -> list[Row]:
    """Those of the front whom no other dominates in clean and robust accuracy alone, by clean accuracy: all, where it is named by these two."""
    kept = non_dominated([[row[CLEAN], row[ROBUST]] for row in front])
    return sorted(
        (row for row, on in zip(front, kept, strict=True) if on),
        key=lambda row: (row[CLEAN], -row[ROBUST]),
    )


def _sides(
    baselines: Sequence[Row], measured: Sequence[Row], front: Sequence[Row], view: View
) -> list[labels.Side | None]:
    (x0, x1), (y0, y1) = view[CLEAN], view[ROBUST]

    def at(clean: float, robust: float) -> tuple[float, float]:
        return (clean - x0) / (x1 - x0) * _PLOT[0], (y1 - robust) / (y1 - y0) * _PLOT[1]

    return labels.place(
        [at(row[CLEAN], row[ROBUST]) for row in baselines],
        [title(row) for row in baselines],
        obstacles(measured, front, at),
        _PLOT,
    )


def obstacles(
    measured: Sequence[Row], front: Sequence[Row], at: Place
) -> list[tuple[float, float]]:
    """What a label must not cover: marks with their bars, and the front's edge."""
    found = [at(row[CLEAN], row[ROBUST]) for row in measured] + labels.along(
        [at(row[CLEAN], row[ROBUST]) for row in front]
    )
    for row in measured:
        for start, end in bars(row):
            found += labels.between(at(*start), at(*end))
    return found


def bars(row: Row) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Both ends (clean, robust) of a repeated row's two bars, one standard deviation over seeds to each side; none where one seed has none."""
    (x, y), (dx, dy) = (row[CLEAN], row[ROBUST]), (row["clean_sd"], row["robust_sd"])
    return (
        [] if dx is None or dy is None else [((x - dx, y), (x + dx, y)), ((x, y - dy), (x, y + dy))]
    )


def _baselines(
    rows: Sequence[Row],
    style: Mapping[str, Look],
    sides: Sequence[labels.Side | None],
    *,
    finished: bool,
) -> Figure:
    marker = {
        "symbol": "diamond" if finished else "diamond-open",
        "size": 13,
        "color": [style[method_of(row)].colour for row in rows],
        "line": {"width": 1.5, "color": "$ink"},
    }
    more = {
        "legendrank": 900,
        "mode": "markers+text",
        "text": [
            f"&nbsp;{plain(title(row))}&nbsp;" if side else ""
            for row, side in zip(rows, sides, strict=True)
        ],
        "textposition": [_SIDES.get(side or "right", side) for side in sides],
        "textfont": {"size": 11},
        **_bars(rows, "$ink"),
    }
    return points("baseline" if finished else "baseline, unfinished", rows, marker, more)


def _bars(rows: Sequence[Row], colour: str) -> Figure:
    """One standard deviation over fresh seeds to each side, both ways."""
    if not any(row["seeds"] for row in rows):
        return {}
    look = {"type": "data", "thickness": 1.2, "width": 0, "color": colour}
    return {
        f"error_{axis}": {**look, "array": [row[f"{name}_sd"] for row in rows]}
        for axis, name in (("x", "clean"), ("y", "robust"))
    }


def drawable(teachers: object) -> dict[str, Row]:
    """Those of study.json's teachers, by role, whose place is known."""
    known = teachers.items() if isinstance(teachers, Mapping) else ()
    keys = [f"{name}_accuracy" for name in _AXES.values()]
    return {
        str(role): facts
        for role, facts in known
        if isinstance(facts, Mapping) and all(is_number(facts.get(key)) for key in keys)
    }


def _teacher(role: str, teacher: Row) -> Figure:
    name = f"{plain(role)} teacher"
    return {
        "name": name,
        "mode": "markers",
        "x": [teacher["clean_accuracy"]],
        "y": [teacher["robust_accuracy"]],
        "marker": {
            "symbol": "star",
            "size": 17,
            "color": "$paper",
            "line": {"width": 1.8, "color": "$ink"},
        },
        "legendrank": 950,
        "hovertemplate": (
            f"<b>{name}</b><br>{plain(teacher.get('label') or '')}<br>clean %{{x:.1%}} · robust"
            " %{y:.1%}<extra></extra>"
        ),
    }


def robust(rows: Sequence[Row]) -> list[Row]:
    """The rows at least half as robust as the most robust: undefended students would squeeze all others into a corner of a picture."""
    best = max((row[ROBUST] for row in rows), default=0.0)
    return [row for row in rows if row[ROBUST] >= best / 2]


def closer_view(measured: Sequence[Row], teachers: object) -> View:
    """The limits of both axes around the `robust` finished trials, all that was measured where none has finished, and robust teachers."""
    near = robust([row for row in measured if row["status"] == "finished"]) or list(measured)
    taught = [
        {CLEAN: facts["clean_accuracy"], ROBUST: facts["robust_accuracy"]}
        for facts in drawable(teachers).values()
    ]
    near += [row for row in robust([*near, *taught]) if row in taught]
    view = {}
    for key in summary.PAIR:
        values = [row[key] for row in near] or [0.0, 1.0]
        margin = 0.1 * (max(values) - min(values)) + 0.005
        view[key] = (min(values) - margin, max(values) + margin)
    return view


def _views(view: View, outside: int) -> Figure:
    """Two buttons: the closer view, which says how many marks it leaves out, and everything."""
    closer = {
        f"{axis}.range": list(limits) for axis, limits in zip(_AXES, view.values(), strict=True)
    }
    choices = (
        (f"closer view: {outside} marks lie outside", closer),
        ("all trials", {f"{axis}.autorange": True for axis in _AXES}),
    )
    buttons = [{"label": label, "method": "relayout", "args": [args]} for label, args in choices]
    place = {
        "type": "buttons",
        "direction": "right",
        "x": 0,
        "y": 1.01,
        "xanchor": "left",
        "yanchor": "bottom",
        "showactive": False,
    }
    return {**place, "buttons": buttons, "bgcolor": "$paper", "bordercolor": "$grid"}


def curves(trials: Sequence[Row], epochs: Sequence[Row], front: Sequence[Row]) -> Figure | None:
    """Robust (left) and clean (right) accuracy over epochs: the front's trials in colour, the others faint."""
    by_trial: dict[str, list[Row]] = {}
    for row in epochs:
        if row["robust_accuracy"] is not None:
            seen = by_trial.setdefault(row["trial_id"], [])
            if seen and (seen[-1]["segment"] or 0) < (row["segment"] or 0):
                # trained afresh: the earlier run, under a weaker attack, is another curve
                seen.clear()
            seen.append(row)
    if not by_trial:
        return None
    style = looks([method_of(row) for row in trials])
    chosen = {row["trial_id"] for row in front}
    others = [
        row for row in trials if row["trial_id"] in by_trial and row["trial_id"] not in chosen
    ][: max(0, _CURVES - len(chosen))]
    traces = []
    for row in [*others, *(row for row in front if row["trial_id"] in by_trial)]:
        seen = by_trial[row["trial_id"]]
        on_front = row["trial_id"] in chosen
        for axis, key in (("", "robust_accuracy"), ("2", "clean_accuracy")):
            traces.append(
                {
                    "name": plain(title(row)),
                    "legendgroup": plain(row["trial_id"]),
                    "showlegend": on_front and not axis,
                    "mode": "lines",
                    "x": [point["epoch"] for point in seen],
                    "y": [point[key] for point in seen],
                    "xaxis": f"x{axis}",
                    "yaxis": f"y{axis}",
                    "line": {
                        "width": 2.2 if on_front else 1,
                        "color": style[method_of(row)].colour if on_front else "$faint",
                    },
                    "hovertemplate": (
                        f"{plain(title(row))}<br>epoch %{{x}}: %{{y:.1%}}<extra></extra>"
                        if on_front
                        else None
                    ),
                    "hoverinfo": None if on_front else "skip",
                }
            )
    return panels_figure(
        traces,
        440,
        [Panel("epoch", "robust accuracy"), Panel("epoch", "clean accuracy")],
        columns=2,
    )


def costs(trials: Sequence[Row], front: Sequence[Row]) -> Figure | None:
    """Robust (above) and clean (below) accuracy of finished trials against what their students cost; None where all students are one size."""
    finished = [
        row
        for row in trials
        if row["status"] == "finished" and row[CLEAN] is not None and row[ROBUST] is not None
    ]
    varied = [
        OBJECTIVES[name]
        for name in COSTS
        if len({row[OBJECTIVES[name].column] for row in finished} - {None}) > 1
    ]
    style = looks([method_of(row) for row in trials])
    chosen = {row["trial_id"] for row in front}
    traces: list[Figure] = []
    panels: list[Panel] = []
    for accuracy, name in ((ROBUST, "robust accuracy"), (CLEAN, "clean accuracy")):
        for cost in varied:
            axis = "" if not panels else str(len(panels) + 1)
            first = not panels
            panels.append(Panel(cost.heading, name if cost is varied[0] else "", log=True))
            counted = [row for row in finished if row[cost.column] is not None]
            place = {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}
            for method, look in style.items():
                rows = [row for row in counted if method_of(row) == method]
                more: Figure = {
                    "x": [row[cost.column] for row in rows],
                    "y": [row[accuracy] for row in rows],
                    **place,
                }
                marker = {"symbol": look.shape, "color": look.colour, "size": 8}
                if rows:
                    traces.append(
                        points(
                            plain(method),
                            rows,
                            marker,
                            more | {"legendgroup": plain(method), "showlegend": first},
                        )
                    )
            rows = [row for row in counted if row["trial_id"] in chosen]
            more = {
                "x": [row[cost.column] for row in rows],
                "y": [row[accuracy] for row in rows],
                **place,
                "legendgroup": "front",
            }
            traces.append(points("front", rows, _RING, more | {"showlegend": first}))
    return panels_figure(traces, 640, panels, columns=len(varied)) if panels else None


def reliability(epochs: Sequence[Row], front: Sequence[Row]) -> Figure | None:
    """What the teacher knew about the images that the front's students were trained on, in the last epoch: three shares."""
    last = {
        row["trial_id"]: row for row in epochs if row["teacher.right_on_adversarial"] is not None
    }
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
        "xaxis": {**ACCURACY, "range": [0, 1]},
        "yaxis": {"autorange": "reversed"},  # the table's order
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
    }
    return figure(traces, 110 + 30 * len(rows), layout)


def slices(trials: Sequence[Row]) -> Figure | None:
    """Robust accuracy of `robust` finished trials against each number that was searched, coloured by method."""
    finished = robust(
        [row for row in trials if row["status"] == "finished" and row[ROBUST] is not None]
    )
    chosen = [(row, summary.parse(row["hyperparameters"])) for row in finished]
    names = sorted(
        {name for _, values in chosen for name, value in values.items() if is_number(value)}
    )
    varied = [
        name
        for name in names
        if len({values[name] for _, values in chosen if is_number(values.get(name))}) > 1
    ]
    if not varied:
        return None
    style = looks([method_of(row) for row in trials])
    traces: list[Figure] = []
    panels: list[Panel] = []
    shown: set[str] = set()
    for n, name in enumerate(varied):
        axis = "" if n == 0 else str(n + 1)
        numbers = [(row, values[name]) for row, values in chosen if is_number(values.get(name))]
        low, high = min(value for _, value in numbers), max(value for _, value in numbers)
        panels.append(
            Panel(name, "robust accuracy" if n % 3 == 0 else "", log=low > 0 and high / low >= 8)
        )
        for method, look in style.items():
            pairs = [(row, value) for row, value in numbers if method_of(row) == method]
            if pairs:
                marker = {"symbol": look.shape, "color": look.colour, "size": 7}
                more = {"legendgroup": plain(method), "showlegend": method not in shown}
                trace = points(plain(method), [row for row, _ in pairs], marker, more)
                shown.add(method)
                traces.append(
                    {
                        **trace,
                        "x": [value for _, value in pairs],
                        "xaxis": f"x{axis}",
                        "yaxis": f"y{axis}",
                    }
                )
    return panels_figure(
        traces, 90 + 270 * ((len(varied) + 2) // 3), panels, columns=min(3, len(varied))
    )

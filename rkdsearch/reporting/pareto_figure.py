"""The Pareto picture: clean against robust accuracy of every trial."""

from collections.abc import Callable, Mapping, Sequence

from rkdsearch.reporting import labels
from rkdsearch.reporting.traces import (
    ACCURACY,
    RING,
    Figure,
    Look,
    Row,
    escaped,
    figure,
    is_number,
    looks,
    method_of,
    points,
    title,
)
from rkdsearch.results.cells import CLEAN, PAIR, ROBUST
from rkdsearch.results.front import of_full_length
from rkdsearch.results.pareto import non_dominated
from rkdsearch.results.states import Origin

View = Mapping[str, tuple[float, float]]  # limits of an axis, by metric
# place in the picture of (clean accuracy, robust accuracy)
Place = Callable[[float, float], tuple[float, float]]

_PLOT = (860.0, 470.0)  # pixels inside the axes, on a page of full width
_AXES = {"xaxis": "clean", "yaxis": "robust"}
_SIDES = {  # Plotly's words
    "right": "middle right",
    "left": "middle left",
    "top": "top center",
    "bottom": "bottom center",
}


def pareto(trials: Sequence[Row], front: Sequence[Row], teachers: Mapping[str, Row]) -> Figure:
    """Clean against robust accuracy of configurations, with the front, baselines and teachers.

    Marks are filled for finished trials, hollow for others and for those of a shorter full run. The
    line is the front's edge in these two accuracies; trials on the front for another objective have
    a ring. `trials` are the rows of `front.configurations`: replicated ones stand at their means,
    with bars of one deviation.
    """
    measured = [row for row in trials if row[CLEAN] is not None and row[ROBUST] is not None]
    style = looks([method_of(row) for row in trials])
    view = default_view(measured, teachers)
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
    traces, filled = [edge], of_full_length(measured)
    for finished in (False, True):
        rows = [row for row, full in zip(measured, filled, strict=True) if full == finished]
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
                "legendgroup": escaped(name),
                "showlegend": finished,
                "legendrank": 1000,
            }
            more |= _bars(searched, look.colour)
            # a point without a place: a method that only baselines used has its legend entry too
            nowhere: Figure = {} if searched else {"x": [None], "y": [None], "customdata": [""]}
            traces.append(points(escaped(name), searched, marker, more | nowhere))
        baselines = [row for row in rows if row["origin"] == Origin.BASELINE]
        if baselines:
            sides = (
                _sides(baselines, measured, corners, view) if finished else [None] * len(baselines)
            )
            traces.append(_baselines(baselines, style, sides, finished=finished))
    behind = [row for row in front if row not in corners]
    if behind:
        traces.append(points("front, by another objective", behind, RING, {"legendrank": 800}))
    traces += [_teacher(role, teacher) for role, teacher in drawable(teachers).items()]
    layout: Figure = {
        axis: {"title": {"text": f"{name} accuracy (validation)"}, **ACCURACY}
        for axis, name in _AXES.items()
    }
    closer = closer_view(measured, teachers)
    if not all(_inside(row, closer) for row in measured):
        for (axis, settings), limits in zip(layout.items(), view.values(), strict=True):
            layout[axis] = {**settings, "range": list(limits)}
        layout["updatemenus"] = [_views(closer, view, measured)]
    return figure(traces, 580, layout)


def edge_of(front: Sequence[Row]) -> list[Row]:
    """The trials of the front that are non-dominated in clean and robust accuracy alone.

    Sorted by clean accuracy. These are all trials where the two are the only objectives.
    """
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
    """Points that a label must not cover: marks with their bars, and the front's edge."""
    found = [at(row[CLEAN], row[ROBUST]) for row in measured] + labels.along(
        [at(row[CLEAN], row[ROBUST]) for row in front]
    )
    for row in measured:
        for start, end in bars(row):
            found += labels.between(at(*start), at(*end))
    return found


def bars(row: Row) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Both ends (clean, robust) of a replicated row's two bars: one standard deviation each way.

    Empty for a single run, and for a single replicate.
    """
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
        "symbol": [style[method_of(row)].baseline + "-open" * (not finished) for row in rows],
        "size": 13,
        "color": [style[method_of(row)].colour for row in rows],
        "line": {"width": 1.5, "color": "$ink"},
    }
    more = {
        "legendrank": 900,
        "mode": "markers+text",
        "text": [
            f"&nbsp;{escaped(title(row))}&nbsp;" if side else ""
            for row, side in zip(rows, sides, strict=True)
        ],
        "textposition": [_SIDES.get(side or "right", side) for side in sides],
        "textfont": {"size": 11},
        **_bars(rows, "$ink"),
    }
    return points("baseline" if finished else "baseline, unfinished", rows, marker, more)


def _bars(rows: Sequence[Row], colour: str) -> Figure:
    """Plotly's error bars of one standard deviation over replicates, both ways."""
    if not any(row["seeds"] for row in rows):
        return {}
    look = {"type": "data", "thickness": 1.2, "width": 0, "color": colour}
    return {
        f"error_{axis}": {**look, "array": [row[f"{name}_sd"] for row in rows]}
        for axis, name in (("x", "clean"), ("y", "robust"))
    }


def drawable(teachers: object) -> dict[str, Row]:
    """The teachers of `study.json`, by role, whose two accuracies are numbers."""
    known = teachers.items() if isinstance(teachers, Mapping) else ()
    keys = [f"{name}_accuracy" for name in _AXES.values()]
    return {
        str(role): facts
        for role, facts in known
        if isinstance(facts, Mapping) and all(is_number(facts.get(key)) for key in keys)
    }


def _teacher(role: str, teacher: Row) -> Figure:
    name = f"{escaped(role)} teacher"
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
            f"<b>{name}</b><br>{escaped(teacher.get('label') or '')}<br>clean %{{x:.1%}} · robust"
            " %{y:.1%}<extra></extra>"
        ),
    }


def nearly_as_robust(rows: Sequence[Row]) -> list[Row]:
    """The rows at least half as robust as the most robust.

    Undefended students would squeeze all others into a corner of a picture.
    """
    best = max((row[ROBUST] for row in rows), default=0.0)
    return [row for row in rows if row[ROBUST] >= best / 2]


def closer_view(measured: Sequence[Row], teachers: object) -> View:
    """Limits of both axes around the `robust` finished trials and robust teachers.

    Where none has finished, all measured trials count.
    """
    full = of_full_length(measured)
    near = nearly_as_robust([row for row, it in zip(measured, full, strict=True) if it]) or list(
        measured
    )
    taught = [
        {CLEAN: facts["clean_accuracy"], ROBUST: facts["robust_accuracy"]}
        for facts in drawable(teachers).values()
    ]
    return _around([*near, *(row for row in nearly_as_robust([*near, *taught]) if row in taught)])


def default_view(measured: Sequence[Row], teachers: object) -> View:
    """The closer view, widened to show every baseline: nobody compares with what is hidden."""
    closer = closer_view(measured, teachers)
    outside = [
        row for row in measured if row["origin"] == Origin.BASELINE and not _inside(row, closer)
    ]
    if not outside:
        return closer
    ends = [{key: limits[end] for key, limits in closer.items()} for end in (0, 1)]
    return _around([*ends, *outside])


def _around(rows: Sequence[Row]) -> View:
    view = {}
    for key in PAIR:
        values = [row[key] for row in rows] or [0.0, 1.0]
        margin = 0.1 * (max(values) - min(values)) + 0.005
        view[key] = (min(values) - margin, max(values) + margin)
    return view


def _inside(row: Row, view: View) -> bool:
    return all(low <= row[key] <= high for key, (low, high) in view.items())


def _views(closer: View, default: View, measured: Sequence[Row]) -> Figure:
    """Buttons for the views that differ, the narrowest first; each says what it leaves out."""

    def ranges(view: View) -> Figure:
        return {
            f"{axis}.range": list(limits) for axis, limits in zip(_AXES, view.values(), strict=True)
        }

    def left_out(view: View) -> str:
        rows = [row for row in measured if not _inside(row, view)]
        baselines = sum(row["origin"] == Origin.BASELINE for row in rows)
        marks = f"{len(rows)} mark{'' if len(rows) == 1 else 's'}"
        return f"{marks} outside" + (f", {baselines} of them baselines" if baselines else "")

    choices = [(f"closer view: {left_out(closer)}", ranges(closer))]
    if default != closer:
        if any(not _inside(row, default) for row in measured):
            choices.append((f"all baselines: {left_out(default)}", ranges(default)))
        else:
            choices.append(("all trials", ranges(default)))
    if choices[-1][0] != "all trials":
        choices.append(("all trials", {f"{axis}.autorange": True for axis in _AXES}))
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

"""Pictures of the page: learning curves, costs, the teacher's reliability, hyperparameters."""

from collections.abc import Sequence

from rkdsearch.reporting.pareto_figure import nearly_as_robust
from rkdsearch.reporting.traces import (
    ACCURACY,
    RING,
    Figure,
    Panel,
    Row,
    escaped,
    figure,
    is_number,
    looks,
    method_of,
    panels_figure,
    points,
    title,
)
from rkdsearch.results.cells import CLEAN, ROBUST, parse
from rkdsearch.results.nodes import NodeStay, moves
from rkdsearch.results.objectives import COSTS, OBJECTIVES
from rkdsearch.results.states import Status

CURVES = 80  # more lines cannot be told apart, and are slow to draw


def nodes(found: Sequence[NodeStay], failed: Sequence[Row]) -> Figure | None:
    """Epochs of each node over time, with the failures of machines; None for one quiet node."""
    names = list(dict.fromkeys(stay.node for stay in found))
    if len(names) < 2 and not failed:
        return None
    # A gap after each line: one trace draws a node's whole row.
    traces: list[Figure] = [
        {
            "name": escaped(name),
            "mode": "lines+markers",
            "x": [t for s in mine for t in (s.start.isoformat(), s.end.isoformat(), None)],
            "y": [escaped(name) for _ in mine for _ in range(3)],
            "customdata": [
                f"{escaped(s.trial_id)}: {s.epochs} epochs on {escaped(name)}"
                for s in mine
                for _ in range(3)
            ],
            "hovertemplate": "%{customdata}<extra></extra>",
            "line": {"width": 5},
            "marker": {"size": 7, "symbol": "line-ns-open"},
            "showlegend": False,
        }
        for name, mine in ((name, [s for s in found if s.node == name]) for name in names)
    ]
    if moved := moves(found):
        traces.append(
            {
                "name": "moved away",
                "mode": "markers",
                "x": [s.end.isoformat() for s in moved],
                "y": [escaped(s.node) for s in moved],
                "customdata": [f"{escaped(s.trial_id)} went on elsewhere" for s in moved],
                "hovertemplate": "%{customdata}<extra></extra>",
                "marker": {"symbol": "diamond", "size": 11, "color": "$ink"},
            }
        )
    if failed:
        traces.append(
            {
                "name": "failure of the machine",
                "mode": "markers",
                "x": [row["run.updated"].isoformat() for row in failed],
                "y": [escaped(row["run.node"] or "unknown node") for row in failed],
                "customdata": [
                    f"{escaped(row['trial_id'])}: {escaped(row['error'] or row['failure'])}"
                    for row in failed
                ],
                "hovertemplate": "%{customdata}<extra></extra>",
                "marker": {"symbol": "x", "size": 11, "color": "$ink"},
            }
        )
    axes = {"xaxis": {"type": "date"}, "yaxis": {"type": "category"}}
    return figure(traces, 140 + 40 * max(1, len(names)), axes)


def curves(trials: Sequence[Row], epochs: Sequence[Row], front: Sequence[Row]) -> Figure | None:
    """Robust and clean accuracy over epochs; the front's trials in colour, the others faint."""
    by_trial: dict[str, list[Row]] = {}
    for row in epochs:
        if row["robust_accuracy"] is not None:
            seen = by_trial.setdefault(row["trial_id"], [])
            if seen and (seen[-1]["segment"] or 0) < (row["segment"] or 0):
                # the earlier segment was trained under a weaker attack: another curve
                seen.clear()
            seen.append(row)
    if not by_trial:
        return None
    style = looks([method_of(row) for row in trials])
    chosen = {row["trial_id"] for row in front}
    others = [
        row for row in trials if row["trial_id"] in by_trial and row["trial_id"] not in chosen
    ][: max(0, CURVES - len(chosen))]
    traces = []
    for row in [*others, *(row for row in front if row["trial_id"] in by_trial)]:
        seen = by_trial[row["trial_id"]]
        on_front = row["trial_id"] in chosen
        for axis, key in (("", "robust_accuracy"), ("2", "clean_accuracy")):
            traces.append(
                {
                    "name": escaped(title(row)),
                    "legendgroup": escaped(row["trial_id"]),
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
                        f"{escaped(title(row))}<br>epoch %{{x}}: %{{y:.1%}}<extra></extra>"
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
    """Robust and clean accuracy of finished trials against the costs of their students.

    None where all students cost the same.
    """
    finished = [
        row
        for row in trials
        if row["status"] == Status.FINISHED and row[CLEAN] is not None and row[ROBUST] is not None
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
                            escaped(method),
                            rows,
                            marker,
                            more | {"legendgroup": escaped(method), "showlegend": first},
                        )
                    )
            rows = [row for row in counted if row["trial_id"] in chosen]
            more = {
                "x": [row[cost.column] for row in rows],
                "y": [row[accuracy] for row in rows],
                **place,
                "legendgroup": "front",
            }
            traces.append(points("front", rows, RING, more | {"showlegend": first}))
    return panels_figure(traces, 640, panels, columns=len(varied)) if panels else None


def reliability(epochs: Sequence[Row], front: Sequence[Row]) -> Figure | None:
    """Teacher's predictions on validation images, clean and attacked, as three shares.

    The attacked ones are the validation attack's against each student of the front, at its last
    validated epoch. None where no student of the front has a teacher.
    """
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
            "y": [escaped(title(row)) for row, _ in rows],
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
    """Robust accuracy of finished trials against each numeric hyperparameter, by method."""
    finished = nearly_as_robust(
        [row for row in trials if row["status"] == Status.FINISHED and row[ROBUST] is not None]
    )
    chosen = [(row, parse(row["hyperparameters"])) for row in finished]
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
                more = {"legendgroup": escaped(method), "showlegend": method not in shown}
                trace = points(escaped(method), [row for row, _ in pairs], marker, more)
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

"""The front as a Plotly figure, for a notebook: the page's picture in its light colours."""

from pathlib import Path
from typing import Any

from rkdsearch.reporting.pareto_figure import pareto
from rkdsearch.results.cells import records
from rkdsearch.results.front import configurations
from rkdsearch.results.study import StudyResults, read_study

LIGHT = {"$ink": "#1b1f24", "$faint": "#a3abb5", "$paper": "#ffffff", "$grid": "#e6e9ed"}


def draw_front(study: StudyResults | Path | str) -> Any:
    """Clean against robust accuracy of a study's trials with its front, a `plotly` Figure.

    Raises StudyError where there is no such folder.
    """
    from plotly.graph_objects import Figure

    found = study if isinstance(study, StudyResults) else read_study(study)
    trials, front = records(configurations(found.trials)), records(found.front)
    picture = _painted(pareto(trials, front, found.description.get("teachers") or {}))
    figure = Figure(picture)
    axes = {"gridcolor": LIGHT["$grid"], "linecolor": LIGHT["$faint"]}
    figure.update_xaxes(axes)
    figure.update_yaxes(axes)
    return figure.update_layout(
        title=f"{found.name}: validation", paper_bgcolor="white", plot_bgcolor="white"
    )


def _painted(value: Any) -> Any:
    """The same picture with colours in place of their names."""
    if isinstance(value, dict):
        return {name: _painted(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_painted(part) for part in value]
    return LIGHT.get(value, value) if isinstance(value, str) else value

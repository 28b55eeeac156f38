"""Units that several rows use, and the columns of objectives."""

from rkdsearch.results.columns import Column, Group
from rkdsearch.results.objectives import ACCURACIES, COSTS, OBJECTIVES

FRACTION, SECONDS, UTC, SHA256 = "fraction of 1", "seconds", "UTC", "SHA-256"


def cost_columns(prefix: str, note: str = "") -> Group:
    """One column a cost among the objectives."""
    found = ((name, OBJECTIVES[name]) for name in COSTS)
    source = "`space.check.costs_of`, `models.size_of`"
    return Group(
        tuple(Column(prefix + n, "int", o.unit, o.meaning + note, source) for n, o in found),
        prefix,
    )


def objective_columns(of_accuracies: str, of_costs: str) -> Group:
    """One column an objective; the notes stand behind what the objectives mean."""
    found = ((name, OBJECTIVES[name]) for name in ACCURACIES)
    source = "`EpochResult.best`"
    accuracies = (Column(n, "float", o.unit, o.meaning + of_accuracies, source) for n, o in found)
    return Group((*accuracies, *cost_columns("", of_costs).columns))

"""Units that several rows use, and the columns of the cost objectives."""

from rkdsearch.results.columns import Column, Group
from rkdsearch.results.objectives import COSTS, OBJECTIVES

FRACTION, SECONDS, UTC, SHA256 = "fraction of 1", "seconds", "UTC", "SHA-256"


def cost_columns(prefix: str, note: str = "") -> Group:
    """One column a cost among the objectives."""
    found = ((name, OBJECTIVES[name]) for name in COSTS)
    source = "`space.check.costs_of`, `models.size_of`"
    return Group(
        tuple(Column(prefix + n, "int", o.unit, o.meaning + note, source) for n, o in found),
        prefix,
    )

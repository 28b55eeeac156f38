"""The rows of the tables: every column with type, unit, meaning and source of its value.

Writers construct these classes: `search/ledger.py` and `training/run.py` a trial,
`training/rows.py` an epoch, `search/decisions.py` a decision, `evaluation/` a test result, its
images and openings.
"""

from rkdsearch.results.rows.by_class import ClassCells
from rkdsearch.results.rows.checks import Checks
from rkdsearch.results.rows.decision import DecisionRow
from rkdsearch.results.rows.epoch import EpochRow, ReliabilityCells
from rkdsearch.results.rows.evaluation import EvaluationRow, EvaluationRun, OpeningRow, SubsetRow
from rkdsearch.results.rows.trial import (
    ALONE,
    Metrics,
    ReachedFidelity,
    RunFacts,
    RunRecord,
    TrialRow,
)

__all__ = [
    "ALONE",
    "Checks",
    "ClassCells",
    "DecisionRow",
    "EpochRow",
    "EvaluationRow",
    "EvaluationRun",
    "Metrics",
    "OpeningRow",
    "ReachedFidelity",
    "ReliabilityCells",
    "RunFacts",
    "RunRecord",
    "SubsetRow",
    "TrialRow",
]

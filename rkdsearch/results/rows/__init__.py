"""The rows of the four tables: every column with type, unit, meaning and source of its value.

Writers construct these classes: `search/ledger.py` and `training/run.py` a trial,
`training/rows.py` an epoch, `search/trial.py` a decision, `evaluation/jobs.py` a test result.
"""

from rkdsearch.results.rows.decision import DecisionRow
from rkdsearch.results.rows.epoch import EpochRow, ReliabilityCells
from rkdsearch.results.rows.evaluation import EvaluationRow, EvaluationRun
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
    "DecisionRow",
    "EpochRow",
    "EvaluationRow",
    "EvaluationRun",
    "Metrics",
    "ReachedFidelity",
    "ReliabilityCells",
    "RunFacts",
    "RunRecord",
    "TrialRow",
]

"""The row of a decision of the scheduler in `rungs/`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from rkdsearch.results.columns import Cell
from rkdsearch.results.rows.units import FRACTION, UTC, cost_columns
from rkdsearch.results.states import Decision


@dataclass(frozen=True, kw_only=True)
class DecisionRow:
    """One decision of the scheduler about a trial at a rung."""

    epochs: Annotated[int, Cell("length of the rung", "the space's `ladder`", "epochs")]
    validation_attack_steps: Annotated[
        int | None, Cell("steps of the validation attack", "`EpochResult`", "steps")
    ]
    clean_accuracy: Annotated[
        float | None,
        Cell("validation, clean images, at the decision", "`EpochResult.best`", FRACTION),
    ]
    robust_accuracy: Annotated[
        float | None,
        Cell("validation, under attack, at the decision", "`EpochResult.best`", FRACTION),
    ]
    best_epoch: Annotated[
        int | None,
        Cell(
            "the finished epoch, from 1, that `validation.select` selects so far",
            "`EpochResult.best`",
            "epochs",
        ),
    ]
    rank: Annotated[
        int | None,
        Cell(
            "place among the trials that had reached the rung, 1 is best; null for a baseline"
            " before the end of its warm-up",
            "`Scheduler.rank`",
        ),
    ]
    of: Annotated[
        int | None, Cell("trials that had reached the rung", "`Scheduler.rank`", "trials")
    ]
    decision: Annotated[Decision, Cell("promoted, paused, stopped, continued", "`Scheduler`")]
    rule: Annotated[str, Cell("the scheduler's rule behind the decision", "`Scheduler.rule`")]
    decided: Annotated[datetime, Cell("when", "clock", UTC)]
    training_attack_steps: Annotated[
        int | None, Cell("steps of the training attack up to this rung", "`EpochResult`", "steps")
    ]
    validation_images: Annotated[
        int | None, Cell("validation images behind these accuracies", "`EpochResult`", "images")
    ]
    worst_class_accuracy: Annotated[
        float | None,
        Cell(
            "validation, robust accuracy of the worst class, at the decision",
            "`EpochResult.best`",
            FRACTION,
        ),
    ]
    costs: Annotated[
        Mapping[str, float | None], cost_columns("", "; null where the space asks nothing about it")
    ]

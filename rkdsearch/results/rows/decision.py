"""The row of a decision of the scheduler in `rungs/`."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Annotated, Any, Self

from rkdsearch.results.columns import Cell
from rkdsearch.results.objectives import OBJECTIVES
from rkdsearch.results.rows.units import UTC, objective_columns
from rkdsearch.results.states import Decision


@dataclass(frozen=True, kw_only=True)
class DecisionRow:
    """One decision of the scheduler about a trial at a rung, and what it was based on.

    `rank` and `of` are None where the trial was not ranked.
    """

    epochs: Annotated[int, Cell("length of the rung", "the space's `ladder`", "epochs")]
    validation_attack_steps: Annotated[
        int | None, Cell("steps of the validation attack", "`EpochResult`", "steps")
    ]
    # values by name, accuracies of the best epoch so far
    objectives: Annotated[
        Mapping[str, float | None],
        objective_columns(", at the decision", "; null where the space asks nothing about it"),
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
            "place among the trials that are ranked on the rung, 1 is best; null for a baseline"
            " that is not, because its warm-up ends there or later",
            "`Scheduler.rank`",
        ),
    ]
    of: Annotated[
        int | None, Cell("trials that are ranked on the rung", "`Scheduler.rank`", "trials")
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

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Read a row of `rungs/`, in plain Python types; those of earlier versions lack values."""
        values: dict[str, Any] = {field.name: row.get(field.name) for field in fields(cls)}
        values["decision"] = Decision(row["decision"])
        values["objectives"] = {name: row.get(name) for name in OBJECTIVES}
        return cls(**values)

    @property
    def trains_on(self) -> bool:
        """True where the trial trains on beyond the rung."""
        return self.decision in (Decision.CONTINUED, Decision.PROMOTED)

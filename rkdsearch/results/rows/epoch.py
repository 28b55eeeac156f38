"""The row of an epoch in `epochs/`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from rkdsearch.results.columns import JSON, Cell
from rkdsearch.results.rows.by_class import ClassCells
from rkdsearch.results.rows.units import FRACTION, SECONDS, UTC


@dataclass(frozen=True, kw_only=True)
class ReliabilityCells:
    """Shares of validation images by the teacher's predictions."""

    right_on_adversarial: Annotated[
        float,
        Cell(
            "share of validation images whose x' the teacher gets right; null without teacher",
            "`EpochResult.reliability`",
            FRACTION,
        ),
    ]
    right_on_clean_only: Annotated[
        float,
        Cell(
            "share whose x the teacher gets right, and whose x' wrong",
            "`EpochResult.reliability`",
            FRACTION,
        ),
    ]
    wrong_on_both: Annotated[
        float,
        Cell(
            "share whose x and x' the teacher both gets wrong",
            "`EpochResult.reliability`",
            FRACTION,
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """One epoch of a trial. Every value but `segment` is the `EpochResult`'s of that name."""

    epoch: Annotated[int, Cell("finished epochs, from 1", "`Trainer`", "epochs")]
    loss: Annotated[float, Cell("mean training loss", "`Trainer`", "nats")]
    terms: Annotated[
        Mapping[str, float],
        Cell(
            "mean of each term of the loss, before its weight, kl_scale and tau^2: name -> nats (a"
            " term named *_weight: a weight)",
            "`methods.Loss`",
            JSON,
        ),
    ]
    clean_accuracy: Annotated[
        float | None,
        Cell("validation, clean images; null in epochs without validation", "validation", FRACTION),
    ]
    robust_accuracy: Annotated[
        float | None,
        Cell(
            "validation, under the validation attack; null in epochs without validation",
            "validation",
            FRACTION,
        ),
    ]
    worst_class_accuracy: Annotated[
        float | None,
        Cell(
            "validation, robust accuracy of the worst class; null in epochs without validation",
            "validation",
            FRACTION,
        ),
    ]
    by_class: ClassCells | None
    teacher: ReliabilityCells | None
    lr: Annotated[float, Cell("learning rate at the end of the epoch", "`Trainer`")]
    images_per_second: Annotated[
        float, Cell("training images, over all processes", "`Trainer`", "images / second")
    ]
    seconds: Annotated[float, Cell("time of the epoch, validation included", "`Trainer`", SECONDS)]
    training_attack_steps: Annotated[
        int, Cell("steps of the training attack", "`Fidelity.attack`", "steps")
    ]
    finished: Annotated[datetime, Cell("end of the epoch", "clock", UTC)]
    segment: Annotated[
        int,
        Cell(
            "the trial's training run, from 0; a promotion that changes the training attack starts"
            " the next one",
            "`search.Study`",
            "training runs",
        ),
    ]
    validation_attack_steps: Annotated[
        int | None,
        Cell("steps of the attack behind robust_accuracy", "`Fidelity.validation`", "steps"),
    ]
    processes: Annotated[
        int | None, Cell("processes that trained this epoch together", "`Trainer`", "processes")
    ]
    node: Annotated[
        str | None,
        Cell("machine of the first of these processes, with its address in a cluster", "`Trainer`"),
    ]

"""The row of a test result in `evaluations/`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from rkdsearch.results.columns import JSON, Cell
from rkdsearch.results.rows.units import FRACTION, SECONDS, SHA256, UTC


@dataclass(frozen=True, kw_only=True)
class EvaluationRun:
    """Versions and device of an evaluation."""

    torch: Annotated[str, Cell("version of PyTorch", "worker")]
    device: Annotated[str, Cell("name of the accelerator, or of the CPU", "worker")]
    version: Annotated[str, Cell("version of rkdsearch", "package metadata")]


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """One test result: a checkpoint under an attack with a seed on a set of test images."""

    trial_id: Annotated[
        str, Cell("the trial, or `teacher`, `teacher-natural`", "`EvaluationTarget`")
    ]
    label: Annotated[str, Cell("a human's name for it", "`EvaluationTarget`")]
    checkpoint: Annotated[str, Cell("best (of validation) or last", "`best.safetensors`")]
    split: Annotated[str, Cell("test; validation here would be a mistake", "`data.load_test`")]
    attack: Annotated[str, Cell("clean, pgd20, autoattack", "`EvaluationJob`")]
    norm: Annotated[
        str | None,
        Cell(
            "of the attack's ball, named as in `attack.norm`; null for clean", "`validation.attack`"
        ),
    ]
    eps: Annotated[
        float, Cell("radius of the attack's ball", "`validation.attack`", "pixels of [0, 1]")
    ]
    test_attack_steps: Annotated[
        int | None,
        Cell("steps of the attack; null where it has no number", "`EvaluationJob`", "steps"),
    ]
    seed: Annotated[int, Cell("seed of the attack", "`EvaluationJob`")]
    images: Annotated[int, Cell("images that were attacked", "`evaluate --images`", "images")]
    of_images: Annotated[int, Cell("images of the whole split", "`data.load_test`", "images")]
    correct: Annotated[int, Cell("images classified rightly", "worker", "images")]
    accuracy: Annotated[float, Cell("correct / images", "worker", FRACTION)]
    low: Annotated[
        float,
        Cell("lower end of the 95 % Wilson interval over images", "`results.intervals`", FRACTION),
    ]
    high: Annotated[
        float,
        Cell("upper end of the 95 % Wilson interval over images", "`results.intervals`", FRACTION),
    ]
    worst_class_accuracy: Annotated[float, Cell("accuracy of the worst class", "worker", FRACTION)]
    seconds: Annotated[float, Cell("time of this evaluation", "worker", SECONDS)]
    flags: Annotated[
        Sequence[str],
        Cell(
            "list of signs that the attack failed (masked gradients and the like)", "worker", JSON
        ),
    ]
    per_image: Annotated[
        str,
        Cell(
            "1 right, 0 wrong, one digit an image in the subset's order: two rows of one subset are"
            " compared in pairs",
            "worker",
        ),
    ]
    subset_sha256: Annotated[
        str, Cell("fingerprint of the images and their order", "`subset`", SHA256)
    ]
    weights_sha256: Annotated[
        str,
        Cell("fingerprint of the file of weights that was evaluated", "`EvaluationTarget`", SHA256),
    ]
    evaluated: Annotated[datetime, Cell("when", "clock", UTC)]
    run: EvaluationRun

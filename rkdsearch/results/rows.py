"""The rows of the four tables: every column with type, unit, meaning and source of its value.

Writers construct these classes, one function each: `training/rows.py` (trial, epoch),
`search/study.py` (decision), `evaluation/jobs.py` (evaluation). Accuracies, shares and differences
are fractions of 1, times are UTC, durations are seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from rkdsearch.errors import Failure
from rkdsearch.results.columns import JSON, Cell, Column, Group, columns_of
from rkdsearch.results.objectives import COSTS, OBJECTIVES
from rkdsearch.results.states import Decision, Origin, Status

ALONE = "run"  # the trial_id of `rkdsearch train`'s one run

_FRACTION, _SECONDS, _UTC, _SHA = "fraction of 1", "seconds", "UTC", "SHA-256"


def _costs(prefix: str, note: str = "") -> Group:
    """One column a cost among the objectives."""
    found = ((name, OBJECTIVES[name]) for name in COSTS)
    source = "`space.check.costs_of`, `models.size_of`"
    return Group(
        tuple(Column(prefix + n, "int", o.unit, o.meaning + note, source) for n, o in found),
        prefix,
    )


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Validation results of a trial."""

    clean_accuracy: Annotated[
        float, Cell("validation, clean images, at the best epoch", "`EpochResult.best`", _FRACTION)
    ]
    robust_accuracy: Annotated[
        float,
        Cell(
            "validation, under the validation attack, at the best epoch",
            "`EpochResult.best`",
            _FRACTION,
        ),
    ]
    worst_class_accuracy: Annotated[
        float,
        Cell(
            "validation, robust accuracy of the worst class, at the best epoch",
            "`EpochResult.best`",
            _FRACTION,
        ),
    ]
    best_epoch: Annotated[
        int,
        Cell(
            "the finished epoch, from 1, that `validation.select` selects",
            "`EpochResult.best`",
            "epochs",
        ),
    ]
    last_clean_accuracy: Annotated[
        float | None,
        Cell(
            "validation, clean images, at the last validated epoch",
            "last validated `EpochResult`",
            _FRACTION,
        ),
    ]
    last_robust_accuracy: Annotated[
        float | None,
        Cell(
            "validation, under attack, at the last validated epoch",
            "last validated `EpochResult`",
            _FRACTION,
        ),
    ]
    robust_overfitting_gap: Annotated[
        float | None,
        Cell(
            "highest robust accuracy over epochs minus the last one",
            "last validated `EpochResult`",
            _FRACTION,
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class ReachedFidelity:
    """Fidelity that a trial has reached so far."""

    epochs: Annotated[int, Cell("epochs trained so far", "last `EpochResult`", "epochs")]
    of_epochs: Annotated[
        int, Cell("epochs of a full run of this configuration", "`training.epochs`", "epochs")
    ]
    training_attack_steps: Annotated[
        int, Cell("steps of the training attack", "last `EpochResult`; `attack.steps`", "steps")
    ]
    validation_attack_steps: Annotated[
        int,
        Cell(
            "steps of the attack behind metric.robust_accuracy",
            "last validated `EpochResult`; `validation.attack.steps`",
            "steps",
        ),
    ]
    validation_images: Annotated[
        int | None,
        Cell("validation images behind the metrics", "last validated `EpochResult`", "images"),
    ]


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Facts that a worker reports of its run: code, versions, device, student and files."""

    git_commit: Annotated[
        str | None,
        Cell("commit of the code, with `-dirty` where files were changed", "`git describe`"),
    ]
    version: Annotated[str, Cell("version of rkdsearch", "package metadata")]
    torch: Annotated[str, Cell("version of PyTorch", "`torch`")]
    ray: Annotated[
        str | None, Cell("version of Ray; null where the run needed none", "`execution/trial.py`")
    ]
    python: Annotated[str, Cell("version of Python", "`platform`")]
    device: Annotated[str, Cell("name of the accelerator, or of the CPU", "`torch`, /proc/cpuinfo")]
    processes: Annotated[
        int, Cell("processes that trained this one student together", "`Trainer`", "processes")
    ]
    devices: Annotated[
        float,
        Cell(
            "devices that they held together: a GPU's share each; without GPUs a processor each",
            "`resources` of the space; `Trainer` without a search",
            "devices",
        ),
    ]
    costs: Annotated[Mapping[str, int], _costs("run.")]
    teacher_sha256: Annotated[
        str | None, Cell("fingerprint of the robust teacher's weights", "`Trainer`", _SHA)
    ]
    natural_teacher_sha256: Annotated[
        str | None,
        Cell(
            "fingerprint of the natural teacher's weights; null where the method asks none",
            "`Trainer`",
            _SHA,
        ),
    ]
    split_sha256: Annotated[
        str | None, Cell("fingerprint of the training and validation split", "`Splits`", _SHA)
    ]
    pixels_sha256: Annotated[
        str | None, Cell("fingerprint of up to 512 of its images each", "`Splits`", _SHA)
    ]
    extra_sha256: Annotated[
        str | None, Cell("fingerprint of data.extra; null without", "`Splits`", _SHA)
    ]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Seed and times of a run."""

    seed: Annotated[int, Cell("seed of weights, batches and attacks", "`training.seed`")]
    wall_seconds: Annotated[
        float, Cell("time of all epochs, pauses left out", "`EpochResult.seconds`", _SECONDS)
    ]
    device_seconds: Annotated[
        float, Cell("wall seconds times the devices held", "`EpochResult.seconds`", _SECONDS)
    ]
    started: Annotated[
        datetime | None, Cell("start of the trial's first epoch", "first `EpochResult`", _UTC)
    ]
    updated: Annotated[datetime, Cell("when this row was written", "clock", _UTC)]


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial. Columns `config.*` stand behind `notes`; `training/config_rows.py` has these."""

    trial_id: Annotated[
        str,
        Cell(
            f"the trial's name; also its file's name; `{ALONE}` where there was no search",
            "`ledger.trial_id_of`",
        ),
    ]
    study: Annotated[str, Cell("the study's name", "its folder's name")]
    ordinal: Annotated[
        int,
        Cell(
            "the configuration's number in the study, from 0; replicates share it",
            "`search.Study`",
            "configurations",
        ),
    ]
    origin: Annotated[
        Origin,
        Cell(
            "origin of the configuration: baseline (listed by the space), search (proposed by the"
            " sampler), replicate (an earlier configuration with another seed)",
            "`search.Study`",
        ),
    ]
    label: Annotated[
        str | None,
        Cell("a human's name for it, such as that of an entry of `first`", "the space's `first`"),
    ]
    status: Annotated[
        Status,
        Cell(
            "running, paused, stopped (before full length, by the scheduler), finished (full"
            " length), failed",
            "`search.Study`",
        ),
    ]
    error: Annotated[str | None, Cell("why a failed trial failed", "the worker's error")]
    failure: Annotated[
        Failure | None,
        Cell(
            "kind of failure: memory (the device was full), worker (its process or node was lost),"
            " files (a checkpoint, a teacher or images could not be read): `tune --resume` retries"
            " these; loss (not finite), error (anything else)",
            "`errors.Failure`",
        ),
    ]
    reconstructed: Annotated[
        bool,
        Cell(
            "no full text or code of the method's authors is public: it is rebuilt from what is",
            "`Method.reconstructed`",
        ),
    ]
    asked: Annotated[
        datetime | None, Cell("when the search asked for this configuration", "clock", _UTC)
    ]
    hyperparameters: Annotated[
        Mapping[str, Any], Cell("searched values: dotted name -> value", "sampler; `first`", JSON)
    ]
    notes: Annotated[
        Mapping[str, Any], Cell("the sampler's own notes, such as a generation", "sampler", JSON)
    ]
    metric: Metrics | None
    fidelity: ReachedFidelity
    facts: Annotated[Mapping[str, object], Group(columns_of(RunFacts, "run."))]
    run: RunRecord


@dataclass(frozen=True, kw_only=True)
class ReliabilityCells:
    """Shares of validation images by the teacher's predictions."""

    right_on_adversarial: Annotated[
        float,
        Cell(
            "share of validation images whose x' the teacher gets right; null without teacher",
            "`EpochResult.reliability`",
            _FRACTION,
        ),
    ]
    right_on_clean_only: Annotated[
        float,
        Cell(
            "share whose x the teacher gets right, and whose x' wrong",
            "`EpochResult.reliability`",
            _FRACTION,
        ),
    ]
    wrong_on_both: Annotated[
        float,
        Cell(
            "share whose x and x' the teacher both gets wrong",
            "`EpochResult.reliability`",
            _FRACTION,
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
        Cell(
            "validation, clean images; null in epochs without validation", "validation", _FRACTION
        ),
    ]
    robust_accuracy: Annotated[
        float | None,
        Cell(
            "validation, under the validation attack; null in epochs without validation",
            "validation",
            _FRACTION,
        ),
    ]
    worst_class_accuracy: Annotated[
        float | None,
        Cell(
            "validation, robust accuracy of the worst class; null in epochs without validation",
            "validation",
            _FRACTION,
        ),
    ]
    teacher: ReliabilityCells | None
    lr: Annotated[float, Cell("learning rate at the end of the epoch", "`Trainer`")]
    images_per_second: Annotated[
        float, Cell("training images, over all processes", "`Trainer`", "images / second")
    ]
    seconds: Annotated[float, Cell("time of the epoch, validation included", "`Trainer`", _SECONDS)]
    training_attack_steps: Annotated[
        int, Cell("steps of the training attack", "`Fidelity.attack`", "steps")
    ]
    finished: Annotated[datetime, Cell("end of the epoch", "clock", _UTC)]
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


@dataclass(frozen=True, kw_only=True)
class DecisionRow:
    """One decision of the scheduler about a trial at a rung."""

    epochs: Annotated[int, Cell("length of the rung", "the space's `ladder`", "epochs")]
    validation_attack_steps: Annotated[
        int | None, Cell("steps of the validation attack", "`EpochResult`", "steps")
    ]
    clean_accuracy: Annotated[
        float | None,
        Cell("validation, clean images, at the decision", "`EpochResult.best`", _FRACTION),
    ]
    robust_accuracy: Annotated[
        float | None,
        Cell("validation, under attack, at the decision", "`EpochResult.best`", _FRACTION),
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
    decided: Annotated[datetime, Cell("when", "clock", _UTC)]
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
            _FRACTION,
        ),
    ]
    costs: Annotated[
        Mapping[str, float | None], _costs("", "; null where the space asks nothing about it")
    ]


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
        str | None, Cell("of the attack's ball: linf, l2; null for clean", "`validation.attack`")
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
    accuracy: Annotated[float, Cell("correct / images", "worker", _FRACTION)]
    low: Annotated[
        float,
        Cell("lower end of the 95 % Wilson interval over images", "`results.intervals`", _FRACTION),
    ]
    high: Annotated[
        float,
        Cell("upper end of the 95 % Wilson interval over images", "`results.intervals`", _FRACTION),
    ]
    worst_class_accuracy: Annotated[float, Cell("accuracy of the worst class", "worker", _FRACTION)]
    seconds: Annotated[float, Cell("time of this evaluation", "worker", _SECONDS)]
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
        str, Cell("fingerprint of the images and their order", "`subset`", _SHA)
    ]
    weights_sha256: Annotated[
        str,
        Cell("fingerprint of the file of weights that was evaluated", "`EvaluationTarget`", _SHA),
    ]
    evaluated: Annotated[datetime, Cell("when", "clock", _UTC)]
    run: EvaluationRun

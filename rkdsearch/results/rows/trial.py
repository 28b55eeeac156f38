"""The row of a trial in `trials/`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from rkdsearch.errors import Failure
from rkdsearch.results.columns import JSON, Cell, Group, columns_of
from rkdsearch.results.rows.by_class import ClassCells
from rkdsearch.results.rows.checks import Checks
from rkdsearch.results.rows.units import FRACTION, SECONDS, SHA256, UTC, cost_columns
from rkdsearch.results.states import Origin, ProposedBy, Status

ALONE = "run"  # the trial_id of a run of `rkdsearch train`


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Validation results of a trial."""

    clean_accuracy: Annotated[
        float, Cell("validation, clean images, at the best epoch", "`EpochResult.best`", FRACTION)
    ]
    robust_accuracy: Annotated[
        float,
        Cell(
            "validation, under the validation attack, at the best epoch",
            "`EpochResult.best`",
            FRACTION,
        ),
    ]
    worst_class_accuracy: Annotated[
        float,
        Cell(
            "validation, robust accuracy of the worst class, at the best epoch",
            "`EpochResult.best`",
            FRACTION,
        ),
    ]
    by_class: ClassCells | None  # at the best epoch
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
            FRACTION,
        ),
    ]
    last_robust_accuracy: Annotated[
        float | None,
        Cell(
            "validation, under attack, at the last validated epoch",
            "last validated `EpochResult`",
            FRACTION,
        ),
    ]
    robust_overfitting_gap: Annotated[
        float | None,
        Cell(
            "highest robust accuracy over epochs that were validated alike, minus the last one",
            "last validated `EpochResult`",
            FRACTION,
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
        Cell(
            "commit of the code, with `-dirty` where files were changed; null outside a checkout of"
            " rkdsearch",
            "`git describe`",
        ),
    ]
    git_diff_sha256: Annotated[
        str | None,
        Cell("fingerprint of the changes since that commit; null without", "`git diff`", SHA256),
    ]
    versions: Annotated[
        Mapping[str, str],
        Cell("version of Python and of every package that touches a number", "worker", JSON),
    ]
    command: Annotated[
        str | None, Cell("the whole command line of the driver", "`provenance.command`")
    ]
    threads: Annotated[
        int, Cell("threads of one operation on the CPU, in each process", "`torch`", "threads")
    ]
    packages: Annotated[
        Mapping[str, Any] | None,
        Cell(
            "packages of the user's that the run imported from: name -> sha256 of its Python"
            " files, git_commit; null without",
            "`plugins`",
            JSON,
        ),
    ]
    version: Annotated[str, Cell("version of rkdsearch", "package metadata")]
    torch: Annotated[str, Cell("version of PyTorch", "`torch`")]
    ray: Annotated[
        str | None, Cell("version of Ray; null where the run needed none", "`execution/trial.py`")
    ]
    python: Annotated[str, Cell("version of Python", "`platform`")]
    device: Annotated[str, Cell("name of the accelerator, or of the CPU", "`torch`, /proc/cpuinfo")]
    node: Annotated[
        str | None,
        Cell(
            "machine that trained it last, with its address in a cluster; `epochs/` has the others",
            "`Trainer`",
        ),
    ]
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
    costs: Annotated[Mapping[str, int], cost_columns("run.")]
    teacher_sha256: Annotated[
        str | None, Cell("fingerprint of the robust teacher's weights", "`Trainer`", SHA256)
    ]
    natural_teacher_sha256: Annotated[
        str | None,
        Cell(
            "fingerprint of the natural teacher's weights; null where the method asks none",
            "`Trainer`",
            SHA256,
        ),
    ]
    split_sha256: Annotated[
        str | None, Cell("fingerprint of the training and validation split", "`Splits`", SHA256)
    ]
    pixels_sha256: Annotated[
        str | None, Cell("fingerprint of up to 512 of its images each", "`Splits`", SHA256)
    ]
    extra_sha256: Annotated[
        str | None, Cell("fingerprint of data.extra; null without", "`Splits`", SHA256)
    ]
    preprocessing: Annotated[
        str | None,
        Cell("how image files became pixels; null where pixels are read as they are", "`Images`"),
    ]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Seed and times of a run."""

    seed: Annotated[int, Cell("seed of weights, batches and attacks", "`training.seed`")]
    wall_seconds: Annotated[
        float, Cell("time of all epochs, pauses left out", "`EpochResult.seconds`", SECONDS)
    ]
    device_seconds: Annotated[
        float, Cell("wall seconds times the devices held", "`EpochResult.seconds`", SECONDS)
    ]
    started: Annotated[
        datetime | None, Cell("start of the trial's first epoch", "first `EpochResult`", UTC)
    ]
    updated: Annotated[datetime, Cell("when this row was written", "clock", UTC)]


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial. Columns `config.*` follow `notes`; `training/config_rows.py` defines them."""

    trial_id: Annotated[
        str,
        Cell(
            f"the trial's name; also its file's name; `{ALONE}` where there was no search",
            "`search.trial.trial_id_of`",
        ),
    ]
    study: Annotated[str, Cell("the study's name", "its folder's name when it began")]
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
            "origin of the configuration: baseline (listed by the space; a single run too), search"
            " (proposed by the sampler), replicate (an earlier configuration with another seed)",
            "`search.Study`",
        ),
    ]
    proposed_by: Annotated[
        ProposedBy | None,
        Cell(
            "what proposed the hyperparameters: baseline, queue (`enqueue`), belief (near a"
            " baseline that is believed; `notes` says which), minimum (`sampler.minimum_per`),"
            " model, chance; a replicate has its configuration's",
            "`search.Study`; null in rows of earlier versions",
        ),
    ]
    label: Annotated[
        str | None,
        Cell("a human's name for it, such as that of an entry of `first`", "the space's `first`"),
    ]
    status: Annotated[
        Status,
        Cell(
            "running, paused, stopped (before full length: by the scheduler, or no longer in the"
            " space), finished (full length), failed",
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
        datetime | None, Cell("when the search asked for this configuration", "clock", UTC)
    ]
    placed: Annotated[
        datetime | None,
        Cell(
            "when a worker last took it; null: it waits for a place on the cluster, or was"
            " interrupted, or there was no search",
            "clock",
            UTC,
        ),
    ]
    hyperparameters: Annotated[
        Mapping[str, Any], Cell("searched values: dotted name -> value", "sampler; `first`", JSON)
    ]
    notes: Annotated[
        Mapping[str, Any],
        Cell(
            "the sampler's own notes, such as a generation; `again`: the trial of a shorter full"
            " run that this one repeats; `enqueued`: the file of one that was added by hand;"
            " `belief`: the baseline near which it was proposed",
            "sampler, `search.longer`, `search.queue`, `search.beliefs`",
            JSON,
        ),
    ]
    metric: Metrics | None
    fidelity: ReachedFidelity
    flags: Annotated[
        Sequence[str] | None,
        Cell(
            "list of signs that the validation attack failed on the best checkpoint: such a trial"
            " is kept off the front; null where nobody looked, as before full length",
            "`results.flags.raised`",
            JSON,
        ),
    ]
    check: Checks | None
    facts: Annotated[Mapping[str, object], Group(columns_of(RunFacts, "run."))]
    run: RunRecord

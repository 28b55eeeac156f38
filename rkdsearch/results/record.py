"""The columns of the four tables: name, type, unit and meaning. `docs/results.md` is `markdown()` of this file.

Columns are only ever added; a change of type or meaning raises SCHEMA_VERSION.
Accuracies, shares and differences are fractions of 1, times are UTC, durations are seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

SCHEMA_VERSION = 2
ALONE = "run"  # the trial_id of `rkdsearch train`'s one run

Type = Literal["string", "int", "float", "bool", "time"]


@dataclass(frozen=True)
class Column:
    """One column. The unit `JSON` means text that a reader parses; a writer may hand over the value itself."""

    name: str
    type: Type
    unit: str
    meaning: str


def _text(name: str, meaning: str, unit: str = "") -> Column:
    return Column(name, "string", unit, meaning)


def _count(name: str, unit: str, meaning: str) -> Column:
    return Column(name, "int", unit, meaning)


def _fraction(name: str, meaning: str) -> Column:
    return Column(name, "float", "fraction of 1", meaning)


def _seconds(name: str, meaning: str) -> Column:
    return Column(name, "float", "seconds", meaning)


def _time(name: str, meaning: str) -> Column:
    return Column(name, "time", "UTC", meaning)


CONFIG_GOES_AFTER = "notes"  # the `config.*` columns of `trials` stand behind this one

TABLES: Mapping[str, tuple[Column, ...]] = MappingProxyType(
    {
        "trials": (
            _text(
                "trial_id",
                f"the trial's name; also its file's name; `{ALONE}` where there was no search",
            ),
            _text("study", "the study's name"),
            _count(
                "ordinal",
                "configurations",
                "the configuration's number in the study, from 0; replicates share it",
            ),
            _text(
                "origin",
                "origin of the configuration: baseline (listed by the space), search (proposed by"
                " the sampler), replicate (an earlier configuration with another seed)",
            ),
            _text("label", "a human's name for it, such as that of an entry of `first`"),
            _text(
                "status",
                "running, paused, stopped (before full length, by the scheduler), finished (full"
                " length), failed",
            ),
            _text("error", "why a failed trial failed"),
            _text(
                "failure",
                "how it failed: memory (the device was full), worker (its process or node was lost),"
                " files (a checkpoint, a teacher or images could not be read): these `tune --resume`"
                " takes up again; loss (not finite), error (anything else)",
            ),
            Column(
                "reconstructed",
                "bool",
                "",
                "no full text or code of the method's authors is public: it is rebuilt from what is",
            ),
            _time("asked", "when the search asked for this configuration"),
            _text("hyperparameters", "searched values: dotted name -> value", "JSON"),
            _text(
                "notes", "what the sampler wants to be reminded of, such as a generation", "JSON"
            ),
            _fraction("metric.clean_accuracy", "validation, clean images, at the best epoch"),
            _fraction(
                "metric.robust_accuracy", "validation, under the exam's attack, at the best epoch"
            ),
            _fraction(
                "metric.worst_class_accuracy",
                "validation, robust accuracy of the worst class, at the best epoch",
            ),
            _count(
                "metric.best_epoch",
                "epochs",
                "the finished epoch, from 1, that `validation.select` found best",
            ),
            _fraction(
                "metric.last_clean_accuracy",
                "validation, clean images, at the last validated epoch",
            ),
            _fraction(
                "metric.last_robust_accuracy",
                "validation, under attack, at the last validated epoch",
            ),
            _fraction(
                "metric.robust_overfitting_gap",
                "highest robust accuracy over epochs minus the last one",
            ),
            _count("fidelity.epochs", "epochs", "epochs trained so far"),
            _count("fidelity.of_epochs", "epochs", "epochs of a full run of this configuration"),
            _count("fidelity.training_attack_steps", "steps", "steps of the training attack"),
            _count(
                "fidelity.validation_attack_steps",
                "steps",
                "steps of the attack behind metric.robust_accuracy",
            ),
            _count("fidelity.validation_images", "images", "validation images behind the metrics"),
            _count("run.seed", "", "seed of weights, batches and attacks"),
            _text("run.git_commit", "commit of the code, with `-dirty` where files were changed"),
            _text("run.version", "version of rkdsearch"),
            _text("run.torch", "version of PyTorch"),
            _text("run.ray", "version of Ray; null where the run needed none"),
            _text("run.python", "version of Python"),
            _text("run.device", "name of the accelerator, or of the CPU"),
            _count(
                "run.processes", "processes", "processes that trained this one student together"
            ),
            Column(
                "run.devices",
                "float",
                "devices",
                "what they held together: a GPU's share each; where there is none, a processor each",
            ),
            _count("run.parameters", "weights", "trainable weights of the student"),
            _count(
                "run.multiply_adds",
                "multiply-adds",
                "of the student's convolutions and matrix products for one image",
            ),
            _seconds("run.wall_seconds", "time of all epochs, pauses left out"),
            _seconds("run.device_seconds", "wall seconds times the devices held"),
            _text("run.teacher_sha256", "fingerprint of the robust teacher's weights", "SHA-256"),
            _text(
                "run.natural_teacher_sha256",
                "fingerprint of the natural teacher's weights; null where the method asks none",
                "SHA-256",
            ),
            _text(
                "run.split_sha256", "fingerprint of the training and validation split", "SHA-256"
            ),
            _text("run.pixels_sha256", "fingerprint of up to 512 of its images each", "SHA-256"),
            _text("run.extra_sha256", "the same of data.extra; null without", "SHA-256"),
            _time("run.started", "start of the trial's first epoch"),
            _time("run.updated", "when this row was written"),
        ),
        "epochs": (
            _text("trial_id", "the trial"),
            _count("epoch", "epochs", "finished epochs, from 1"),
            Column("loss", "float", "nats", "mean training loss"),
            _text(
                "terms",
                "mean of each term of the loss, before its weight, kl_scale and tau^2: name -> nats (a"
                " term named *_weight: a weight)",
                "JSON",
            ),
            _fraction(
                "clean_accuracy", "validation, clean images; null in epochs without validation"
            ),
            _fraction(
                "robust_accuracy",
                "validation, under the exam's attack; null in epochs without validation",
            ),
            _fraction(
                "worst_class_accuracy",
                "validation, robust accuracy of the worst class; null in epochs without validation",
            ),
            _fraction(
                "teacher.right_on_adversarial",
                "share of validation images whose x' the teacher gets right; null without teacher",
            ),
            _fraction(
                "teacher.right_on_clean_only",
                "share whose x the teacher gets right, and whose x' wrong",
            ),
            _fraction("teacher.wrong_on_both", "share whose x and x' the teacher both gets wrong"),
            Column("lr", "float", "", "learning rate at the end of the epoch"),
            Column(
                "images_per_second",
                "float",
                "images / second",
                "training images, over all processes",
            ),
            _seconds("seconds", "time of the epoch, validation included"),
            _count("training_attack_steps", "steps", "steps of the training attack"),
            _time("finished", "end of the epoch"),
            _count(
                "segment",
                "training runs",
                "the trial's training run, from 0; a promotion that changes the training attack"
                " starts the next one",
            ),
            _count(
                "validation_attack_steps", "steps", "steps of the attack behind robust_accuracy"
            ),
            _count("processes", "processes", "processes that trained this epoch together"),
        ),
        "rungs": (
            _text("trial_id", "the trial"),
            _count("epochs", "epochs", "length of the rung"),
            _count("validation_attack_steps", "steps", "steps of the validation attack"),
            _fraction("clean_accuracy", "validation, clean images, when it looked"),
            _fraction("robust_accuracy", "validation, under attack, when it looked"),
            _count(
                "best_epoch",
                "epochs",
                "the finished epoch, from 1, that `validation.select` found best so far",
            ),
            _count(
                "rank",
                "",
                "place among the trials that had reached the rung, 1 is best; null for a baseline"
                " before the end of its warm-up",
            ),
            _count("of", "trials", "how many had reached the rung"),
            _text("decision", "promoted, paused, stopped, continued"),
            _text("rule", "the scheduler's rule behind the decision"),
            _time("decided", "when"),
            _count(
                "training_attack_steps", "steps", "steps of the training attack up to this rung"
            ),
            _count("validation_images", "images", "validation images behind these accuracies"),
            _fraction(
                "worst_class_accuracy",
                "validation, robust accuracy of the worst class, when it looked",
            ),
            _count(
                "parameters",
                "weights",
                "trainable weights of the student; null where the space asks nothing about them",
            ),
            _count(
                "multiply_adds",
                "multiply-adds",
                "of the student for one image; null where the space asks nothing about them",
            ),
        ),
        "evaluations": (
            _text("trial_id", "the trial, or `teacher`, `teacher-natural`"),
            _text("label", "a human's name for it"),
            _text("checkpoint", "best (of validation) or last"),
            _text("split", "test; validation here would be a mistake"),
            _text("attack", "clean, pgd20, autoattack"),
            _text("norm", "of the attack's ball, named as in `attack.norm`; null for clean"),
            Column("eps", "float", "pixels of [0, 1]", "radius of the attack's ball"),
            _count(
                "test_attack_steps", "steps", "steps of the attack; null where it has no number"
            ),
            _count("seed", "", "seed of the attack"),
            _count("images", "images", "images that were attacked"),
            _count("of_images", "images", "images of the whole split"),
            _count("correct", "images", "images classified rightly"),
            _fraction("accuracy", "correct / images"),
            _fraction("low", "lower end of the 95 % Wilson interval over images"),
            _fraction("high", "upper end of the 95 % Wilson interval over images"),
            _fraction("worst_class_accuracy", "accuracy of the worst class"),
            _seconds("seconds", "time of this evaluation"),
            _text(
                "flags",
                "list of signs that the attack failed (masked gradients and the like)",
                "JSON",
            ),
            _text(
                "per_image",
                "1 right, 0 wrong, one digit an image in the subset's order: two rows of one subset are"
                " compared in pairs",
            ),
            _text("subset_sha256", "fingerprint of the images and their order", "SHA-256"),
            _text(
                "weights_sha256", "fingerprint of the file of weights that was examined", "SHA-256"
            ),
            _time("evaluated", "when"),
            _text("run.torch", "version of PyTorch"),
            _text("run.device", "name of the accelerator, or of the CPU"),
            _text("run.version", "version of rkdsearch"),
        ),
    }
)

_ABOUT = {
    "trials": (
        "One row a trial, in `trials/<trial_id>.parquet`. Behind `notes` stand the `config.*`"
        " columns: every leaf of the resolved run, null where the method has no such field."
    ),
    "epochs": "One row an epoch of each training run of a trial, in `epochs/<trial_id>.parquet`.",
    "rungs": "One row a decision of the scheduler, in `rungs/<trial_id>.parquet`.",
    "evaluations": (
        "One row a checkpoint, attack, seed and set of images, in"
        " `evaluations/<trial_id>-<checkpoint>-<attack>-<seed>-<8 digits of"
        " subset_sha256>.parquet`: the only test results. Where a network was examined more than"
        " once, our readers show its newest weights and, of each attack, the most images."
    ),
}


def columns(table: str, config: Sequence[Column] = ()) -> tuple[Column, ...]:
    """The columns of a table in file order; `config` columns are put into `trials` alone."""
    fixed = TABLES[table]
    if table != "trials":
        return fixed
    at = next(i for i, column in enumerate(fixed) if column.name == CONFIG_GOES_AFTER) + 1
    return (*fixed[:at], *config, *fixed[at:])


def markdown() -> str:
    """The page `docs/results.md`."""
    lines = [
        "# The results of a study",
        "",
        (
            "<!-- generated: python -c 'from rkdsearch.results import record;"
            ' print(record.markdown(), end="")\' > docs/results.md -->'
        ),
        "",
        (
            f"Schema version {SCHEMA_VERSION}. Every file has all columns of its table, and its"
            " metadata their units and meanings:"
        ),
        (
            '`pandas.read_parquet("studies/digits/trials")` needs nothing of ours. Columns are only'
            " ever added. Files are replaced whole:"
        ),
        (
            "a reader sees the old row or the new one, also while the search runs. What was not"
            " measured (NaN included) is null."
        ),
    ]
    for table, fixed in TABLES.items():
        lines += [
            "",
            f"## {table}",
            "",
            _ABOUT[table],
            "",
            "| column | type | unit | meaning |",
            "|---|---|---|---|",
        ]
        lines += [f"| `{c.name}` | {c.type} | {c.unit} | {c.meaning} |" for c in fixed]
    return "\n".join(lines) + "\n"

"""Rows of the test evaluation: results, the images behind them, openings of the test set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from rkdsearch.results.columns import JSON, Cell
from rkdsearch.results.rows.checks import Checks
from rkdsearch.results.rows.units import FRACTION, SECONDS, SHA256, UTC


@dataclass(frozen=True, kw_only=True)
class EvaluationRun:
    """Code, versions, device and command of an evaluation."""

    torch: Annotated[str, Cell("version of PyTorch", "worker")]
    device: Annotated[str, Cell("name of the accelerator, or of the CPU", "worker")]
    threads: Annotated[int, Cell("threads of one operation on the CPU", "worker", "threads")]
    version: Annotated[str, Cell("version of rkdsearch", "package metadata")]
    versions: Annotated[
        Mapping[str, str],
        Cell("version of Python and of every package that touches a number", "worker", JSON),
    ]
    git_commit: Annotated[
        str | None,
        Cell(
            "commit of the code, with `-dirty` where files were changed; null outside a checkout"
            " of rkdsearch",
            "`git describe`",
        ),
    ]
    git_diff_sha256: Annotated[
        str | None,
        Cell("fingerprint of the changes since that commit; null without", "`git diff`", SHA256),
    ]
    command: Annotated[str, Cell("the whole command line", "driver")]


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """One test result: a checkpoint under an attack with a seed on a set of images."""

    trial_id: Annotated[
        str,
        Cell(
            "the trial, or `teacher`, `teacher-natural`; of a bare checkpoint its file's name",
            "`EvaluationTarget`",
        ),
    ]
    label: Annotated[str, Cell("a human's name for it", "`EvaluationTarget`")]
    training_seed: Annotated[
        int | None,
        Cell("seed that the network was trained with; null for teachers", "`training.seed`"),
    ]
    checkpoint: Annotated[
        str, Cell("always `best`: the best epoch by validation", "`best.safetensors`")
    ]
    split: Annotated[
        str,
        Cell(
            "test: the test images of the network's own data set; other: images of"
            " `evaluate --data`",
            "`evaluation.images`",
        ),
    ]
    dataset: Annotated[
        str, Cell("name of the images, with file and severity", "`data.name`, `evaluate --data`")
    ]
    attack: Annotated[
        str,
        Cell(
            "clean, pgd20, pgd100, margin, targeted, square, autoattack, transfer",
            "`EvaluationJob`",
        ),
    ]
    attack_settings: Annotated[
        Mapping[str, Any],
        Cell(
            "the attack in full: its losses, steps, step sizes, starts, targets, sources",
            "`evaluation.attacks`",
            JSON,
        ),
    ]
    norm: Annotated[
        str | None,
        Cell(
            "of the attack's ball, named as in `attack.norm`; null for clean",
            "`validation.attack`, `evaluate --norm`",
        ),
    ]
    eps: Annotated[
        float,
        Cell(
            "radius of the attack's ball",
            "`validation.attack`, `evaluate --eps`",
            "pixels of [0, 1]",
        ),
    ]
    own_ball: Annotated[
        bool,
        Cell("norm and eps are those of the network's `validation.attack`", "`EvaluationJob`"),
    ]
    test_attack_steps: Annotated[
        int | None,
        Cell("steps of the attack; null where it has no number", "`EvaluationJob`", "steps"),
    ]
    attack_seed: Annotated[int, Cell("seed of the attack", "`evaluate --attack-seeds`")]
    images: Annotated[int, Cell("images that were attacked", "`evaluate --images`", "images")]
    of_images: Annotated[int, Cell("images of the whole set", "`evaluation.images`", "images")]
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
    per_class: Annotated[
        Mapping[str, Sequence[int]],
        Cell("class name -> [correct, images], of classes that have images", "worker", JSON),
    ]
    survivors: Annotated[
        Mapping[str, int],
        Cell(
            "images still right after each part of the attack, in their order, `clean` first: of"
            " AutoAttack after each of its four attacks",
            "worker",
            JSON,
        ),
    ]
    seconds: Annotated[float, Cell("time of this evaluation", "worker", SECONDS)]
    flags: Annotated[
        Sequence[str] | None,
        Cell(
            "list of signs that the attack failed; null for clean images, and where nobody looked."
            " They move nothing",
            "`results.flags.raised`",
            JSON,
        ),
    ]
    check: Checks | None
    warnings: Annotated[
        Sequence[str],
        Cell("list of what AutoAttack's package says of the network", "pyautoattack", JSON),
    ]
    seen: Annotated[
        str | None,
        Cell(
            "how many of the images the network was trained or chosen on, bit for bit, in words;"
            " null: none, or the training images were not there to be compared",
            "`evaluation.leakage`",
        ),
    ]
    per_image: Annotated[
        str,
        Cell(
            "1 right, 0 wrong, one digit an image in the order of `subsets`: two rows of one subset"
            " are compared in pairs",
            "worker",
        ),
    ]
    subset_sha256: Annotated[
        str,
        Cell("fingerprint of the images: pixels, labels and order", "`evaluation.images`", SHA256),
    ]
    weights_sha256: Annotated[
        str,
        Cell("fingerprint of the file of weights that was evaluated", "`EvaluationTarget`", SHA256),
    ]
    config_sha256: Annotated[
        str | None,
        Cell(
            "fingerprint of the run that was named for a bare checkpoint (`--config`, or the"
            " run.yaml beside it); null where the file or the study holds it",
            "`EvaluationTarget`",
            SHA256,
        ),
    ]
    opening: Annotated[str, Cell("the opening of the images, a row of `openings`", "driver")]
    evaluated: Annotated[datetime, Cell("when", "clock", UTC)]
    run: EvaluationRun


@dataclass(frozen=True, kw_only=True)
class SubsetRow:
    """One image of an evaluated set: what a digit of `evaluations.per_image` belongs to."""

    subset_sha256: Annotated[
        str, Cell("the set, as in `evaluations`", "`evaluation.images`", SHA256)
    ]
    position: Annotated[
        int, Cell("place of the image's digit in `per_image`, from 0", "`evaluation.images`")
    ]
    row: Annotated[int, Cell("place of the image in the whole set, from 0", "`evaluation.images`")]
    label: Annotated[int, Cell("its class, from 0, as logits are ordered", "`evaluation.images`")]
    class_name: Annotated[str, Cell("name of its class", "`evaluation.images`")]


@dataclass(frozen=True, kw_only=True)
class OpeningRow:
    """One opening of test images: who looked at what, and what the search did meanwhile."""

    opening: Annotated[str, Cell("name of the opening; also its file's name", "driver")]
    opened: Annotated[datetime, Cell("when", "clock", UTC)]
    command: Annotated[str, Cell("the whole command line", "driver")]
    split: Annotated[
        str,
        Cell(
            "test: the network's own test images, corrupted ones too; other: images of"
            " `evaluate --data`",
            "`evaluation.images`",
        ),
    ]
    dataset: Annotated[str, Cell("name of the images", "`data.name`, `evaluate --data`")]
    subset_sha256: Annotated[str, Cell("fingerprint of the images", "`evaluation.images`", SHA256)]
    images: Annotated[int, Cell("images that were attacked", "`evaluate --images`", "images")]
    of_images: Annotated[int, Cell("images of the whole set", "`evaluation.images`", "images")]
    checkpoints: Annotated[
        Mapping[str, str], Cell("trial -> sha256 of its weights", "`EvaluationTarget`", JSON)
    ]
    attacks: Annotated[Sequence[str], Cell("attacks, with ball and seed", "`EvaluationJob`", JSON)]
    searching: Annotated[
        bool, Cell("a search was running in the study meanwhile", "file lock of the study")
    ]
    trials: Annotated[int, Cell("trials that the study had by then", "`trials`", "trials")]
    version: Annotated[str, Cell("version of rkdsearch", "package metadata")]
    git_commit: Annotated[str | None, Cell("as in `evaluations`", "`git describe`")]

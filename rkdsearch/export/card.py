"""The model card: what the network is, how it is loaded, what was claimed and measured of it, and how it was made.

Nothing is measured here. Numbers are copied from the study's rows, with their n and intervals; what
was not measured is said to be so.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from rkdsearch import config as run
from rkdsearch.attacks import BALLS
from rkdsearch.config import TrainConfig, ValidationAttack
from rkdsearch.errors import RkdError
from rkdsearch.methods import name_of
from rkdsearch.models import ModelConfig
from rkdsearch.plugins import is_dotted
from rkdsearch.results import summary
from rkdsearch.results.intervals import accuracy
from rkdsearch.task import ImageTask
from rkdsearch.teacher import fingerprint
from rkdsearch.training import checkpoint
from rkdsearch.training.teacher import find_file

WEIGHTS = "student.safetensors"  # beside the card
THREAT = (
    "An attacker who knows the network and may change every pixel within {ball}. Nothing is claimed"
    " of other balls, of patches, rotations or corruptions, or of images from elsewhere."
)
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Delivery:
    """All that is known of a trial's best network."""

    home: Path  # the study's folder
    study: str
    trial: Row
    config: TrainConfig
    task: ImageTask
    classes: tuple[str, ...]  # their names, in the order of the logits
    sha256: str
    evaluations: Sequence[Row]
    # of the training attack, in the run that is delivered, in the order of its epochs
    attack_steps: Sequence[int]
    processes: Sequence[int]  # that trained it together, likewise
    teachers: Mapping[str, Row]

    @property
    def tests(self) -> list[Row]:
        """What its best network reached on test images."""
        mine = (row for row in self.evaluations if row["trial_id"] == self.trial["trial_id"])
        return [row for row in mine if row["split"] == "test" and row["checkpoint"] == "best"]


def card(d: Delivery) -> str:
    """The model card, Markdown."""
    config, exam = d.config, d.config.validation.attack
    method = name_of(config.method)
    title = (
        f"# {d.trial['label'] or d.trial['trial_id']}: {config.student.name} on {config.data.name},"
        f" trained by {method}"
    )
    parts = [
        title,
        *_notices(d),
        "## What it is",
        _what(d),
        "## How to load it",
        "```python\n" + loading(d) + "\n```",
        f"`{WEIGHTS}` runs no code when loaded. sha256 `{d.sha256}`.",
        "## Threat model",
        THREAT.format(ball=ball(exam)),
        "## Results",
        _results(d),
        "## How it was made",
        _made(d),
        "## Teachers",
        _lineage(d),
    ]
    return "\n\n".join(parts) + "\n"


def _what(d: Delivery) -> str:
    task, weights = d.task, d.trial["run.parameters"] or "an unknown number of"
    return (
        f"A `{named(d.config.student)}` with {weights} trainable weights. It takes images of"
        f" {task.channels} x {task.height} x {task.width} pixels in [0, 1] (normalisation is"
        f" inside) and gives {task.classes} logits, in this order:"
        f" {', '.join(d.classes)}."
    )


def loading(d: Delivery) -> str:
    """Six lines of Python that load the network, run beside the weights; two more permit a network of one's own to be imported."""
    given = ", ".join(
        f"{name}={value!r}"
        for name, value in d.config.student.model_dump().items()
        if value is not None
    )
    own = own_packages(d.config.student.name)
    return "\n".join(
        [
            "from pathlib import Path",
            *(["from rkdsearch import plugins"] if own else []),
            "from rkdsearch.models import ModelConfig",
            "from rkdsearch.task import ImageTask",
            "from rkdsearch.teacher import load",
            *(
                f"plugins.allow_import({package!r})  # its folder must be on PYTHONPATH"
                for package in own
            ),
            f"network = load(Path({WEIGHTS!r}), ModelConfig({given}), {d.task!r})",
            (
                f"logits = network(x)  # x: (N, {', '.join(map(str, d.task.shape))}), pixels of"
                " [0, 1]"
            ),
        ]
    )


def own_packages(*names: str) -> list[str]:
    """The packages of the user's in which these networks and methods lie, each once; none for ours and the libraries'."""
    return list(dict.fromkeys(name.partition(".")[0] for name in names if is_dotted(name)))


def _notices(d: Delivery) -> list[str]:
    found = []
    why = d.config.method.reconstructed
    if why is not None:
        found.append(
            f"> **RECONSTRUCTED.** {name_of(d.config.method)} is ours, after its abstract: {why}."
            " These are not its authors' results."
        )
    if d.trial["status"] != "finished":
        length = f"{d.trial['fidelity.epochs']} of {d.trial['fidelity.of_epochs']} epochs"
        found.append(f"> **Not a full run.** This trial is {d.trial['status']}, after {length}.")
    if len(d.attack_steps) > 1:
        found.append(
            "> **Trained under more than one attack.** Its search began with fewer steps:"
            f" {in_turn(d.attack_steps)}. The settings below alone do not repeat it."
        )
    return found


def _results(d: Delivery) -> str:
    """Validation, then test, every number with its n and interval."""
    exam = d.config.validation.attack
    lines = [
        "| images | attack | seed | right | accuracy | 95 % interval | signs of a failed attack |",
        "|---|---|---|---|---|---|---|",
    ]
    n = d.trial["fidelity.validation_images"]
    for attack, name in (
        ("none", "clean"),
        (f"PGD-{d.trial['fidelity.validation_attack_steps'] or exam.steps}", "robust"),
    ):
        value = d.trial[f"metric.{name}_accuracy"]
        if value is not None and n:
            lines.append(f"| validation | {attack} | - | {_score(round(value * n), int(n))} | - |")
    tested = d.tests
    for row in tested:
        name = {"clean": "none", "autoattack": "AutoAttack, standard"}.get(
            row["attack"], str(row["attack"]).upper().replace("PGD", "PGD-")
        )
        flags = "; ".join(summary.signs(row["flags"])) or "none seen"
        place = f"test ({row['images']} of {row['of_images']})"
        lines.append(
            f"| {place} | {name} | {row['seed']} | {_score(row['correct'], row['images'])} |"
            f" {flags} |"
        )
    text = "\n".join(lines)
    text += (
        f"\n\nAttacks stay within {ball(exam)}. Intervals are Wilson's, over images; they say"
        " nothing of other training seeds."
    )
    if tested:
        return (
            text
            + "\nThe epoch, and the trial among others, were chosen by the validation rows, which"
            " are therefore flattered."
        )
    who = (
        f"`rkdsearch evaluate STUDY --trial {d.trial['trial_id']}` does it"
        if d.trial["status"] == "finished"
        else "Only full runs are"
    )
    return (
        f"{text}\n**Not examined on test images.** {who}; validation numbers are flattered by"
        " having chosen the epoch, and the trial among others."
    )


def in_turn(numbers: Sequence[int]) -> str:
    """`4, then 10`."""
    return ", then ".join(str(n) for n in numbers)


def _score(correct: int, images: int) -> str:
    estimate = accuracy(int(correct), int(images))
    return (
        f"{correct}/{images} | {100 * estimate.value:.2f} % | {100 * estimate.low:.2f} to"
        f" {100 * estimate.high:.2f} %"
    )


def _made(d: Delivery) -> str:
    """The protocol: where, when, by what, and every setting of the run."""
    trial, config = d.trial, d.config
    where = ", ".join(
        f"{name} {trial[f'run.{name}']}"
        for name in ("version", "git_commit", "torch", "python", "device")
        if trial[f"run.{name}"]
    )
    split, judged = trial["run.split_sha256"], f"`validation.select: {config.validation.select}`"
    facts = (
        f"Trial `{trial['trial_id']}` of the study `{d.study}` ({trial['origin']}); {where}.\nBest"
        f" epoch {trial['metric.best_epoch']} of {trial['fidelity.epochs']} trained, by {judged};"
        f" seed {trial['run.seed']}, {in_turn(d.processes) or 'an unknown number of'} process(es),"
        f" training and validation split sha256 `{split}`."
    )
    settings = [
        f"{name}: {json.dumps(value)}"
        for name, value in run.flatten_tree(config.to_dict()).items()
        if value is not None
    ]
    return (
        facts
        + "\n\n```yaml\n"
        + "\n".join(s for s in settings if not s.startswith("teachers."))
        + "\n```"
    )


def _lineage(d: Delivery) -> str:
    """Each teacher the method asked: file, hash, what it measured, and how it was made where the file says so."""
    roles = d.config.asked_teachers
    if not roles:
        return "None: the method learns from labels alone."
    lines = []
    for role in roles:
        teacher = d.config.teachers.of(role)
        facts = d.teachers.get(role) or {}
        sha256 = teacher.sha256 or facts.get("sha256") or "not recorded"
        lines.append(
            f"- **{role}**: `{named(teacher.network)}`, sha256 `{sha256}`."
            f" {_origin(d.home, facts.get('path') or teacher.path, sha256)}"
        )
        if facts.get("images"):
            n = int(facts["images"])
            scores = []
            for name in ("clean", "robust"):
                right = round(facts[f"{name}_accuracy"] * n)
                estimate = accuracy(right, n)
                scores.append(
                    f"{name} {right}/{n} = {100 * estimate.value:.2f} % [{100 * estimate.low:.2f},"
                    f" {100 * estimate.high:.2f}]"
                )
            lines.append(
                f"  {', '.join(scores).capitalize()}, by the study's exam on"
                f" {facts.get('measured_on', 'validation images')}."
            )
        claims = [
            f"{n} {100 * v:.2f} %"
            for n in ("clean", "robust")
            if (v := getattr(teacher, f"{n}_accuracy")) is not None
        ]
        if claims:
            lines.append(f"  Its publisher claims {', '.join(claims)}.")
    return "\n".join(lines)


def _origin(home: Path, path: str | None, sha256: str) -> str:
    """How the teacher in this file was made, as far as the file says it."""
    if path is None:
        return "No file was recorded."
    file = find_file(home, path)
    if file is None or (len(sha256) == 64 and fingerprint(file) != sha256):
        return (
            f"Its file, `{Path(path).name}`, was not found when this card was written: how it was"
            " made is not known here."
        )
    try:
        made = run.build(checkpoint.read(file)[1]["config"], path)
    except (RkdError, KeyError, TypeError):
        return f"From the file `{file.name}`, which does not say how or on what it was trained."
    attack = (
        f", training attack {made.attack.norm} eps {fraction(made.attack.eps)}"
        if name_of(made.method) != "natural"
        else ""
    )
    return (
        f"Trained by rkdsearch: {name_of(made.method)}{attack}, at most {made.training.epochs}"
        f" epochs, on the training images of {made.data.name} (split seed {made.data.split_seed},"
        f" validation fraction {made.data.validation_fraction:g}), seed {made.training.seed}."
    )


def ball(exam: ValidationAttack) -> str:
    """The exam's ball, for people."""
    return f"the {BALLS[exam.norm].title} ball of radius {fraction(exam.eps)} (pixels of [0, 1])"


def fraction(eps: float) -> str:
    """`8/255` where eps is a whole number of grey levels; else the decimal."""
    levels = Fraction(eps * 255).limit_denominator(100)
    return (
        f"{levels}/255"
        if levels.denominator == 1 and levels < 255 and abs(float(levels) - eps * 255) < 1e-9
        else f"{eps:g}"
    )


def named(network: ModelConfig) -> str:
    """`wide_resnet (depth 34, width 10)`: its name, and what it was given."""
    size = [
        f"{name} {value}"
        for name in ("depth", "width")
        if (value := getattr(network, name)) is not None
    ]
    return network.name + (f" ({', '.join(size)})" if size else "")

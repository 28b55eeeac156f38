"""The model card: what the network is, how to load it, its results, how it was made, its teachers.

Nothing is measured here. Numbers are copied from the study's rows, with their n and intervals; the
card says so where a number was not measured.
"""

import json
from pathlib import Path

from rkdsearch import config as run
from rkdsearch.errors import RkdError
from rkdsearch.exporting.exported_network import (
    WEIGHTS,
    ExportedNetwork,
    ball_text,
    join_then,
    network_text,
)
from rkdsearch.exporting.loading_code import loading_code
from rkdsearch.methods import name_of
from rkdsearch.results.cells import flags_of, radius_text
from rkdsearch.results.flags import signs_of_teacher, summary
from rkdsearch.results.intervals import wilson
from rkdsearch.results.states import ATTACKS, Origin, Status
from rkdsearch.teacher import fingerprint
from rkdsearch.training import checkpoint
from rkdsearch.training.teacher import find_file

THREAT = (
    "White-box attacks that change every pixel within {ball}. No robustness is claimed against"
    " other balls, patches, rotations or corruptions, or on images of another distribution."
)


def model_card(d: ExportedNetwork) -> str:
    """The model card, Markdown."""
    config, attack = d.config, d.config.validation.attack
    method = name_of(config.method)
    title = (
        f"# {d.trial['label'] or d.trial['trial_id']}: {config.student.name} on {config.data.name},"
        f" trained by {method}"
    )
    parts = [
        title,
        *_notices(d),
        "## What it is",
        _description(d),
        "## How to load it",
        "```python\n" + loading_code(d) + "\n```",
        f"`{WEIGHTS}` runs no code when loaded. sha256 `{d.sha256}`.",
        "## Threat model",
        THREAT.format(ball=ball_text(attack)),
        "## Results",
        _results(d),
        "## The same configuration with other training seeds",
        _replicates(d),
        "## How it was made",
        _made(d),
        "## Teachers",
        _teachers(d),
    ]
    # a label of a stranger's study may hold what a terminal obeys
    return "".join(c for c in "\n\n".join(parts) if c.isprintable() or c == "\n") + "\n"


def _description(d: ExportedNetwork) -> str:
    task, weights = d.task, d.trial["run.parameters"] or "an unknown number of"
    return (
        f"A `{network_text(d.config.student)}` with {weights} trainable parameters. It takes images"
        f" of {task.channels} x {task.height} x {task.width} (channels, height, width) pixels in"
        " [0, 1] (normalisation is"
        f" inside) and gives {task.classes} logits, in this order:"
        f" {', '.join(d.classes)}."
        + (f" Its images were {d.preprocessing}." if d.preprocessing else "")
    )


def _notices(d: ExportedNetwork) -> list[str]:
    found = []
    why = d.config.method.reconstructed
    if why is not None:
        found.append(
            f"> **RECONSTRUCTED.** This {name_of(d.config.method)} follows the paper's abstract:"
            f" {why}. These are not its authors' results."
        )
    if flags := flags_of(d.trial["flags"]):
        found.append(
            f"> **Flagged** ({', '.join(flags)}). Its robust accuracy on validation images is not"
            " to be believed; the table of results says why."
        )
    if d.trial["status"] != Status.FINISHED:
        length = f"{d.trial['fidelity.epochs']} of {d.trial['fidelity.of_epochs']} epochs"
        found.append(f"> **Not a full run.** This trial is {d.trial['status']}, after {length}.")
    if len(d.training_attack_steps) > 1:
        found.append(
            "> **Trained with more than one attack.** The search began with fewer steps of the"
            f" training attack: {join_then(d.training_attack_steps)}. The settings below alone do"
            " not reproduce the network."
        )
    return found


def _results(d: ExportedNetwork) -> str:
    """Validation and test results, every number with its n and interval."""
    validation_attack = d.config.validation.attack
    lines = [
        (
            "| images | attack | attack seed | correct | accuracy | 95 % interval |"
            " signs of a failed attack |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    n = d.trial["fidelity.validation_images"]
    known = d.trial["fidelity.validation_attack_steps"]
    steps = {"steps": int(known)} if known else {}
    for attack, name in (
        ("none", "clean"),
        (validation_attack.model_copy(update=steps).title, "robust"),
    ):
        value = d.trial[f"metric.{name}_accuracy"]
        if value is not None and n:
            seen = summary(d.trial) if name == "robust" else "-"
            lines.append(
                f"| validation | {attack} | - | {_score(round(value * n), int(n))} | {seen} |"
            )
    tested = d.tests
    for row in tested:
        name = attack_name(str(row["attack"]))
        flags = "-" if row["attack"] == "clean" else summary(row)
        place = f"test ({row['images']} of {row['of_images']})"
        lines.append(
            f"| {place} | {name} | {row['attack_seed']} | {_score(row['correct'], row['images'])} |"
            f" {flags} |"
        )
    text = "\n".join(lines)
    text += (
        f"\n\nThis one network, training seed {d.trial['run.seed']}. Attacks stay within"
        f" {ball_text(validation_attack)}. Intervals are Wilson's, over images; they do not cover"
        " the choice of the training seed."
    )
    searched = d.trial["origin"] == Origin.SEARCH
    selected = "the epoch and the trial" if searched else "the epoch"
    biased = (
        f"The validation rows selected {selected}: they are optimistically biased by that"
        " selection."
    )
    if tested:
        return f"{text}\n{biased}" + (f" {d.opened}" if d.opened else "")
    remedy = (
        f"`rkdsearch evaluate STUDY --trial {d.trial['trial_id']}` does it"
        if d.trial["status"] == Status.FINISHED
        else "Only full runs are evaluated"
    )
    return f"{text}\n**Not evaluated on test images.** {remedy}. {biased}"


def _replicates(d: ExportedNetwork) -> str:
    """Means over the training runs of the same configuration with other seeds."""
    if d.replicates is None:
        return (
            "None: this configuration was trained once, so nothing here says how much another"
            " training seed would change."
        )
    found = d.replicates
    failed = f", and {found['failed']} more failed" if found["failed"] else ""
    among = "one of" if d.trial["origin"] == Origin.REPLICATE else "not among"
    what = "baseline" if not found["selected"] else "configuration that the search chose"
    lines = [
        (
            f"This {what} was trained again with {found['seeds']} other training seed(s){failed};"
            f" the network of this card is {among} these runs. A single network promises no more"
            " than their means."
        ),
        "",
        "| images | attack | runs | mean accuracy | over runs |",
        "|---|---|---|---|---|",
    ]
    for name in ("clean", "robust"):
        attack = "none" if name == "clean" else d.config.validation.attack.title
        deviation = found[f"{name}_sd"]
        spread = "one run" if deviation is None else f"standard deviation {100 * deviation:.2f}"
        lines.append(
            f"| validation | {attack} | {found['seeds']} | {100 * found[name]:.2f} % | {spread} |"
        )
    for mean in d.over_seeds:
        ends = f"{100 * mean.estimate.low:.2f} to {100 * mean.estimate.high:.2f} %"
        interval = f"95 % interval {ends}" if mean.has_interval else "no interval from one run"
        lines.append(
            f"| test ({mean.images}) | {attack_name(mean.attack)} | {mean.seeds} |"
            f" {100 * mean.estimate.value:.2f} % | {interval} |"
        )
    if d.over_seeds:
        lines += ["", "Test intervals cover images and training seeds (Student's t)."]
    return "\n".join(lines)


def attack_name(attack: str) -> str:
    """An attack's name for people."""
    return {**ATTACKS, "clean": "none", "autoattack": "AutoAttack, standard"}.get(attack, attack)


def _score(correct: int, images: int) -> str:
    estimate = wilson(int(correct), int(images))
    return (
        f"{correct}/{images} | {100 * estimate.value:.2f} % | {100 * estimate.low:.2f} to"
        f" {100 * estimate.high:.2f} %"
    )


def _made(d: ExportedNetwork) -> str:
    """The protocol: study, versions, device, best epoch, seed, split, and all settings."""
    trial, config = d.trial, d.config
    where = ", ".join(
        f"{name} {trial[f'run.{name}']}"
        for name in ("version", "git_commit", "torch", "python", "device")
        if trial[f"run.{name}"]
    )
    split, select = trial["run.split_sha256"], f"`validation.select: {config.validation.select}`"
    processes = join_then(d.processes) or "an unknown number of"
    facts = (
        f"Trial `{trial['trial_id']}` of the study `{d.study}` ({trial['origin']}); {where}.\nBest"
        f" epoch {trial['metric.best_epoch']} of {trial['fidelity.epochs']} trained, by {select};"
        f" training seed {trial['run.seed']}, {processes} process(es),"
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


def _teachers(d: ExportedNetwork) -> str:
    """Each teacher of the method: network, hash, origin, measured accuracies and claims."""
    roles = d.config.teacher_roles
    if not roles:
        return "None: the method learns from labels only."
    lines = []
    for role in roles:
        teacher = d.config.teachers.of(role)
        facts = d.teachers.get(role) or {}
        sha256 = teacher.sha256 or facts.get("sha256") or "not recorded"
        lines.append(
            f"- **{role}**: `{network_text(teacher.network)}`, sha256 `{sha256}`."
            f" {_teacher_origin(d.home, facts.get('path') or teacher.path, sha256)}"
        )
        if facts.get("images"):
            n = int(facts["images"])
            scores = []
            for name in ("clean", "robust"):
                right = round(facts[f"{name}_accuracy"] * n)
                estimate = wilson(right, n)
                scores.append(
                    f"{name} {right}/{n} = {100 * estimate.value:.2f} % [{100 * estimate.low:.2f},"
                    f" {100 * estimate.high:.2f}]"
                )
            lines.append(
                f"  {', '.join(scores).capitalize()}, under the study's validation attack on"
                f" {facts.get('measured_on', 'validation images')}."
            )
        if signs := signs_of_teacher(facts):
            lines.append(
                f"  Flagged, its robust accuracy is not to be believed: {'; '.join(signs)}."
            )
        if facts.get("contents"):
            lines.append(f"  Of its file: {facts['contents']}.")
        claims = [
            f"{n} {100 * v:.2f} %"
            for n in ("clean", "robust")
            if (v := getattr(teacher, f"{n}_accuracy")) is not None
        ]
        if claims:
            lines.append(f"  Its publisher claims {', '.join(claims)}.")
    return "\n".join(lines)


def _teacher_origin(home: Path, path: str | None, sha256: str) -> str:
    """The origin of the teacher in this file, as far as the file records it."""
    if path is None:
        return "No file was recorded."
    file = find_file(home, path)
    if file is None or (len(sha256) == 64 and fingerprint(file) != sha256):
        return (
            f"Its file, `{Path(path).name}`, was not found when this card was written, so its"
            " training is not known."
        )
    try:
        made = run.build_stored(checkpoint.state_of(file)["config"], path)
    except (RkdError, KeyError, TypeError):
        return (
            f"From the file `{file.name}`, which does not record how or on which images it was"
            " trained."
        )
    attack = (
        f", training attack {made.attack.norm} eps {radius_text(made.attack.eps)}"
        if name_of(made.method) != "natural"
        else ""
    )
    return (
        f"Trained by rkdsearch: {name_of(made.method)}{attack}, at most {made.training.epochs}"
        f" epochs, on the training images of {made.data.name} (split seed {made.data.split_seed},"
        f" validation fraction {made.data.validation_fraction:g}), seed {made.training.seed}."
    )

"""A network leaves the house: bare weights, a model card that says how they were made and judged, and one RobustBench-style entry.

Nothing is measured here. Numbers are copied from the study's rows, with their n and intervals; what was not measured is said to be so.
"""

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor, nn

from rkdsearch import config as run
from rkdsearch import data
from rkdsearch.config import ExamAttack, TeachersConfig, TrainConfig
from rkdsearch.errors import CheckpointError, RkdError, StudyError, TeacherError
from rkdsearch.methods import name_of
from rkdsearch.models import ModelConfig
from rkdsearch.results import summary
from rkdsearch.results.intervals import accuracy
from rkdsearch.teacher import fingerprint, header, load, read_state
from rkdsearch.training import checkpoint, onnx_export
from rkdsearch.training.teacher import found_in

WEIGHTS, CARD, ENTRY, RUN, ONNX = "student.safetensors", "README.md", "robustbench.json", "run.yaml", "student.onnx"
ASKED = 5  # images, of the network and of its ONNX file: any number but the exporter's own two
THREAT = (
    "An attacker who knows the network and may change every pixel within {ball}. Nothing is claimed of other balls, of patches, "
    "rotations or corruptions, or of images from elsewhere."
)
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Shape:
    """What the network sees and says: class names, colour channels, pixels a side."""

    classes: tuple[str, ...]
    channels: int
    size: int


@dataclass(frozen=True)
class Delivery:
    """All that is known of a trial's best network."""

    home: Path  # the study's folder
    study: str
    trial: Row
    config: TrainConfig
    shape: Shape
    sha256: str
    evaluations: Sequence[Row]
    attack_steps: Sequence[int]  # of the training attack, in the run that is delivered, in the order of its epochs
    teachers: Mapping[str, Row]


def convert(source: Path, target: Path) -> dict[str, Tensor]:
    """Rewrite a torch or safetensors file as safetensors: the same names, the same bits, nothing to run. Raises TeacherError."""
    if target.suffix != ".safetensors":
        raise TeacherError(f"{target}: the new file is safetensors and must be named so; call it {target.with_suffix('.safetensors').name}")
    if target.exists():
        raise TeacherError(f"{target}: exists already and is not overwritten; name another file, or remove it")
    # Cloned, because tied weights share memory, and safetensors keeps each tensor by itself.
    tensors = {name: tensor.clone().contiguous() for name, tensor in read_state(source).items()}
    _write(target, _in_order(save(tensors, metadata={**header(source), "source": source.name, "source_sha256": fingerprint(source)})))
    return tensors


def _in_order(content: bytes) -> bytes:
    """The same safetensors file with its header in order: the library shuffles it, and the same network would have another sha256 each time."""
    end = 8 + int.from_bytes(content[:8], "little")
    ordered = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    ordered += b" " * (-len(ordered) % 8)  # tensors begin on a word, as the format asks
    return len(ordered).to_bytes(8, "little") + ordered + content[end:]


def export(study: Path, trial_id: str, weights: Path, out: Path, *, onnx: bool = False) -> tuple[Path, ...]:
    """Write the trial's best network, its card, its entry and its run into `out`; returns the files. `weights` is the trial's `best.safetensors`.

    Raises StudyError for an unknown trial, CheckpointError for missing weights, DataError where the training images are gone (they give
    the network its shape), RkdError where `onnx` is asked and not installed, or its file does not answer as the network does.
    """
    if onnx:
        onnx_export.need()
    rows = summary.read(study)
    found = summary.records(rows.trials[rows.trials["trial_id"] == trial_id])
    if not found:
        raise StudyError(f"{study}: there is no trial '{trial_id}'; `rkdsearch status {study}` lists what there is")
    tensors, state = checkpoint.read(weights)
    if "config" not in state:
        raise CheckpointError(f"{weights}: holds no description of its run; name the trial's best.safetensors")
    config = run.build(state["config"], str(weights))
    images = data.load_training(config.data).train
    shape = Shape(tuple(map(str, images.classes)), images.channels, images.size)
    file = out / WEIGHTS
    # Who takes it for a teacher must know which images it has seen.
    said = {"network": config.student.model_dump(mode="json"), "state": {"split_sha256": state.get("split_sha256")}}
    _write(file, _in_order(save(tensors, metadata={name: json.dumps(value, sort_keys=True) for name, value in said.items()})))
    network = _same_network(file, weights, config.student, shape, tensors)
    described = rows.description.get("teachers") or {}
    delivery = Delivery(
        home=study,
        study=rows.name,
        trial=found[0],
        config=config,
        shape=shape,
        sha256=fingerprint(file),
        evaluations=summary.records(rows.tests),
        attack_steps=_attack_steps(rows, trial_id),
        teachers=described if isinstance(described, dict) else {},
    )
    _write(out / CARD, card(delivery).encode())
    _write(out / ENTRY, (json.dumps(entry(delivery), indent=2) + "\n").encode())
    _write(out / RUN, repeated(delivery).encode())
    files = [file, out / CARD, out / ENTRY, out / RUN]
    if onnx:
        onnx_export.write(network, images.floats(slice(ASKED))[0], out / ONNX)
        files.append(out / ONNX)
    return tuple(files)


def _same_network(file: Path, source: Path, network: ModelConfig, shape: Shape, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Read back as a stranger will: what is delivered must be what was judged."""
    loaded = load(file, network, classes=len(shape.classes), channels=shape.channels, size=shape.size)
    state = loaded.state_dict()
    different = [
        name for name, tensor in tensors.items() if name not in state or not torch.equal(state[name], tensor.to(state[name].dtype))
    ]
    if different:
        raise CheckpointError(f"{source}: {different[0]} did not survive being written and read back; is the disk in order?")
    return loaded


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)  # noqa: PTH105 - the atomic one, by its own name
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise RkdError(f"{path}: could not be written: {error}; is the folder yours, and the disk not full?") from error


# ---------------------------------------------------------------------------------------------------------------- the card


def card(d: Delivery) -> str:
    """The model card, Markdown."""
    config, exam = d.config, d.config.validation.attack
    method = name_of(config.method)
    title = f"# {d.trial['label'] or d.trial['trial_id']}: {config.student.name} on {config.data.name}, trained by {method}"
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
    shape, weights = d.shape, d.trial["run.parameters"] or "an unknown number of"
    return (
        f"A `{_network(d.config.student)}` with {weights} trainable weights. It takes images of {shape.channels} x {shape.size} x {shape.size} "
        f"pixels in [0, 1] (normalisation is inside) and gives {len(shape.classes)} logits, in this order: {', '.join(shape.classes)}."
    )


def loading(d: Delivery) -> str:
    """Five lines of Python that load the network, run beside the weights."""
    shape = d.shape
    sizes = f"classes={len(shape.classes)}, channels={shape.channels}, size={shape.size}"
    given = ", ".join(f"{name}={value!r}" for name, value in d.config.student.model_dump().items() if value is not None)
    return "\n".join(
        [
            "from pathlib import Path",
            "from rkdsearch.models import ModelConfig",
            "from rkdsearch.teacher import load",
            f"network = load(Path({WEIGHTS!r}), ModelConfig({given}), {sizes})",
            f"logits = network(x)  # x: (N, {shape.channels}, {shape.size}, {shape.size}), pixels of [0, 1]",
        ]
    )


def _notices(d: Delivery) -> list[str]:
    found = []
    why = d.config.method.reconstructed
    if why is not None:
        found.append(
            f"> **RECONSTRUCTED.** {name_of(d.config.method)} is ours, after its abstract: {why}. These are not its authors' results."
        )
    if d.trial["status"] != "finished":
        length = f"{d.trial['fidelity.epochs']} of {d.trial['fidelity.of_epochs']} epochs"
        found.append(f"> **Not a full run.** This trial is {d.trial['status']}, after {length}.")
    if len(d.attack_steps) > 1:
        steps = ", then ".join(str(n) for n in d.attack_steps)
        found.append(
            f"> **Trained under more than one attack.** Its search began with fewer steps: {steps}. The settings below alone do not repeat it."
        )
    return found


def _attack_steps(study: summary.Study, trial_id: str) -> list[int]:
    epochs = study.epochs[study.epochs["trial_id"] == trial_id]
    last = epochs[epochs["leg"].fillna(0) == epochs["leg"].fillna(0).max()]
    return list(dict.fromkeys(int(n) for n in last["training_attack_steps"].dropna()))


def _results(d: Delivery) -> str:
    """Validation, then test, every number with its n and interval."""
    exam = d.config.validation.attack
    lines = ["| images | attack | seed | right | accuracy | 95 % interval | signs of a failed attack |", "|---|---|---|---|---|---|---|"]
    n = d.trial["metric.images"]
    for attack, name in (("none", "clean"), (f"PGD-{d.trial['fidelity.validation_attack_steps'] or exam.steps}", "robust")):
        value = d.trial[f"metric.{name}_accuracy"]
        if value is not None and n:
            lines.append(f"| validation | {attack} | - | {_score(round(value * n), int(n))} | - |")
    tested = _tests(d, d.trial["trial_id"])
    for row in tested:
        name = {"clean": "none", "autoattack": "AutoAttack, standard"}.get(row["attack"], str(row["attack"]).upper().replace("PGD", "PGD-"))
        flags = "; ".join(summary.signs(row["flags"])) or "none seen"
        place = f"test ({row['images']} of {row['of_images']})"
        lines.append(f"| {place} | {name} | {row['seed']} | {_score(row['correct'], row['images'])} | {flags} |")
    text = "\n".join(lines)
    text += f"\n\nAttacks stay within {ball(exam)}. Intervals are Wilson's, over images; they say nothing of other training seeds."
    if tested:
        return text + "\nThe epoch, and the trial among others, were chosen by the validation rows, which are therefore flattered."
    who = f"`rkdsearch evaluate STUDY --trial {d.trial['trial_id']}` does it" if d.trial["status"] == "finished" else "Only full runs are"
    return (
        f"{text}\n**Not examined on test images.** {who}; validation numbers are flattered by having chosen the epoch, "
        "and the trial among others."
    )


def _score(correct: int, images: int) -> str:
    estimate = accuracy(int(correct), int(images))
    return f"{correct}/{images} | {100 * estimate.value:.2f} % | {100 * estimate.low:.2f} to {100 * estimate.high:.2f} %"


def _tests(d: Delivery, trial_id: object) -> list[Row]:
    return [row for row in d.evaluations if row["trial_id"] == trial_id and row["split"] == "test" and row["checkpoint"] == "best"]


def _made(d: Delivery) -> str:
    """The protocol: where, when, by what, and every setting of the run."""
    trial, config = d.trial, d.config
    where = ", ".join(
        f"{name} {trial[f'run.{name}']}" for name in ("version", "git_commit", "torch", "python", "device") if trial[f"run.{name}"]
    )
    split, judged = trial["run.split_sha256"], f"`validation.select: {config.validation.select}`"
    facts = (
        f"Trial `{trial['trial_id']}` of the study `{d.study}` ({trial['origin']}); {where}.\n"
        f"Best epoch {trial['metric.best_epoch']} of {trial['fidelity.epochs']} trained, by {judged}; "
        f"seed {trial['run.seed']}, {trial['run.processes']} process(es), training and validation split sha256 `{split}`."
    )
    settings = [f"{name}: {json.dumps(value)}" for name, value in run.flatten_tree(config.to_dict()).items() if value is not None]
    return facts + "\n\n```yaml\n" + "\n".join(s for s in settings if not s.startswith("teachers.")) + "\n```"


def _lineage(d: Delivery) -> str:
    """Each teacher the method asked: file, hash, what it measured, and how it was made where the file says so."""
    roles = d.config.asked_teachers
    if not roles:
        return "None: the method learns from labels alone."
    lines = []
    for role in roles:
        teacher = getattr(d.config.teachers, role)
        facts = d.teachers.get(role) or {}
        sha256 = teacher.sha256 or facts.get("sha256") or "not recorded"
        lines.append(
            f"- **{role}**: `{_network(teacher.network)}`, sha256 `{sha256}`. {_origin(d.home, facts.get('path') or teacher.path, sha256)}"
        )
        if facts.get("images"):
            n = int(facts["images"])
            scores = []
            for name in ("clean", "robust"):
                right = round(facts[f"{name}_accuracy"] * n)
                estimate = accuracy(right, n)
                scores.append(f"{name} {right}/{n} = {100 * estimate.value:.2f} % [{100 * estimate.low:.2f}, {100 * estimate.high:.2f}]")
            lines.append(f"  {', '.join(scores).capitalize()}, by the study's exam on {facts.get('measured_on', 'validation images')}.")
        claims = [f"{n} {100 * v:.2f} %" for n in ("clean", "robust") if (v := getattr(teacher, f"{n}_accuracy")) is not None]
        if claims:
            lines.append(f"  Its publisher claims {', '.join(claims)}.")
    return "\n".join(lines)


def _origin(home: Path, path: str | None, sha256: str) -> str:
    """How the teacher in this file was made, as far as the file says it."""
    if path is None:
        return "No file was recorded."
    file = found_in(home, path)
    if file is None or (len(sha256) == 64 and fingerprint(file) != sha256):
        return f"Its file, `{Path(path).name}`, was not found when this card was written: how it was made is not known here."
    try:
        made = run.build(checkpoint.read(file)[1]["config"], path)
    except (RkdError, KeyError, TypeError):
        return f"From the file `{file.name}`, which does not say how or on what it was trained."
    attack = f", training attack {made.attack.norm} eps {fraction(made.attack.eps)}" if name_of(made.method) != "natural" else ""
    return (
        f"Trained by rkdsearch: {name_of(made.method)}{attack}, at most {made.training.epochs} epochs, on the training images of "
        f"{made.data.name} (split seed {made.data.split_seed}, validation fraction {made.data.validation_fraction:g}), seed {made.training.seed}."
    )


# ------------------------------------------------------------------------------------------------------------------ the run


def repeated(d: Delivery) -> str:
    """The run as a file for `rkdsearch train`. Teachers are named as they are found from here: by the study's path where it has them."""
    teachers = {}
    for role in TeachersConfig.model_fields:
        teacher = getattr(d.config.teachers, role)
        if teacher is not None and teacher.path is not None and (file := found_in(d.home, teacher.path)) is not None:
            teacher = teacher.model_copy(update={"path": str(file)})
        teachers[role] = teacher
    processes = d.trial["run.processes"]
    given = ", given its teacher" if d.config.asked_teachers else ""
    lines = [f"# Trial {d.trial['trial_id']} of {d.study}. `rkdsearch train {RUN}` repeats it{given}."]
    if len(d.attack_steps) > 1:
        lines.append("# Not quite: its search began with fewer steps of the training attack.")
    if processes and processes > 1:
        lines.append(f"# It was trained by {processes} processes together; by another number, the sums are other sums.")
    config = d.config.model_copy(update={"teachers": TeachersConfig(**teachers)})
    return "\n".join(lines) + "\n" + run.written(config)


# ---------------------------------------------------------------------------------------------------------------- the entry


def entry(d: Delivery) -> dict[str, Any]:
    """RobustBench's `model_info` keys, percent as text there; null where nothing was measured or nothing is published."""
    exam = d.config.validation.attack
    tested: dict[str, list[Row]] = {}
    for row in _tests(d, d.trial["trial_id"]):
        tested.setdefault(row["attack"], []).append(row)
    strong = tested.get("autoattack", [])
    worst = standing(strong)
    clean = next((row["accuracy"] for row in tested.get("clean", [])), None)
    images = sorted({int(row["images"]) for rows in tested.values() for row in rows})
    return {
        "link": None,
        "name": f"{d.study}/{d.trial['trial_id']}",
        "authors": None,
        "additional_data": d.config.data.extra is not None,
        "number_forward_passes": 1,
        "dataset": d.config.data.name,
        "venue": None,
        "architecture": _network(d.config.student),
        "threat_model": {"linf": "Linf", "l2": "L2"}[exam.norm],
        "eps": fraction(exam.eps),
        "clean_acc": None if clean is None else f"{100 * clean:.2f}",
        "autoattack_acc": None if worst is None else f"{100 * worst:.2f}",
        "reported": None,
        "unreliable": any(summary.signs(row["flags"]) for row in strong) if strong else None,
        "test_images": images[0] if len(images) == 1 else images or None,
        "seeds": len(strong) or None,
        "method": name_of(d.config.method),
        "reconstructed": d.config.method.reconstructed is not None,
        "sha256": d.sha256,
    }


def standing(rows: Sequence[Row]) -> float | None:
    """The fraction of images that no seed broke; the worst seed's where the seeds saw different images; None without rows."""
    flags = [row["per_image"] for row in rows]
    if not rows or len({row["subset_sha256"] for row in rows}) > 1 or not all(flags) or len(set(map(len, flags))) > 1:
        return min((float(row["accuracy"]) for row in rows), default=None)
    return sum(set(image) == {"1"} for image in zip(*flags, strict=True)) / len(flags[0])


def ball(exam: ExamAttack) -> str:
    """The exam's ball, for people."""
    return f"the {({'linf': 'Linf', 'l2': 'L2'})[exam.norm]} ball of radius {fraction(exam.eps)} (pixels of [0, 1])"


def fraction(eps: float) -> str:
    """`8/255` where eps is a whole number of grey levels; else the decimal."""
    levels = Fraction(eps * 255).limit_denominator(100)
    return f"{levels}/255" if levels.denominator == 1 and levels < 255 and abs(float(levels) - eps * 255) < 1e-9 else f"{eps:g}"


def _network(network: ModelConfig) -> str:
    size = [f"{name} {value}" for name in ("depth", "width") if (value := getattr(network, name)) is not None]
    return network.name + (f" ({', '.join(size)})" if size else "")

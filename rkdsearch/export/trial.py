"""A network leaves the house: bare weights, a model card that says how they were made and judged, one RobustBench-style entry, and its run."""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor, nn

from rkdsearch import config as run
from rkdsearch import data
from rkdsearch.config import TeachersConfig
from rkdsearch.errors import CheckpointError, RkdError, StudyError, TeacherError
from rkdsearch.export import onnx_model
from rkdsearch.export.card import WEIGHTS, Delivery, card, in_turn, own_packages
from rkdsearch.export.robustbench import entry
from rkdsearch.methods import name_of
from rkdsearch.models import ModelConfig
from rkdsearch.results import summary
from rkdsearch.task import ImageTask
from rkdsearch.teacher import ROLES, fingerprint, header, load, read_state
from rkdsearch.training import checkpoint
from rkdsearch.training.teacher import find_file

CARD, ENTRY, RUN, ONNX = "README.md", "robustbench.json", "run.yaml", "student.onnx"
ASKED = 5  # images, of the network and of its ONNX file: any number but the exporter's own two


def convert(source: Path, target: Path) -> dict[str, Tensor]:
    """Rewrite a torch or safetensors file as safetensors: the same names, the same bits, nothing to run. Raises TeacherError."""
    if target.suffix != ".safetensors":
        raise TeacherError(
            f"{target}: the new file is safetensors and must be named so; call it"
            f" {target.with_suffix('.safetensors').name}"
        )
    if target.exists():
        raise TeacherError(
            f"{target}: exists already and is not overwritten; name another file, or remove it"
        )
    # Cloned, because tied weights share memory, and safetensors keeps each tensor by itself.
    tensors = {name: tensor.clone().contiguous() for name, tensor in read_state(source).items()}
    _write(
        target,
        _in_order(
            save(
                tensors,
                metadata={
                    **header(source),
                    "source": source.name,
                    "source_sha256": fingerprint(source),
                },
            )
        ),
    )
    return tensors


def _in_order(content: bytes) -> bytes:
    """The same safetensors file with its header in order: the library shuffles it, and the same network would have another sha256 each time."""
    end = 8 + int.from_bytes(content[:8], "little")
    ordered = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    ordered += b" " * (-len(ordered) % 8)  # tensors begin on a word, as the format asks
    return len(ordered).to_bytes(8, "little") + ordered + content[end:]


def export(
    study: Path, trial_id: str, weights: Path, out: Path, *, onnx: bool = False
) -> tuple[Path, ...]:
    """Write the trial's best network, its card, its entry and its run into `out`; returns the files. `weights` is the trial's `best.safetensors`.

    Raises StudyError for an unknown trial, CheckpointError for missing weights, DataError where the
    training images are gone (they give the network its shape), RkdError where `onnx` is asked and
    not installed, or its file does not answer as the network does.
    """
    if onnx:
        onnx_model.need()
    rows = summary.read(study)
    found = summary.records(rows.trials[rows.trials["trial_id"] == trial_id])
    if not found:
        raise StudyError(
            f"{study}: there is no trial '{trial_id}'; `rkdsearch status {study}` lists what"
            " there is"
        )
    tensors, state = checkpoint.read(weights)
    if "config" not in state:
        raise CheckpointError(
            f"{weights}: holds no description of its run; name the trial's best.safetensors"
        )
    config = run.build(state["config"], str(weights))
    images = data.load_training(config.data).train
    file = out / WEIGHTS
    # Who takes it for a teacher must know which images it has seen.
    said = {
        "network": config.student.model_dump(mode="json"),
        "state": {"split_sha256": state.get("split_sha256")},
    }
    _write(
        file,
        _in_order(
            save(
                tensors,
                metadata={name: json.dumps(value, sort_keys=True) for name, value in said.items()},
            )
        ),
    )
    network = _same_network(file, weights, config.student, images.task, tensors)
    described = rows.description.get("teachers") or {}
    delivery = Delivery(
        home=study,
        study=rows.name,
        trial=found[0],
        config=config,
        task=images.task,
        classes=tuple(map(str, images.classes)),
        sha256=fingerprint(file),
        evaluations=summary.records(rows.tests),
        attack_steps=_distinct(rows, trial_id, "training_attack_steps"),
        processes=_distinct(rows, trial_id, "processes")
        or [int(n) for n in (found[0]["run.processes"],) if n],
        teachers=described if isinstance(described, dict) else {},
    )
    _write(out / CARD, card(delivery).encode())
    _write(out / ENTRY, (json.dumps(entry(delivery), indent=2) + "\n").encode())
    _write(out / RUN, repeated(delivery).encode())
    files = [file, out / CARD, out / ENTRY, out / RUN]
    if onnx:
        onnx_model.write(network, images.floats(slice(ASKED))[0], out / ONNX)
        files.append(out / ONNX)
    return tuple(files)


def _distinct(study: summary.Study, trial_id: str, column: str) -> list[int]:
    """What the epochs of the run that is delivered have in this column, each number where it first comes."""
    epochs = study.epochs[study.epochs["trial_id"] == trial_id]
    last = epochs[epochs["segment"].fillna(0) == epochs["segment"].fillna(0).max()]
    return list(dict.fromkeys(int(n) for n in last[column].dropna()))


def repeated(d: Delivery) -> str:
    """The run as a file for `rkdsearch train`; its head is the command that repeats it, with what another folder or machine must be told.

    Teachers are named by where they lie on this machine, in the study's folder where it has them.
    """
    teachers = {}
    for role in ROLES:
        teacher = d.config.teachers.get(role)
        if (
            teacher is not None
            and teacher.path is not None
            and (file := find_file(d.home, teacher.path)) is not None
        ):
            teacher = teacher.model_copy(update={"path": str(file.absolute())})
        teachers[role] = teacher
    config = d.config.model_copy(update={"teachers": TeachersConfig(**teachers)})
    asked = {role: config.teachers.of(role) for role in config.asked_teachers}
    images = config.data.model_dump(mode="json", exclude_defaults=True)
    where: dict[str, object] = {
        name: "WHERE" for name in ("root", "extra", "cache") if name in images
    }
    # another name begins the section afresh: the rest of it must be said again
    if config.data.path:
        where = {**images, **where, "name": f"{config.data.kind}:WHERE"}
    given = [
        f"data.{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in where.items()
    ]
    given += [
        f"teachers.{role}.path=WHERE" for role, teacher in asked.items() if teacher.path is not None
    ]
    own = own_packages(
        config.student.name,
        name_of(config.method),
        *(teacher.network.name for teacher in asked.values()),
    )
    command = " ".join(
        ["rkdsearch train", RUN, *given, *(f"--allow-import {package}" for package in own)]
    )
    elsewhere = ", WHERE being where your files lie" if given else ""
    lines = [f"# Trial {d.trial['trial_id']} of {d.study}. `{command}` repeats it{elsewhere}."]
    lines += [
        f"# teachers.{role}.path must have the sha256 {teacher.sha256}."
        for role, teacher in asked.items()
        if teacher.sha256
    ]
    if own:
        lines.append(f"# The folder of {', '.join(own)} must be on PYTHONPATH.")
    if len(d.attack_steps) > 1:
        lines.append("# Not quite: its search began with fewer steps of the training attack.")
    if any(n > 1 for n in d.processes):
        lines.append(
            f"# It was trained by {in_turn(d.processes)} processes together; by another number, the"
            " sums are other sums."
        )
    return "\n".join(lines) + "\n" + run.written(config)


def _same_network(
    file: Path, source: Path, network: ModelConfig, task: ImageTask, tensors: Mapping[str, Tensor]
) -> nn.Module:
    """Read back as a stranger will: what is delivered must be what was judged."""
    loaded = load(file, network, task)
    state = loaded.state_dict()
    different = [
        name
        for name, tensor in tensors.items()
        if name not in state or not torch.equal(state[name], tensor.to(state[name].dtype))
    ]
    if different:
        raise CheckpointError(
            f"{source}: {different[0]} did not survive being written and read back; is the disk in"
            " order?"
        )
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
        raise RkdError(
            f"{path}: could not be written: {error}; is the folder yours, and the disk not full?"
        ) from error

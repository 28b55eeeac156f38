"""Weights as safetensors: written whole, with the same bytes each time, and read back."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from rkdsearch.atomic_file import replace_file
from rkdsearch.errors import CheckpointError, TeacherError
from rkdsearch.models import ModelConfig
from rkdsearch.task import ImageTask
from rkdsearch.teacher import Contents, fingerprint, header, load, read_contents


def convert(source: Path, target: Path, key: str | None = None) -> Contents:
    """Rewrite a torch or safetensors file as safetensors, with the same names and bits and no code.

    Returns what was read, of the entry `key` where it is given. Raises TeacherError where `source`
    cannot be read safely, or `target` exists or is not named as safetensors.
    """
    if target.suffix != ".safetensors":
        raise TeacherError(
            f"{target}: the new file is safetensors and must be named so; call it"
            f" {target.with_suffix('.safetensors').name}"
        )
    if target.exists():
        raise TeacherError(
            f"{target}: exists already and is not overwritten; name another file, or remove it"
        )
    # Cloned, because tied weights share memory, and safetensors stores each tensor on its own.
    contents = read_contents(source, key)
    tensors = {name: tensor.clone().contiguous() for name, tensor in contents.tensors.items()}
    origin = {"source": source.name, "source_sha256": fingerprint(source)}
    write_weights(target, tensors, {**header(source), **origin})
    return contents


def write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata as one safetensors file. Raises DiskError."""
    replace_file(path, _with_sorted_header(save(dict(tensors), metadata=dict(metadata))))


def read_back(
    file: Path, source: Path, network: ModelConfig, task: ImageTask, tensors: Mapping[str, Tensor]
) -> nn.Module:
    """Load the written `file` as a stranger will, and return its network.

    Raises CheckpointError where a tensor differs from `tensors`, those of the `source`.
    """
    loaded = load(file, network, task)
    state = loaded.state_dict()
    different = [
        name
        for name, tensor in tensors.items()
        if name not in state or not torch.equal(state[name], tensor.to(state[name].dtype))
    ]
    if different:
        raise CheckpointError(
            f"{source}: {different[0]} changed while it was written and read back; is the disk in"
            " order?"
        )
    return loaded


def _with_sorted_header(content: bytes) -> bytes:
    """The same safetensors file with a sorted header.

    The library shuffles the header, and the same network would get another sha256 each time.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    ordered = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    ordered += b" " * (-len(ordered) % 8)  # the format aligns tensors to 8 bytes
    return len(ordered).to_bytes(8, "little") + ordered + content[end:]

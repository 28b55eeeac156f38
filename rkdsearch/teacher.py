"""Teachers from files: read without running their code, fitted by name, frozen.

Reads safetensors and `torch.save` files, by content and whatever the suffix. Only tensors, numbers,
argparse.Namespace and numpy scalars are ever unpickled: a file that asks for anything else is
refused, and the sentence names it.
"""

import argparse
import hashlib
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from rkdsearch.errors import TeacherError
from rkdsearch.models import ModelConfig, build
from rkdsearch.models.weights import fit
from rkdsearch.task import ImageTask

Role = Literal["robust", "natural"]  # the names by which methods ask for teachers
ROLES: tuple[Role, ...] = ("robust", "natural")

# Keys under which published files keep their weights, best first: of `best` and `last` (early
# stopping), `best` is read.
_WRAPPINGS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "student",
    "best",
    "last",
)
_ZIP, _OLD_TORCH = b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
_NOT_WEIGHTS = (
    (
        0,
        b"version https://git-lfs",
        "is a git-lfs pointer, not the weights; run `git lfs pull` where it came from",
    ),
    (257, b"ustar", "is a tar archive; unpack it and name the file inside"),
    (0, b"\x1f\x8b", "is compressed by gzip; unpack it first"),
)


def load(
    path: Path,
    config: ModelConfig,
    task: ImageTask,
    *,
    sha256: str | None = None,
) -> nn.Module:
    """The network of `config` with the file's weights, in eval mode and without gradients.

    The global random state stays as it was. Raises TeacherError where the file is not what `sha256`
    says, cannot be read safely, or does not fit; ConfigError where `config` is no network.
    """
    if sha256 is not None and (found := fingerprint(path)) != sha256:
        raise TeacherError(
            f"{path}: sha256 must be {sha256}, got {found}: this is another file; put the right one"
            " back, or change sha256"
        )
    state = read_state(path)
    # A trial with a cached teacher must draw the numbers that a trial without one draws.
    with torch.random.fork_rng(devices=[]):
        network = build(config, task)
    fit(network, state, str(path))
    return network.eval().requires_grad_(False)


def fingerprint(path: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TeacherError(f"{path}: cannot be read: {error.strerror}; check the path") from error


def header(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file, name and text; empty for any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def split_of(path: Path) -> str | None:
    """Fingerprint of the split whose training images the file says it was trained on.

    None where the file says nothing: only this project's files do.
    """
    try:
        split = json.loads(header(path)["state"])["split_sha256"]
    except (ValueError, KeyError, TypeError):
        return None
    return split if isinstance(split, str) else None


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, from a safetensors or torch file of any suffix.

    Raises TeacherError where the file is missing, damaged, or of any other kind.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise TeacherError(f"{path}: cannot be read: {error.strerror}; check the path") from error
    if not head:
        raise TeacherError(f"{path}: is empty; download it again")
    for offset, signature, verdict in _NOT_WEIGHTS:
        if head[offset:].startswith(signature):
            raise TeacherError(f"{path}: {verdict}")
    if head.lstrip().startswith(b"<"):
        raise TeacherError(
            f"{path}: is a web page, not weights: the server answered with a form or an error;"
            " download it by hand"
        )
    if head.startswith((_ZIP, _OLD_TORCH)):
        return _weights_in(_unpickle(path), path)
    if head[8:9] == b"{":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise TeacherError(
                f"{path}: is truncated or damaged ({error}); download it again"
            ) from error
    if head.startswith(b"\x80"):
        raise TeacherError(
            f"{path}: is a plain Python pickle, which may run any code; save its weights by"
            " torch.save where you trust it"
        )
    raise TeacherError(
        f"{path}: is neither safetensors nor a torch file (it begins with {head[:8]!r}); give one"
        " of these"
    )


def _unpickle(path: Path) -> object:
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]  # noqa: SLF001 - pickled numpy numbers call it
    dtypes = {
        type(np.dtype(kind))
        for kind in ("float16", "float32", "float64", "int32", "int64", "uint8", "bool")
    }
    harmless = [
        argparse.Namespace,
        np.dtype,
        scalar,
        (scalar, "numpy.core.multiarray.scalar"),
        *dtypes,
    ]
    try:
        with torch.serialization.safe_globals(harmless):
            loaded: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = named.group(1) if named else _summary(error)
        raise TeacherError(
            f"{path}: holds more than weights ({what}), and reading that would run its code; "
            "where you trust it, load it and save its state_dict() alone"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise TeacherError(
            f"{path}: is truncated or damaged ({_summary(error)}); download it again"
        ) from error
    return loaded


def _summary(error: Exception) -> str:
    """First line of the error's message, or its type where it has no message."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _weights_in(loaded: object, path: Path) -> dict[str, Tensor]:
    """The innermost mapping of names to tensors."""
    if isinstance(loaded, Mapping):
        mapping: Mapping[Any, Any] = loaded
        for key in _WRAPPINGS:
            if isinstance(mapping.get(key), Mapping):
                return _weights_in(mapping[key], path)
        tensors = {
            name: value.detach()
            for name, value in mapping.items()
            if isinstance(name, str) and isinstance(value, Tensor)
        }
        if tensors:
            return tensors
        raise TeacherError(
            f"{path}: holds no weights: its entries are {', '.join(map(str, mapping)) or 'none'};"
            " save a state_dict()"
        )
    raise TeacherError(
        f"{path}: holds {type(loaded).__name__}, not a mapping of names to tensors; save a"
        " state_dict()"
    )

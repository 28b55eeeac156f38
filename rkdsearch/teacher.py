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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from rkdsearch.errors import ConfigError, TeacherError
from rkdsearch.models import ModelConfig, build
from rkdsearch.models.weights import fit
from rkdsearch.plugins import is_dotted
from rkdsearch.task import ImageTask

Role = Literal["robust", "natural"]  # the names by which methods ask for teachers
ROLES: tuple[Role, ...] = ("robust", "natural")

# Entries in which published files keep their weights, best first: of `best` and `last` (early
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
    "module",
    "weights",
    "params",
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


@dataclass(frozen=True)
class Contents:
    """Weights of a file by name, the entry that holds them, and the other entries around it."""

    tensors: dict[str, Tensor]
    entry: str
    left: tuple[str, ...]

    @property
    def described(self) -> str:
        """The entry and what was left, for people; empty where the file holds weights alone."""
        read = f"read '{self.entry}'" if self.entry else ""
        left = f"left: {', '.join(self.left[:8])}" if self.left else ""
        return "; ".join(filter(None, (read, left)))


def load(
    path: Path,
    config: ModelConfig,
    task: ImageTask,
    *,
    sha256: str | None = None,
    key: str | None = None,
    ignore: Sequence[str] = (),
    notice: Callable[[str], None] = lambda _: None,
) -> nn.Module:
    """The network of `config` with the file's weights, in eval mode and without gradients.

    `key` chooses the file's entry, and entries that begin with one of `ignore` are spare; `notice`
    is told what of the file it was given. Where the file itself describes its network, as ours do,
    `config` may leave width, depth and normalisation out. The global random state stays as it was.
    Raises TeacherError where the file is not what `sha256` says, cannot be read safely, does not
    fit, or describes another network; ConfigError where `config` is no network.
    """
    if sha256 is not None and (found := fingerprint(path)) != sha256:
        raise TeacherError(
            f"{path}: sha256 must be {sha256}, got {found}: this is another file; put the right one"
            " back, or change sha256"
        )
    contents = read_contents(path, key)
    # A trial with a cached teacher must draw the numbers that a trial without one draws.
    with torch.random.fork_rng(devices=[]):
        try:
            network = build(_as_described(path, config), task)
        except ConfigError as error:
            raise ConfigError(f"network of {path}: {error}") from error
    fitted = fit(network, contents.tensors, str(path), ignore=ignore)
    notice("; ".join(filter(None, (contents.described, fitted.described))))
    return network.eval().requires_grad_(False)


def _as_described(path: Path, config: ModelConfig) -> ModelConfig:
    """`config` with what it leaves out and the file's header says of its network.

    Raises TeacherError where both say something, and not the same.
    """
    described = header_network(path)
    if described is None:
        return config
    # A class of the user's for weights of ours: it may hold what it likes, but not lose the
    # normalisation.
    other = is_dotted(config.name) and config.name != described.name
    for field in ("mean", "std") if other else ModelConfig.model_fields:
        ours, theirs = getattr(config, field), getattr(described, field)
        if (ours is None and not other) or _agree(ours, theirs):
            continue
        if field in ("width", "depth") and theirs is None and ours == described.sized[field]:
            continue
        raise TeacherError(
            f"{path}: is a {described.name} whose header says {field} {_said(theirs)}, and the"
            f" config's network has {field} {_said(ours)}; leave it out, or name the file's"
        )
    return config if other else described


def _agree(ours: object, theirs: object) -> bool:
    if isinstance(ours, tuple) and isinstance(theirs, tuple) and len(ours) == len(theirs):
        return all(isclose(a, b, abs_tol=1e-6) for a, b in zip(ours, theirs, strict=True))
    return ours == theirs


def _said(value: object) -> str:
    return "none" if value is None else str(value)


def header_network(path: Path) -> ModelConfig | None:
    """The network that a file of ours describes in its header; None for any other file."""
    known = header(path)
    try:
        values = (
            json.loads(known["network"])
            if "network" in known
            else json.loads(known["state"])["config"]["student"]
        )
        return ModelConfig.model_validate(values)
    except (ValueError, KeyError, TypeError):
        return None


def classes_of(path: Path) -> tuple[str, ...] | None:
    """Class names in the order of the logits, as a file of ours records them; None elsewhere."""
    known = header(path)
    try:
        found = (
            json.loads(known["classes"])
            if "classes" in known
            else json.loads(known["state"])["classes"]
        )
        return tuple(map(str, found))
    except (ValueError, KeyError, TypeError):
        return None


def in_another_order(theirs: Sequence[str], classes: Sequence[str]) -> bool:
    """True where a name stands at another place in the one than in the other."""
    place = {name: k for k, name in enumerate(theirs)}
    return any(place.get(name, k) != k for k, name in enumerate(classes))


def check_class_order(path: Path, classes: Sequence[str]) -> None:
    """Raise TeacherError where the file's logits have these classes in another order."""
    theirs = classes_of(path)
    if theirs is not None and in_another_order(theirs, classes):
        raise TeacherError(
            f"{path}: its logits are in the order {', '.join(theirs)}, and the classes of the"
            f" images are {', '.join(classes)}; name and number them alike"
        )


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


def read_contents(path: Path, key: str | None = None) -> Contents:
    """The weights in a safetensors or torch file of any suffix, on the CPU.

    `key` is the dotted path of an entry (`ema.module`), or a prefix of names (`student`). Raises
    TeacherError where the file is missing, damaged, of any other kind, or has no such entry.
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
        return _chosen(_unpickle(path), path, key)
    if head[8:9] == b"{":
        try:
            return _chosen(load_file(path), path, key)
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


def _chosen(loaded: object, path: Path, key: str | None) -> Contents:
    """The weights in the entry `key`, or in the innermost entry that usually holds them."""
    entry, left, rest = "", list[str](), key or ""
    while rest and isinstance(loaded, Mapping):
        heads = [rest, *(rest[:at] for at in range(len(rest) - 1, 0, -1) if rest[at] == ".")]
        head = next((head for head in heads if isinstance(loaded.get(head), Mapping)), None)
        if head is None:
            break
        left += [f"{entry}{name}" for name in loaded if name != head]
        loaded, entry, rest = loaded[head], f"{entry}{head}.", rest[len(head) + 1 :]
    while isinstance(loaded, Mapping) and not rest:
        holders = [name for name, value in loaded.items() if isinstance(value, Mapping)]
        head = next((name for name in _WRAPPINGS if name in holders), None)
        if head is None and not _tensors(loaded):
            weights = [name for name in holders if _tensors(loaded[name])]
            head = weights[0] if len(weights) == 1 else None
        if head is None:
            break
        left += [f"{entry}{name}" for name in loaded if name != head]
        loaded, entry = loaded[head], f"{entry}{head}."
    tensors = _tensors(loaded)
    if rest:
        left += [name for name in tensors if not name.startswith(f"{rest}.")]
        entries = loaded if isinstance(loaded, Mapping) else {}
        names = dict.fromkeys(str(name).partition(".")[0] for name in entries)
        tensors = {
            name.removeprefix(f"{rest}."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"{rest}.")
        }
        if not tensors:
            raise TeacherError(
                f"{path}: has no entry '{key}'; there are {', '.join([*names][:12]) or 'none'}"
            )
        entry += f"{rest}."
    if tensors:
        return Contents(tensors, entry.removesuffix("."), tuple(left))
    if isinstance(loaded, Mapping):
        raise TeacherError(
            f"{path}: holds no weights: its entries are {', '.join(map(str, loaded)) or 'none'};"
            " name one of several by the teacher's key (teachers.robust.key, convert --key), or"
            " save a state_dict()"
        )
    raise TeacherError(
        f"{path}: holds {type(loaded).__name__}, not a mapping of names to tensors; save a"
        " state_dict()"
    )


def _tensors(loaded: object) -> dict[str, Tensor]:
    if not isinstance(loaded, Mapping):
        return {}
    entries: Mapping[Any, Any] = loaded
    return {
        name: value.detach()
        for name, value in entries.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }

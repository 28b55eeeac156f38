"""Checkpoint files: one safetensors file with everything, written by rename, read without pickle.

Tensors carry dotted names (see `state.py`); all other values are JSON in the file's header. So a
file is either the old one or the new one, whole, also after SIGKILL, and a stranger's file runs no
code.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rkdsearch.atomic_file import TEMPORARY, replacing
from rkdsearch.errors import CheckpointError, FileError

_KEPT = ".part-old-"  # hidden by the leading dot, so that it is not taken for a checkpoint


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    *,
    keep: bool = False,
    sync: bool = False,
) -> None:
    """Replace `path` by a file of these tensors and this JSON `state`; it exists at every moment.

    With `keep`, the old file stays as `kept(path)`. With `sync`, the new file survives the end of
    the machine and not only of the process, and takes some milliseconds longer. Raises DiskError,
    and leaves the old file as it was.
    """
    content = save(_untied(tensors), metadata={"state": json.dumps(state)})
    remedy = "the previous checkpoint is intact" if path.exists() else None
    with replacing(path, sync=sync, remedy=remedy) as temporary:
        temporary.write_bytes(content)
        if keep and path.exists():
            _link(path, kept(path))


def kept(path: Path) -> Path:
    """The path under which `write` keeps the file that it replaces, until the next `sweep`."""
    return path.with_name(f"{_KEPT}{path.name}")


def _link(path: Path, second: Path) -> None:
    """Link `path` as `second`, which may exist; copy it where the file system has no links."""
    second.unlink(missing_ok=True)
    try:
        os.link(path, second)
    except OSError:
        shutil.copyfile(path, second)


def _untied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, tied weights copied once for each name.

    safetensors refuses tensors that share memory.
    """
    plain, seen = {}, set()
    for name, tensor in tensors.items():
        here = tensor.detach().to("cpu").contiguous()
        place = here.untyped_storage().data_ptr()
        plain[name] = here.clone() if place in seen else here
        seen.add(place)
    return plain


def sweep(folder: Path) -> None:
    """Remove half-written files of a killed process; for the folder's only writer."""
    for prefix in (TEMPORARY, ".part-"):  # the second begins `_KEPT`, and names of version 0.1
        for left in folder.glob(f"{prefix}*"):
            left.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the state.

    Raises CheckpointError for a missing, damaged or foreign file, and FileError for one that the
    system does not give.
    """
    with _opened(path) as (file, state):
        return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118


def state_of(path: Path) -> dict[str, Any]:
    """The state alone, from the file's header, without reading tensors. Raises as `read` does."""
    with _opened(path) as (_, state):
        return state


def put_aside(path: Path) -> str | None:
    """Rename a damaged checkpoint, so that its run can start afresh and the file be inspected.

    Returns the notice of it; None where the file is whole or missing. Raises FileError where the
    system does not give it: it may be whole.
    """
    try:
        if path.exists():
            state_of(path)
    except CheckpointError:
        names = (f"{path.name}.damaged{n}" for n in chain([""], map("-{}".format, count(2))))
        free = next(path.with_name(name) for name in names if not path.with_name(name).exists())
        aside = path.rename(free)
        return f"{path} was damaged and is put aside as {aside.name}"
    return None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The open file and its state; safetensors checks the length that the header promises."""
    try:
        with _given(path), safe_open(path, framework="pt") as file:
            yield file, json.loads((file.metadata() or {})["state"])
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: there is no such checkpoint; put it back, or train this run again"
        ) from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: is not a checkpoint of ours, or is damaged ({error}); put a whole copy in its"
            " place, or train this run again"
        ) from None


def _given(path: Path) -> IO[bytes]:
    """The open file. Raises FileError where the system does not give it: it may be whole."""
    try:
        if path.is_file() or not path.exists():
            return path.open("rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}; mend that first") from error
    raise ValueError("no plain file")  # a pipe would be waited for

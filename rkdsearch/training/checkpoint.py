"""Checkpoints: one safetensors file that holds everything, written by rename, read without pickle.

Tensors carry dotted names (`state.py` has them); what is not a tensor is JSON in the file's own
header. So a checkpoint is either the old one or the new one, whole, also after SIGKILL, and a
stranger's file runs no code.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rkdsearch.config import flatten_tree
from rkdsearch.errors import CheckpointError, DiskError

_TEMPORARY = ".part-"  # a leading dot: nobody takes it for a checkpoint
_MADE_OF = {  # and its config does not pin
    "split_sha256": "other images",
    "pixels_sha256": "other pixels",
    "extra_sha256": "another data.extra",
    "teachers": "other teachers",
}


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    *,
    keep: bool = False,
    sync: bool = False,
) -> None:
    """Replace `path` by a file of these tensors and this JSON state, and `keep` the old one as `kept(path)`. There is always a file `path`.

    A file survives the end of its process; with `sync`, of the machine too, and takes some
    milliseconds longer. Raises DiskError, and leaves the old file as it was.
    """
    before = False
    content = save(_apart(tensors), metadata={"state": json.dumps(state)})
    temporary = path.with_name(f"{_TEMPORARY}{path.name}-{uuid.uuid4().hex}")
    try:
        before = path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        if sync:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        if keep and path.exists():
            _name_twice(path, kept(path))
        os.replace(temporary, path)  # noqa: PTH105 - the atomic one, by its own name
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise (
            DiskError.at(path, error, "the previous checkpoint is intact")
            if before
            else DiskError.at(path, error)
        ) from error


def kept(path: Path) -> Path:
    """Where `write` leaves the file that it replaces, until the next `sweep`."""
    return path.with_name(f"{_TEMPORARY}old-{path.name}")


def _name_twice(path: Path, second: Path) -> None:
    """The file under a second name, which may be taken; as a copy where the disk has no links."""
    second.unlink(missing_ok=True)
    try:
        os.link(path, second)
    except OSError:
        shutil.copyfile(path, second)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same on the CPU, tied weights as one copy for each name: safetensors refuses tensors that share memory."""
    plain, seen = {}, set()
    for name, tensor in tensors.items():
        here = tensor.detach().to("cpu").contiguous()
        place = here.untyped_storage().data_ptr()
        plain[name] = here.clone() if place in seen else here
        seen.add(place)
    return plain


def sweep(folder: Path) -> None:
    """Remove what a killed writer left half written in this folder. For the one process that writes there, before it does."""
    for left in folder.glob(f"{_TEMPORARY}*"):
        left.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the state. Raises CheckpointError for a file that is missing, truncated or somebody else's."""
    with _opened(path) as (file, state):
        return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118 - not a dict


def state_of(path: Path) -> dict[str, Any]:
    """The state alone, from the file's header: its tensors are not read. Raises as `read` does."""
    with _opened(path) as (_, state):
        return state


def put_aside(path: Path) -> str | None:
    """Rename a damaged checkpoint: its run starts afresh, and it is kept for who wants to look.

    Returns the sentence that says so; None where the file is whole, or there is none.
    """
    try:
        if path.exists():
            state_of(path)
    except CheckpointError:
        aside = path.rename(path.with_name(f"{path.name}.damaged"))
        return f"{path} was damaged and is put aside as {aside.name}; its run is trained afresh"
    return None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The file, whose length its header promises, and its state."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file, json.loads((file.metadata() or {})["state"])
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such checkpoint") from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: is not a checkpoint of ours, or is damaged ({error}); delete it to start this"
            " run afresh"
        ) from None


def refuse_another(file: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise CheckpointError where the state of `file` belongs to another run than the one that is `here`.

    What an earlier version did not write down is not compared, but for the config's fingerprint.
    """
    if there.get("fingerprint") != here["fingerprint"]:
        different = _first_difference(there["run"], here["run"]) if "run" in there else ""
        raise CheckpointError(
            f"{file}: belongs to a run with another config{different}; give this run its own"
            " folder, or delete that file"
        )
    for name, what in _MADE_OF.items():
        if (was := there.get(name, here[name])) != here[name]:
            raise CheckpointError(
                f"{file}: belongs to a run with {what}: {name} was {json.dumps(was)}, is"
                f" {json.dumps(here[name])}; put the right ones back, or give this run its own"
                " folder"
            )
    if there.get("fidelities", here["fidelities"]) != here["fidelities"]:
        raise CheckpointError(
            f"{file}: belongs to a run with another ladder; give this run its own folder, or delete"
            " that file"
        )


def _first_difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """`: optimizer.lr was 0.1, is 0.2`, of the first field that two runs do not share; empty where all values agree and another version added one."""
    was, now = flatten_tree(there), flatten_tree(here)
    different = [name for name in dict.fromkeys((*now, *was)) if was.get(name) != now.get(name)]
    return "".join(
        f": {name} was {json.dumps(was.get(name))}, is {json.dumps(now.get(name))}"
        for name in different[:1]
    )

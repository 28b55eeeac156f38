"""Check of one node for what a search needs: folder, images, teachers, versions, GPU.

It runs on the node, as a Ray task of the doctor, or in this process for a single machine.
"""

import hashlib
import pickle
import platform
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import ray
import torch

from rkdsearch import data
from rkdsearch.data.config import DataConfig
from rkdsearch.errors import RkdError
from rkdsearch.plugins import allow_import, load_module
from rkdsearch.provenance import python_files
from rkdsearch.teacher import fingerprint


@dataclass(frozen=True)
class NodeCheck:
    """Files and versions that a node compares with the driver's."""

    versions: Mapping[str, str]
    folder: Path | None  # of the study, with the file `probe` in it
    probe: str
    images: DataConfig | None
    hashes: Mapping[str, str | None]
    teachers: Mapping[str, str]  # paths -> sha256
    packages: tuple[str, ...]
    gpu: bool


@dataclass(frozen=True)
class NodeReport:
    """One node: a line of facts, and sentences about what is wrong."""

    facts: str
    complaints: tuple[str, ...]
    lost: bool = False  # it died meanwhile, and is no part of the cluster any more


def versions() -> dict[str, str]:
    """Versions that all nodes must share, by name."""
    return {
        "Python": platform.python_version().rpartition(".")[0],  # a patch makes no difference
        "Ray": ray.__version__,
        "torch": torch.__version__.partition("+")[0],  # a head needs no CUDA build
        "rkdsearch": f"{version('rkdsearch')} ({_source()})",
    }


@lru_cache(maxsize=1)
def _source() -> str:
    """Short hash of the package's modules: two checkouts may have one version."""
    home = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in python_files(home):
        digest.update(f"{file.relative_to(home)}".encode() + file.read_bytes())
    return digest.hexdigest()[:8]


def check_node(packed: bytes) -> NodeReport:
    """Compare this node with the driver. Complaints begin with the verb."""
    asked: NodeCheck = pickle.loads(packed)  # noqa: S301 - `examine` wrote it, in this process's job
    mine = versions()
    complaints = [
        f"{name} is {mine[name]}, and {wanted} where the search runs: install one lock on all nodes"
        for name, wanted in asked.versions.items()
        if mine[name] != wanted
    ]
    complaints += [
        complaint
        for check in (_imports, _folder, _images, _teachers, _gpu)
        for complaint in check(asked)
    ]
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpu = f", {torch.cuda.get_device_name(0)} x {devices}" if devices else ""
    return NodeReport(", ".join(f"{k} {v}" for k, v in mine.items()) + gpu, tuple(complaints))


def _imports(asked: NodeCheck) -> Iterator[str]:
    allow_import(*asked.packages)
    for package in asked.packages:
        try:
            load_module(package, place="--allow-import")
        except Exception as error:  # noqa: BLE001 - the user's own module may raise anything
            yield f"{package} cannot be imported: {last_line(error)}; install it on every node"


def _folder(asked: NodeCheck) -> Iterator[str]:
    if asked.folder is None:
        return
    try:
        seen = (asked.folder / asked.probe).read_text()
    except OSError as error:
        yield (
            f"does not see {asked.folder} as the search does ({error.strerror}): mount the shared"
            " file system at the same path on every node, or name a folder on it with --study"
        )
        return
    try:
        (asked.folder / f"{asked.probe}-{seen}-{socket.gethostname()}").write_text(seen)
    except OSError as error:
        yield (
            f"cannot write to {asked.folder} ({error.strerror}): trials write checkpoints there;"
            " let the user that Ray runs as write to it"
        )


def _images(asked: NodeCheck) -> Iterator[str]:
    if asked.images is None:
        return
    try:
        found = data.load_training(asked.images).hashes
    except RkdError as error:
        yield f"cannot read the images: {error}"
        return
    for name, wanted in asked.hashes.items():
        if found[name] != wanted:
            yield (
                f"has other images of {asked.images.name}: {name} is {found[name]}, and {wanted}"
                " where the search runs; put them on the shared file system"
            )


def _teachers(asked: NodeCheck) -> Iterator[str]:
    for path, wanted in asked.teachers.items():
        try:
            found = fingerprint(Path(path))
        except RkdError as error:
            yield f"cannot read a teacher: {error}"
            continue
        if found != wanted:
            yield (
                f"has another teacher at {path}: sha256 is {found}, and {wanted} where the search"
                " runs; put it on the shared file system"
            )


def _gpu(asked: NodeCheck) -> Iterator[str]:
    if not asked.gpu:
        return
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # torch has no type for it
    except (RuntimeError, AssertionError) as error:
        yield (
            f"has a GPU by Ray's count that torch cannot use: {last_line(error)}; install the"
            " driver, and a torch built for it"
        )


def last_line(error: BaseException) -> str:
    """The last line of an error that is not empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__

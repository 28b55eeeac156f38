"""Which image is where: stratified, seeded, and with a fingerprint that two machines can compare."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rkdsearch.data.images import Images
from rkdsearch.errors import DataError

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Splits:
    """What a search may see. `fingerprint` is a sha256 of the indices of every split and of all labels: which image is where."""

    train: Images
    validation: Images
    fingerprint: str
    extra: Images | None = None


def draw(labels: Indices, count: int, *, seed: int, keep: int, field: str) -> Indices:
    """Choose `count` images of all classes in proportion; at least one of each class, and leave at least `keep` of each.

    Returns sorted positions in `labels` (N,). Raises DataError, naming `field`, where `count` cannot do both.
    """
    sizes = np.bincount(labels)
    most = sizes - keep
    if (most < 1).any():
        k = int(most.argmin())
        raise DataError(f"{field}: class {k} has {sizes[k]} images, but every split needs at least one; add images, or drop the class")
    if not len(sizes) <= count <= most.sum():
        raise DataError(
            f"{field}: {count} of {len(labels)} images were asked for, but {len(sizes)} classes with one in every split "
            f"allow {len(sizes)} to {most.sum()}; change the value"
        )
    # One of each class first, the rest in proportion by largest remainder: in whole numbers, so that no machine rounds differently.
    room = most - 1
    share, remainder = divmod((count - len(sizes)) * room, max(1, int(room.sum())))
    left = count - len(sizes) - int(share.sum())
    share[np.argsort(-remainder, kind="stable")[:left]] += 1
    generator = np.random.default_rng(seed)
    chosen = [generator.permutation(np.flatnonzero(labels == k))[: 1 + extra] for k, extra in enumerate(share)]
    return np.sort(np.concatenate(chosen))


def divide(images: Images, *, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """(train, validation): sorted, disjoint positions in `images` that together are all of it."""
    labels = images.labels.numpy()
    held_out = draw(labels, round(fraction * len(labels)), seed=seed, keep=1, field="data.validation_fraction")
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def fingerprint(indices: Mapping[str, Indices], labels: Tensor) -> str:
    """sha256 over the names and positions of the splits and over all labels (N,)."""
    digest = hashlib.sha256()
    for split, positions in sorted(indices.items()):
        digest.update(f"{split} {len(positions)}\n".encode())
        digest.update(positions.astype("<i8").tobytes())
    digest.update(labels.numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def select(images: Images, positions: Indices, split: str) -> Images:
    """The images at these positions, as a split of this name."""
    return images.take(torch.from_numpy(positions), split=split)

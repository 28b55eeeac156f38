"""Training, validation and test splits: stratified, seeded, and comparable by hash."""

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

_SAMPLE = 512


@dataclass(frozen=True)
class Splits:
    """The images that training and selection may use.

    `fingerprint` is a sha256 of the indices of every split and of all labels.
    """

    train: Images
    validation: Images
    fingerprint: str
    pixels: str  # `pixel_hash` of both
    extra: Images | None = None
    extra_pixels: str | None = None

    @property
    def hashes(self) -> dict[str, str | None]:
        """The hashes by which a run and a study recognise their images."""
        return {
            "split_sha256": self.fingerprint,
            "pixels_sha256": self.pixels,
            "extra_sha256": self.extra_pixels,
        }

    @property
    def chance(self) -> float:
        """Accuracy of the best constant prediction on the validation images, a fraction of 1."""
        return int(torch.bincount(self.validation.labels).max()) / len(self.validation)


def stratified_subset(labels: Indices, count: int | None, *, seed: int, field: str) -> Indices:
    """Positions of `count` images, all classes in proportion, always the same ones.

    All positions where `count` is None or not smaller than their number. A class without images has
    none, as validation images that a data set brings may be.
    """
    if count is None or count >= len(labels):
        return np.arange(len(labels))
    present: Indices = np.unique(labels, return_inverse=True)[1]
    return stratified_sample(present, count, seed=seed, keep=0, field=field)


def stratified_sample(labels: Indices, count: int, *, seed: int, keep: int, field: str) -> Indices:
    """Choose `count` images, classes in proportion: at least one of each, leaving at least `keep`.

    Returns sorted positions in `labels` (N,). Raises DataError, naming `field`, where `count`
    allows no such choice.
    """
    sizes = np.bincount(labels)
    most = sizes - keep
    if (most < 1).any():
        k = int(most.argmin())
        raise DataError(
            f"{field}: class {k} has {sizes[k]} images, but every split needs at least one; add"
            " images, or drop the class"
        )
    if not len(sizes) <= count <= most.sum():
        raise DataError(
            f"{field}: {count} of {len(labels)} images were asked for, but {len(sizes)} classes"
            f" with one in every split allow {len(sizes)} to {most.sum()}; change the value"
        )
    # One image of each class. The rest is allotted as seats are to parties (Sainte-Lague): to the
    # highest of size / 3, size / 5, ..., which is exact in proportion where that is possible. Only
    # divisions are used, which IEEE 754 defines to the last bit: all machines round alike.
    quotients = [size / (2 * np.arange(1, end) + 1) for size, end in zip(sizes, most, strict=True)]
    owners = np.repeat(np.arange(len(sizes)), most - 1)
    winners = owners[np.argsort(-np.concatenate(quotients), kind="stable")[: count - len(sizes)]]
    shares = 1 + np.bincount(winners, minlength=len(sizes))
    generator = np.random.default_rng(seed)
    chosen = [
        generator.permutation(np.flatnonzero(labels == k))[:share] for k, share in enumerate(shares)
    ]
    return np.sort(np.concatenate(chosen))


def divide(
    labels: Indices, pool: Indices, *, fraction: float, seed: int
) -> tuple[Indices, Indices]:
    """(train, validation): `pool`, positions in `labels` (N,), divided by class in proportion."""
    chosen = stratified_sample(
        labels[pool],
        round(fraction * len(pool)),
        seed=seed,
        keep=1,
        field="data.validation_fraction",
    )
    return np.delete(pool, chosen), pool[chosen]


def fingerprint(indices: Mapping[str, Indices], labels: Tensor) -> str:
    """sha256 over the names and positions of the splits and over all labels (N,)."""
    digest = hashlib.sha256()
    for split, positions in sorted(indices.items()):
        digest.update(f"{split} {len(positions)}\n".encode())
        digest.update(positions.astype("<i8").tobytes())
    digest.update(labels.numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def pixel_hash(*images: Images) -> str:
    """sha256 over pixels and labels of at most 512 evenly spaced images of each set.

    Other data sets differ in all images, and reading all of a large one takes minutes. Decoded
    pixels depend on the decoder too: two versions of Pillow may decode one JPEG differently.
    """
    digest = hashlib.sha256()
    for each in images:
        n, count = len(each), min(len(each), _SAMPLE)
        chosen = torch.tensor([k * (n - 1) // max(1, count - 1) for k in range(count)])
        digest.update(f"{n} {list(each.pixels.shape[1:])} {each.scale:g}\n".encode())
        digest.update(each.stored(chosen).numpy().tobytes())
        digest.update(each.labels[chosen].numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def select(images: Images, positions: Indices, split: str) -> Images:
    """The images at these positions, as a split of this name."""
    return images.take(torch.from_numpy(positions), split=split)

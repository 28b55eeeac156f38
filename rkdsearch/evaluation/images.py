"""The images of a test evaluation: which ones, in which order, and their fingerprint."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rkdsearch import data
from rkdsearch.data.images import to_floats
from rkdsearch.data.splits import stratified_subset
from rkdsearch.results.columns import cells_of
from rkdsearch.results.rows import SubsetRow
from rkdsearch.task import ImageTask

_CHUNK = 1000  # images that are hashed at a time


@dataclass(frozen=True, eq=False)
class Pixels:
    """Images as workers are given them: bytes (N, H, W, C), labels (N,), the byte of a pixel 1."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    scale: float

    def __len__(self) -> int:
        return len(self.labels)

    def floats(
        self, rows: slice, device: torch.device, *, channels_last: bool
    ) -> tuple[Tensor, Tensor]:
        """x (n, C, H, W), pixels of [0, 1], and y (n,)."""
        # Copied: arrays of Ray's object store are read-only.
        x = to_floats(torch.from_numpy(self.pixels[rows].copy()), self.scale)
        y = torch.from_numpy(self.labels[rows].copy())
        return data.to_layout(x.to(device), channels_last=channels_last), y.to(device)


@dataclass(frozen=True, eq=False)
class EvaluatedImages:
    """The images that every network of an evaluation is measured on."""

    pixels: Pixels
    rows: NDArray[np.int64]  # their places in the whole set, in order
    of_images: int  # images of the whole set
    classes: tuple[str, ...]
    name: str
    split: Literal["test", "other"]
    sha256: str
    opens_test: bool  # made of the network's own test images, corrupted or not: an opening of these
    seen: str = ""  # how many the networks were trained or chosen on (`leakage.seen_before`)

    @property
    def task(self) -> ImageTask:
        """The task that these images and classes define."""
        _, height, width, channels = self.pixels.pixels.shape
        return ImageTask(len(self.classes), channels, height, width)

    def subset_rows(self) -> list[dict[str, Any]]:
        """The rows of `subsets/`."""
        return [
            cells_of(
                SubsetRow(
                    subset_sha256=self.sha256,
                    position=position,
                    row=int(row),
                    label=int(label),
                    class_name=self.classes[label],
                )
            )
            for position, (row, label) in enumerate(zip(self.rows, self.pixels.labels, strict=True))
        ]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A set of labelled images, decoded when some of them are asked for."""

    name: str
    labels: NDArray[np.int64]  # (N,), 0..K-1
    classes: tuple[str, ...]
    scale: float  # the byte of a pixel of 1
    pixels: Callable[[NDArray[np.int64]], NDArray[np.uint8]]  # positions (n,) to (n, H, W, C)
    split: Literal["test", "other"]
    opens_test: bool = False

    @classmethod
    def of_test(cls, images: data.Images) -> "ImageSet":
        """A data set's own test images."""
        return cls(
            images.name,
            images.labels.numpy(),
            tuple(map(str, images.classes)),
            images.scale,
            lambda rows: images.stored(torch.from_numpy(rows)).numpy(),
            "test",
            opens_test=True,
        )


def evaluated_images(images: ImageSet, count: int | None, *, seed: int) -> EvaluatedImages:
    """`count` of the images, all classes that have images in proportion; None takes all.

    They are in the set's own order. Raises DataError where `count` is smaller than the number of
    classes.
    """
    present = np.unique(images.labels, return_inverse=True)[1]
    rows = stratified_subset(present, count, seed=seed, field="--images")
    pixels = Pixels(images.pixels(rows), images.labels[rows], images.scale)
    return EvaluatedImages(
        pixels,
        rows,
        len(images.labels),
        images.classes,
        images.name,
        images.split,
        _fingerprint(pixels, rows),
        images.opens_test,
    )


def _fingerprint(images: Pixels, rows: NDArray[np.int64]) -> str:
    """sha256 of the images' shape, pixels, labels and places."""
    digest = hashlib.sha256(f"{list(images.pixels.shape)} {images.scale:g}\n".encode())
    for begin in range(0, len(images), _CHUNK):
        digest.update(np.ascontiguousarray(images.pixels[begin : begin + _CHUNK]).tobytes())
    digest.update(images.labels.astype("<i8").tobytes())
    digest.update(rows.astype("<i8").tobytes())
    return digest.hexdigest()

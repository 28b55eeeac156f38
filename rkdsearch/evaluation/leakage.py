"""Images of an evaluation that the networks were trained or chosen on, bit for bit."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from rkdsearch import data
from rkdsearch.data.config import DataConfig
from rkdsearch.errors import RkdError
from rkdsearch.evaluation.images import EvaluatedImages
from rkdsearch.evaluation.targets import EvaluationTarget

_ROWS = 1000  # images that are looked at at a time


def seen_before(images: EvaluatedImages, network: EvaluationTarget) -> str:
    """Number of images that a network was trained or chosen on: `7 are training images`.

    Empty where none is, and where these are not on this machine: nobody can know.
    """
    try:
        splits = data.load_training(network.config.data)
    except RkdError:
        return ""
    if (splits.train.scale, splits.train.task.shape) != (images.pixels.scale, images.task.shape):
        return ""
    known = _known(network.config.data)
    these = _digests(images.pixels.pixels)
    found = {name: int(np.isin(these, own).sum()) for name, own in known.items()}
    return " and ".join(f"{number} are {name} images" for name, number in found.items() if number)


@lru_cache(maxsize=1)
def _known(config: DataConfig) -> dict[str, NDArray[np.uint64]]:
    """Digests of the training and validation images; of forty image sets only the first waits."""
    splits = data.load_training(config)
    parts = {"training": splits.train, "validation": splits.validation}
    return {name: _digests(_images(own)) for name, own in parts.items()}


def _digests(images: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint64]:
    """A number for each image, equal for equal images."""
    digests = (hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def warning(images: EvaluatedImages) -> str:
    """The sentence about images that were seen before; empty without."""
    return images.seen and (
        f"WARNING: {images.name}: of {len(images.pixels)} images {images.seen} of these networks,"
        " bit for bit, and say nothing about new ones; take them out of one side"
    )


def _images(images: data.Images) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(images), _ROWS):
        rows = torch.arange(start, min(start + _ROWS, len(images)))
        yield from images.stored(rows).numpy()

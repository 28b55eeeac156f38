"""Images of an evaluation that the networks were trained or chosen on, bit for bit."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from rkdsearch import data
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
    known = {image.tobytes() for image in images.pixels.pixels}
    found = {}
    for name, own in (("training", splits.train), ("validation", splits.validation)):
        if own.scale == images.pixels.scale and own.task.shape == images.task.shape:
            found[name] = known.intersection(each.tobytes() for each in _images(own))
    return " and ".join(
        f"{sum(image.tobytes() in same for image in images.pixels.pixels)} are {name} images"
        for name, same in found.items()
        if same
    )


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

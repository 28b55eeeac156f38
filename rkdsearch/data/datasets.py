"""The two doors: `load_training` for all that decides, `load_test` for the exam."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from rkdsearch.data.config import DataConfig
from rkdsearch.data.images import Images
from rkdsearch.data.splits import Indices, Splits, divide, draw, fingerprint, select

_DIGITS_SCALE = 16.0
_DIGITS_TEST_SEED = 1797  # of its own: no `split_seed` may move an image into or out of the test set


def load_training(config: DataConfig) -> Splits:
    """The images to train on and to decide with; test images stay closed (digits: their positions are drawn, and left alone).

    The last data set stays in memory, so that a process that runs trial after trial reads it once.
    Raises DataError where files are missing or are not what they claim to be.
    """
    # Augmentation does not change what is read; extra images are a memory-mapped file, opened in no time.
    return _splits(config.model_copy(update={"augment": "none"}))


def load_test(config: DataConfig) -> Images:
    """The test images: the only door to them, and `evaluation` alone goes through it. Raises DataError as `load_training` does."""
    images, test = _digits(config)
    return select(images, test, "test")


@lru_cache(maxsize=1)
def _splits(config: DataConfig) -> Splits:
    images, test = _digits(config)
    rest = np.setdiff1d(np.arange(len(images)), test)
    train, validation = divide(images.take(torch.from_numpy(rest)), fraction=config.validation_fraction, seed=config.split_seed)
    indices = {"train": rest[train], "validation": rest[validation], "test": test}
    return Splits(
        train=select(images, indices["train"], "train"),
        validation=select(images, indices["validation"], "validation"),
        fingerprint=fingerprint(indices, images.labels),
    )


def _digits(config: DataConfig) -> tuple[Images, Indices]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels: Tensor = torch.from_numpy(bunch.images.astype(np.uint8)[..., None])
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    images = Images(pixels, labels, _DIGITS_SCALE, tuple("0123456789"), "digits", "all")
    test = draw(labels.numpy(), round(config.test_fraction * len(labels)), seed=_DIGITS_TEST_SEED, keep=2, field="data.test_fraction")
    return images, test

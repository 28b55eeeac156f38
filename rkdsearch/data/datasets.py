"""Loading of data sets: `load_training` for training and selection, `load_test` for evaluation."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch

from rkdsearch.data.config import STANDARD, DataConfig
from rkdsearch.data.encoded import Split
from rkdsearch.data.extra import load_extra
from rkdsearch.data.folder import read_folder
from rkdsearch.data.images import Images
from rkdsearch.data.parquet import read_parquet
from rkdsearch.data.splits import (
    Indices,
    Splits,
    divide,
    fingerprint,
    pixel_hash,
    select,
    stratified_sample,
)
from rkdsearch.data.standard import read_standard
from rkdsearch.errors import DataError

_DIGITS_SCALE = 16.0
# fixed: no `split_seed` may move an image into or out of the test set
_DIGITS_TEST_SEED = 1797


def load_training(config: DataConfig) -> Splits:
    """Training and validation images. Test images are never read.

    Digits come in one file: the test images' positions are drawn, and their pixels are left alone.
    The last data set stays in memory, because one process runs many trials on it. Raises DataError
    where files are missing or are not what they claim to be.
    """
    # Augmentation and extra images change no file here: trials that vary them share the cache.
    splits = _splits(
        config.model_copy(update={"augment": "none", "extra": None, "extra_fraction": 0.0})
    )
    if config.extra is None:
        return splits
    extra = load_extra(config.extra, splits.train)
    return replace(splits, extra=extra, extra_pixels=pixel_hash(extra))


def load_test(config: DataConfig) -> Images:
    """The test images. Only the test evaluation calls this; nothing else reads test images.

    Raises DataError as `load_training` does.
    """
    if config.kind == "digits":
        whole, test = _digits(config)
        return select(whole, test, "test")
    images = _read(config, "test")
    if images is None:
        raise DataError(
            f"{config.name}: has no test images, and a test evaluation needs them; add test files"
            " beside the training files"
        )
    return images


def forget_images() -> None:
    """Empty the memory of the last data set: the next `load_training` reads its files again."""
    _splits.cache_clear()


@lru_cache(maxsize=1)
def _splits(config: DataConfig) -> Splits:
    held: dict[str, Indices] = {}
    whole: Images | None
    if config.kind == "digits":
        whole, held["test"] = _digits(config)
    else:
        whole = _read(config, "train")
    assert whole is not None, "every reader raises where training images are missing"
    brought = None if config.kind == "digits" else _read(config, "validation")
    pool = np.setdiff1d(np.arange(len(whole)), held.get("test", []))
    labels = whole.labels.numpy()
    if brought is None:
        pool, held["validation"] = divide(
            labels, pool, fraction=config.validation_fraction, seed=config.split_seed
        )
    if config.train_images is not None:
        # After validation is held out: validation images do not depend on `train_images`.
        pool = pool[
            stratified_sample(
                labels[pool],
                config.train_images,
                seed=config.split_seed,
                keep=0,
                field="data.train_images",
            )
        ]
    known = whole.labels if brought is None else torch.cat([whole.labels, brought.labels])
    train = select(whole, pool, "train")
    validation = select(whole, held["validation"], "validation") if brought is None else brought
    return Splits(
        train,
        validation,
        fingerprint({**held, "train": pool}, known),
        pixel_hash(train, validation),
    )


def _read(config: DataConfig, split: Split) -> Images | None:
    """The images of a split, as its files have them; None where there is no such split."""
    if config.name in STANDARD:
        images = None if split == "validation" else read_standard(config, split)
    else:
        images = (read_folder if config.kind == "folder" else read_parquet)(config, split)
    if images is None:
        return None
    counts = images.labels.bincount(minlength=len(images.classes))
    if len(counts) > len(images.classes):
        row = int(images.labels.argmax())
        raise DataError(
            f"{config.name}, {split} image {row}: label must be 0 to {len(images.classes) - 1}, got"
            f" {images.labels[row]}; the file is damaged, fetch it again"
        )
    if split == "train" and (counts == 0).any():
        missing = images.classes[int(counts.argmin())]
        raise DataError(
            f"{config.name}: class {missing!r} has no training image; add images, or remove the"
            " class"
        )
    return images


def _digits(config: DataConfig) -> tuple[Images, Indices]:
    """scikit-learn's 1,797 digits, and the positions of those held out as test images.

    They have 8 x 8 pixels and 16 grey levels.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images.astype(np.uint8)[..., None])
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    whole = Images(pixels, labels, _DIGITS_SCALE, tuple("0123456789"), "digits", "all")
    test = stratified_sample(
        labels.numpy(),
        round(config.test_fraction * len(labels)),
        seed=_DIGITS_TEST_SEED,
        keep=2,
        field="data.test_fraction",
    )
    return whole, test

"""Loading of data sets: `load_training` for training and selection, `load_test` for evaluation."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rkdsearch.arguments import checked
from rkdsearch.data import folder, parquet
from rkdsearch.data.arrays import images_of, read_dotted
from rkdsearch.data.config import ARRAYS, DOTTED, STANDARD, DataConfig
from rkdsearch.data.encoded import (
    Decoder,
    Encoded,
    Split,
    UnlabelledError,
    check_headers,
    decode,
    refuse_grey,
)
from rkdsearch.data.extra import load_extra
from rkdsearch.data.images import Images
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
    # These change no file here: trials that vary them share the cache.
    shared = {"augment": "none", "sampling": "shuffled", "extra": None, "extra_fraction": 0.0}
    return _with_extra(_splits(config.model_copy(update=shared)), config)


@checked
def splits_of(
    config: DataConfig,
    train: tuple[Any, Any],
    validation: tuple[Any, Any] | None = None,
    *,
    classes: Sequence[str] | None = None,
) -> Splits:
    """Splits of images in memory, for `Trainer(config, splits=...)` with `data.name: arrays`.

    `train` and `validation` are (pixels, labels): pixels (N, H, W, C) or (N, H, W) uint8, labels
    (N,) integers of 0..K-1. Without `validation`, images are held out as `config` says. Raises
    DataError.
    """
    if config.name != ARRAYS:
        raise DataError(
            f"data.name must be {ARRAYS} for images in memory, got '{config.name}': rows and model"
            " card name the images by it"
        )
    whole = replace(images_of(*train, classes, "train"), name=ARRAYS, split="train")
    brought = None
    if validation is not None:
        found = images_of(*validation, whole.classes, "validation")
        brought = _as_trained(replace(found, name=ARRAYS, split="validation"), whole)
    check_classes(whole)
    return _with_extra(_divided(config, whole, brought, {}), config)


def load_test(config: DataConfig) -> Images:
    """The test images. Only the test evaluation calls this; nothing else reads test images.

    Raises DataError as `load_training` does, and where they do not belong to the training images.
    """
    if config.kind == "digits":
        whole, test = _digits(config)
        return select(whole, test, "test")
    images = _read(config, "test", load_training(config).train if config.kind == DOTTED else None)
    if images is None:
        raise DataError(f"{_no_test(config)}; a test evaluation needs them")
    return images


def check_test(config: DataConfig) -> str | None:
    """Check before any training that the test images belong to the training images.

    Reads the names, the labels and the headers of image files, and no pixel of them; images that
    are no files are loaded and dropped. Returns a notice where there are no test images, or none
    that could be evaluated. Raises DataError where `load_test` would refuse them.
    """
    if config.kind in ("digits", ARRAYS):
        return None
    if config.kind in STANDARD:
        try:
            read_standard(config, "test")
        except DataError as error:
            return f"no test images: `rkdsearch evaluate` will need them: {error}"
        return None
    try:
        if config.kind == DOTTED:
            found = _read(config, "test", load_training(config).train)
            return _notice(config, _no_test(config)) if found is None else None
        encoded = _encoded(config, "test")
    except UnlabelledError as error:
        return _notice(config, str(error))
    if encoded is None:
        return _notice(config, _no_test(config))
    check_headers(encoded, Decoder.of(_training(config), config))
    return None


def forget_images() -> None:
    """Empty the memory of the last data set: the next `load_training` reads its files again."""
    _splits.cache_clear()


@lru_cache(maxsize=1)
def _splits(config: DataConfig) -> Splits:
    if config.name == ARRAYS:
        raise DataError(
            "data.name: images of 'arrays' are in the memory of a Python program: give them as"
            " Trainer(config, splits=rkdsearch.splits_of(...)); for a search, write them once"
            " with rkdsearch.write_images(FOLDER, (pixels, labels), test=...), and set data.name"
            " to parquet:FOLDER"
        )
    if config.kind == "digits":
        whole, test = _digits(config)
        return _divided(config, whole, None, {"test": test})
    training = _read(config, "train")
    if training is None:
        raise DataError(f"{config.name}: has no training images")
    return _divided(config, training, _read(config, "validation", training), {})


def _divided(
    config: DataConfig, whole: Images, brought: Images | None, held: dict[str, Indices]
) -> Splits:
    """Training and validation images of `whole`, or `brought` ones; `held` are set aside."""
    held = dict(held)
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


def _with_extra(splits: Splits, config: DataConfig) -> Splits:
    if config.extra is None:
        return splits
    extra = load_extra(config.extra, splits.train)
    return replace(splits, extra=extra, extra_pixels=pixel_hash(extra))


def _read(config: DataConfig, split: Split, train: Images | None = None) -> Images | None:
    """The images of a split, as the training images are; None where there is none.

    A function of the user's needs the images `train` for comparison, files bring their own.
    """
    if config.name in STANDARD:
        images = None if split == "validation" else read_standard(config, split)
    elif config.kind == DOTTED:
        images = read_dotted(config, split, train)
        if images is not None and train is not None:
            images = _as_trained(images, train)
    else:
        encoded = _encoded(config, split)
        training = encoded if split == "train" else _training(config)
        assert training is not None, "readers raise where training images are missing"
        images = None
        if encoded is not None:
            decoder = Decoder.of(training, config)
            if split != "train":
                refuse_grey(encoded, decoder)
            images = decode(encoded, decoder, config, split)
    if images is not None:
        check_classes(images)
    return images


def _encoded(config: DataConfig, split: Split) -> Encoded | None:
    if config.test_split == "validation" and split != "train":
        if split == "validation":
            return None  # held out of the training images
        split = "validation"
    return (folder.files if config.kind == "folder" else parquet.files)(config, split)


def _training(config: DataConfig) -> Encoded:
    encoded = _encoded(config, "train")
    assert encoded is not None, "readers raise where training images are missing"
    return encoded


def check_classes(images: Images) -> None:
    """Raise DataError for a label without class, a training class without image, a lone class."""
    counts = images.labels.bincount(minlength=len(images.classes))
    if len(counts) > len(images.classes):
        row = int(images.labels.argmax())
        raise DataError(
            f"{images.name}, {images.split} image {row}: label must be 0 to"
            f" {len(images.classes) - 1}, got {images.labels[row]}; the file is damaged, fetch it"
            " again"
        )
    if images.split != "train":
        return
    if len(images.classes) < 2:
        raise DataError(
            f"{images.name}: training images must have two classes or more, got one,"
            f" {images.classes[0]!r}; is a folder or a column of another meaning read as the class?"
        )
    if (counts == 0).any():
        missing = images.classes[int(counts.argmin())]
        numbered = missing.isdigit() and ", or number the classes from 0 without a gap"
        raise DataError(
            f"{images.name}: class {missing!r} has no training image; add images"
            f"{numbered or ', or remove the class'}"
        )


def _as_trained(images: Images, train: Images) -> Images:
    """The images with the training images' classes, by name.

    Raises DataError where they are of another shape, or of a class without training images.
    """
    if images.task.shape != train.task.shape:
        raise DataError(
            f"{images.name}: {images.split} images must have the shape of the training images,"
            f" {_shape(train)}, got {_shape(images)}; convert them"
        )
    unknown = [name for name in images.classes if name not in train.classes]
    if unknown:
        raise DataError(
            f"{images.name}: {images.split} images have a class '{unknown[0]}' and training images"
            f" have not; their classes are {', '.join(train.classes)}"
        )
    numbers = torch.tensor([train.classes.index(name) for name in images.classes])
    return replace(images, labels=numbers[images.labels], classes=train.classes)


def _shape(images: Images) -> str:
    channels, height, width = images.task.shape
    return f"{height} x {width} pixels and {channels} channel{'s' if channels > 1 else ''}"


def _no_test(config: DataConfig) -> str:
    path = config.path or config.name
    expected = {
        "folder": f"; expected {path}/test/CLASS/IMAGE.png",
        "parquet": f"; expected {path}/test*.parquet",
        DOTTED: ": it returns None for split 'test'",
    }
    return f"{config.name}: has no test images{expected.get(config.kind, '')}"


def _notice(config: DataConfig, reason: str) -> str:
    """Sentence about missing test images, with the way out where validation images are there."""
    way_out = ""
    if config.kind in ("folder", "parquet") and config.test_split == "test":
        with suppress(DataError):
            if _encoded(config, "validation") is not None:
                way_out = (
                    "; where the validation images are to be the test images, as ImageNet's are,"
                    " set data.test_split to validation now: others are then held out of the"
                    " training images"
                )
    return f"{reason}. Training needs no test images, but `rkdsearch evaluate` will{way_out}"


def _digits(config: DataConfig) -> tuple[Images, Indices]:
    """scikit-learn's 1,797 digits, and the positions of those held out as test images.

    They have 8 x 8 pixels and 16 grey levels.
    """
    package = find_spec("sklearn")  # its import would take a second of every process
    assert package is not None, "scikit-learn is a dependency"
    file = Path(str(package.origin)).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        table = np.loadtxt(file, dtype=np.int64, delimiter=",")
    except OSError as error:
        raise DataError(
            f"{file}: scikit-learn's digits cannot be read ({error}); install scikit-learn as"
            " requirements.lock has it"
        ) from error
    pixels = torch.from_numpy(table[:, :-1].astype(np.uint8).reshape(-1, 8, 8, 1))
    labels = torch.from_numpy(table[:, -1].copy())
    whole = Images(pixels, labels, _DIGITS_SCALE, tuple("0123456789"), "digits", "all")
    test = stratified_sample(
        labels.numpy(),
        round(config.test_fraction * len(labels)),
        seed=_DIGITS_TEST_SEED,
        keep=2,
        field="data.test_fraction",
    )
    return whole, test

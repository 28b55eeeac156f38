"""Images that the user holds as arrays, or that code of the user's makes."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from rkdsearch.data.config import DataConfig
from rkdsearch.data.encoded import Split
from rkdsearch.data.images import Images
from rkdsearch.data.names import plain
from rkdsearch.errors import DataError, of_users_code
from rkdsearch.plugins import load_module

MOST_CLASSES = 100_000  # that have no names: each costs memory
_PLACE = "data.name"


def images_of(pixels: Any, labels: Any, classes: Sequence[str] | None, place: str) -> Images:
    """Checked images from arrays or tensors.

    pixels (N, H, W, C) or (N, H, W) uint8; labels (N,) integers of 0..K-1; `classes` names them,
    by their numbers where it is None. Raises DataError, which begins with `place`.
    """
    try:
        found, numbers = np.ascontiguousarray(pixels), np.asarray(labels)
    except (TypeError, ValueError) as error:  # of several shapes; on a GPU
        raise DataError(
            f"{place}: pixels and labels must be arrays: {error}; resize images to one shape, and"
            " copy tensors to the CPU"
        ) from None
    if found.dtype != np.uint8:
        raise DataError(
            f"{place}: pixels must be uint8 of 0 to 255, got {found.dtype}; write"
            " (255 * x).round().astype('uint8') where they are of 0 to 1"
        )
    if found.ndim == 3:
        found = found[..., None]
    if found.ndim != 4 or found.shape[3] not in (1, 3):
        first = found.ndim == 4 and found.shape[1] in (1, 3)
        raise DataError(
            f"{place}: pixels must be (N, height, width, channels) with 1 or 3 channels, got"
            f" {found.shape}; "
            + (
                "move the channels to the end, as x.transpose(0, 2, 3, 1) does"
                if first
                else "leave out what is no colour, as x[..., :3] does with transparency"
            )
        )
    if numbers.shape != found.shape[:1] or numbers.dtype.kind not in "iu" or not len(numbers):
        raise DataError(
            f"{place}: labels must be {len(found)} integers, one an image and at least one, got"
            f" {numbers.dtype} {numbers.shape}"
        )
    if classes is None and int(numbers.max()) >= MOST_CLASSES:
        highest = int(numbers.argmax())
        raise DataError(
            f"{place}: label must be below {MOST_CLASSES:,}, got {numbers[highest]} of image"
            f" {highest}; number the classes from 0 without a gap, or name them"
        )
    named = (
        tuple(str(k) for k in range(int(numbers.max()) + 1))
        if classes is None
        else tuple(plain(str(name)) for name in classes)
    )
    if len(set(named)) != len(named):
        twice = next(name for name in named if named.count(name) > 1)
        raise DataError(
            f"{place}: classes must have names of their own, got {twice!r} twice; rename one"
        )
    wrong = np.flatnonzero((numbers < 0) | (numbers >= len(named)))
    if len(wrong):
        raise DataError(
            f"{place}: label must be 0 to {len(named) - 1}, got {numbers[wrong[0]]} of image"
            f" {wrong[0]}; correct it, or name more classes"
        )
    return Images(
        torch.from_numpy(found),
        torch.from_numpy(numbers.astype(np.int64)),
        255.0,
        named,
        place,
        "all",
    )


def read_dotted(config: DataConfig, split: Split, like: Images | None = None) -> Images | None:
    """Images of a split by a function or class of the user's; None where it returns None.

    It is called with `split` and, where it names it, `root`. It returns (pixels, labels) or
    (pixels, labels, classes) as `images_of` takes them, or a data set that is indexed: items
    (image, label), images of Pillow or uint8 (H, W, C), perhaps `classes`. `like` are the training
    images, whose classes hold where it names none. Raises ConfigError or DataError.
    """
    module, _, attribute = config.name.rpartition(".")
    maker = vars(load_module(module, place=_PLACE)).get(attribute)
    if not callable(maker):
        raise DataError(f"{_PLACE}: {module} has no function or class '{attribute}'")
    parameters = inspect.signature(maker).parameters
    known = {"split": split, "root": config.root}
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if "split" not in parameters and not takes_all:
        raise DataError(
            f"{_PLACE}: {config.name} must take split, 'train', 'validation' or 'test', and return"
            f" None where it has none; its arguments are {', '.join(parameters) or 'none'}"
        )
    if config.root is not None and "root" not in parameters and not takes_all:
        raise DataError(
            f"data.root: {config.name} has no argument root, got '{config.root}'; leave it out"
        )
    given = {name for name, value in known.items() if value is not None}
    needed = [
        name
        for name, p in parameters.items()
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    if lacking := [name for name in needed if name not in given]:
        raise DataError(
            f"{_PLACE}: {config.name} needs {', '.join(lacking)}, and is given"
            f" {' and '.join(sorted(given))}; set data.root for root, and give any other argument"
            " a default"
        )
    asked = {
        name: value
        for name, value in known.items()
        if value is not None and (takes_all or name in parameters)
    }
    with of_users_code(f"{_PLACE}: {config.name}, split {split},", DataError):
        found = maker(**asked)
    if found is None:
        return None
    place = f"{config.name}, split {split}"
    pixels, labels, classes = _parts(found, place)
    if classes is None and like is not None:
        classes = like.classes
    images = images_of(pixels, labels, classes, place)
    return replace(images, name=config.name, split=split)


def _parts(found: Any, place: str) -> tuple[Any, Any, Sequence[str] | None]:
    """Pixels, labels and class names. Raises DataError where it is neither arrays nor items."""
    if isinstance(found, tuple) and len(found) in (2, 3):
        pixels, labels, classes = (*found, None)[:3]
        return pixels, labels, classes
    if not (hasattr(found, "__len__") and hasattr(found, "__getitem__")) or isinstance(
        found, Mapping
    ):
        raise DataError(
            f"{place}: must return (pixels, labels), (pixels, labels, classes), a data set of"
            f" (image, label), or None, got {type(found).__name__}"
        )
    with of_users_code(f"{place}: its items", DataError):
        items = [found[index] for index in range(len(found))]
    with of_users_code(f"{place}: its items", DataError):
        try:
            images = [np.asarray(image) for image, _ in items]
            labels = np.array([int(label) for _, label in items], dtype=np.int64)
        except (TypeError, ValueError) as error:
            raise DataError(f"{place}: its items must be (image, label): {error}") from error
    shapes = sorted({image.shape for image in images}, key=len)
    if len(shapes) != 1:
        raise DataError(
            f"{place}: images must have one shape, got {', '.join(map(str, shapes[:3]))}; resize"
            " and convert them in the data set"
        )
    if images[0].dtype != np.uint8:
        raise DataError(
            f"{place}: images must be of Pillow or uint8 (H, W, C), got {images[0].dtype}"
            f" {images[0].shape}; leave ToTensor and normalisation out of its transform"
        )
    return np.stack(images), labels, getattr(found, "classes", None)

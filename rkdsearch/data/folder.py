"""Data set `folder:PATH`: image files in PATH/train/CLASS/ and PATH/test/CLASS/, at any depth.

PATH/validation/CLASS/ is optional. As in torchvision's ImageFolder, sub-folders belong to their
class, symbolic links are followed, and images are ordered by their folders' paths, then by their
names. Unlike there, sub-folders whose names begin with a dot, such as a viewer's thumbnails, are
left out.
"""

import os
from pathlib import Path

import numpy as np

from rkdsearch.data.config import DataConfig
from rkdsearch.data.encoded import Encoded, Split, decode, key_of
from rkdsearch.data.images import Images
from rkdsearch.errors import DataError

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)


def read_folder(config: DataConfig, split: Split) -> Images | None:
    """Images of a split; None where it has no folder.

    Classes are the names of the folders in PATH/train, in alphabetical order. Raises DataError
    where PATH/train is empty, a split holds no images, or a class has no training folder.
    """
    root = Path(config.path).expanduser()
    classes = _folders(root / "train")
    if not classes:
        raise DataError(
            f"{root / 'train'}: must hold one folder of images per class, found none; expected"
            " PATH/train/CLASS/IMAGE.png"
        )
    if not (root / split).is_dir():
        return None
    unknown = sorted(set(_folders(root / split)) - set(classes))
    if unknown:
        raise DataError(
            f"{root / split / unknown[0]}: the class is not in {root / 'train'}; rename the"
            " folder, or add training images"
        )
    files: list[Path] = []
    labels: list[int] = []
    for k, name in enumerate(classes):
        found = [path for path in _files(root / split / name) if path.suffix.lower() in SUFFIXES]
        files += found
        labels += [k] * len(found)
    if not files:
        raise DataError(
            f"{root / split}: holds no images; known endings: {', '.join(sorted(SUFFIXES))}"
        )
    encoded = Encoded(
        items=lambda: ((str(file), file) for file in files),
        labels=np.array(labels, dtype=np.int64),
        classes=classes,
        key=key_of(root, files),
    )
    return decode(encoded, config, split)


def _files(folder: Path) -> list[Path]:
    """All files of a class."""
    found, seen = [], set[str]()
    for here, below, names in os.walk(folder, followlinks=True):
        # a link to a folder that was read already
        if (place := os.path.realpath(here)) in seen:
            below.clear()
            continue
        seen.add(place)
        below[:] = [name for name in below if not name.startswith(".")]
        found += [(here, name) for name in names]
    return [Path(here, name) for here, name in sorted(found)]


def _folders(parent: Path) -> tuple[str, ...]:
    return tuple(
        sorted(
            path.name
            for path in parent.glob("*")
            if path.is_dir() and not path.name.startswith(".")
        )
    )

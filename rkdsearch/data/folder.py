"""Data set `folder:PATH`: image files in PATH/train/CLASS/ and PATH/test/CLASS/, at any depth.

PATH/validation/CLASS/ is optional. `val`, `valid` and `dev` are validation too, in any case. As in
torchvision's ImageFolder, sub-folders belong to their class, symbolic links are followed, and
images are ordered by their folders' paths, then by their names. Unlike there, hidden files and
those of an operating system are left out, and names are compared in one Unicode form.

A split may also be one folder of images with a text file `*_annotations.txt` beside it, as
Tiny-ImageNet's `val`: a line is the image's name, a tab, its class, and anything more.
"""

import os
from pathlib import Path

import numpy as np

from rkdsearch.data import names
from rkdsearch.data.config import DataConfig
from rkdsearch.data.encoded import Encoded, Split, UnlabelledError, key_of
from rkdsearch.errors import DataError
from rkdsearch.local_path import home_path

SUFFIXES = frozenset(
    {
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".gif", ".tif"),
        *(".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga"),
    }
)
# Of images that Pillow does not decode: left out in silence, a class would lose its photographs.
_UNKNOWN_SUFFIXES = frozenset({".heic", ".heif", ".jxl"})


def files(config: DataConfig, split: Split) -> Encoded | None:
    """The image files of a split, undecoded; None where it has no folder.

    Classes are the names of the training folders, in alphabetical order. Raises DataError where
    there are none, a split holds no images, or a class has no training folder; UnlabelledError
    where images have no class.
    """
    root = home_path(config.path)
    splits = names.folders(root)
    train = names.one_of("train", splits.values(), root)
    classes = {} if train is None else names.folders(train)
    if not classes:
        raise DataError(
            f"{train or root / 'train'}: must hold one folder of images per class, found none;"
            f" expected PATH/train/CLASS/IMAGE.png{_hint(root, splits)}"
        )
    home = train if split == "train" else names.one_of(split, splits.values(), root)
    if home is None:
        return None
    labelled = _labelled(home, list(classes))
    if not labelled:
        raise DataError(f"{home}: holds no images; known endings: {', '.join(sorted(SUFFIXES))}")
    paths = [path for path, _ in labelled]
    return Encoded(
        items=lambda: ((str(path), path) for path in paths),
        labels=np.array([label for _, label in labelled], dtype=np.int64),
        classes=tuple(classes),
        key=lambda: key_of(root, paths),
    )


def _labelled(home: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """(file, label) of every image of a split, class by class."""
    lists = sorted(path for path in home.glob("*_annotations.txt") if path.name[0] != ".")
    if len(lists) > 1:
        raise DataError(
            f"{home}: {lists[0].name} and {lists[1].name} both list its images; leave one of them"
            " there"
        )
    if lists:
        return _annotated(home, lists[0], classes)
    found = names.folders(home)
    unknown = next((name for name in found if name not in classes), None)
    loose = [path for path in home.glob("*") if _is_image(path)]
    if loose or (unknown is not None and not found.keys() & set(classes)):
        images = loose[:1] or images_below(found[str(unknown)])[:1]
        if images:
            raise UnlabelledError(
                f"{home}: holds images without labels, such as {images[0].relative_to(home)}: in no"
                " folder of a class, and no *_annotations.txt names their classes; expected"
                f" {home.name}/CLASS/IMAGE.png with the classes of the training images"
            )
    if unknown is not None:
        raise DataError(
            f"{found[unknown]}: the class has no training images; rename the folder, or add"
            " training images"
        )
    return [
        (path, k)
        for k, name in enumerate(classes)
        if name in found
        for path in images_below(found[name])
    ]


def _annotated(home: Path, listing: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """(file, label) by the lines of `listing`: image, tab, class.

    Raises DataError where a line names no image of this split, or no class.
    """
    places = {names.plain(path.name): path for path in images_below(home)}
    label = {name: k for k, name in enumerate(classes)}
    found = []
    try:
        lines = listing.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{listing}: cannot be read: {error.strerror}; mend that first") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{listing}: byte {error.start} is not UTF-8; save the list as UTF-8"
        ) from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        image, *rest = [names.plain(part.strip()) for part in line.split("\t")]
        if image not in places or not rest or rest[0] not in label:
            what = "is not there" if image not in places else "has no training folder of its class"
            raise DataError(
                f"{listing}, line {number}: {image} {what}; a line is IMAGE, a tab, and CLASS"
            )
        found.append((places[image], label[rest[0]]))
    return sorted(found, key=lambda pair: (pair[1], names.plain(pair[0].name)))


def images_below(folder: Path) -> list[Path]:
    """All images below a folder, ordered by their folders' paths, then by their names.

    Raises DataError for a photograph in a format that Pillow does not decode.
    """
    found, seen = [], set[str]()
    for here, below, inside in os.walk(folder, followlinks=True):
        # a link to a folder that was read already
        if (place := os.path.realpath(here)) in seen:
            below.clear()
            continue
        seen.add(place)
        below[:] = [name for name in below if not names.is_foreign(name)]
        found += [(here, name) for name in inside]
    ordered = sorted(found, key=lambda pair: (names.plain(pair[0]), names.plain(pair[1])))
    for here, name in ordered:
        if Path(name).suffix.lower() in _UNKNOWN_SUFFIXES and not names.is_foreign(name):
            raise DataError(
                f"{Path(here, name)}: is an image in a format that Pillow does not decode; convert"
                " it, to PNG for example, or remove it"
            )
    return [path for here, name in ordered if _is_image(path := Path(here, name))]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not names.is_foreign(path.name)


def _hint(root: Path, splits: dict[str, Path]) -> str:
    """The folders that are there instead, and the path that may be meant."""
    if not root.is_dir():
        return f"; {root} is no folder"
    if names.one_of("train", [root], root) is not None:
        return f"; did you mean folder:{root.parent}?"
    inside = _with_training_images_below(root, depth=3)  # as ILSVRC/Data/CLS-LOC/train
    if inside is not None:
        return f"; did you mean folder:{inside}?"
    return f"; {root} holds {', '.join([*splits][:5]) or 'no folders'}"


def _with_training_images_below(folder: Path, depth: int) -> Path | None:
    """The first folder below that has one of training images; of few folders only."""
    below = names.folders(folder)
    if depth == 0 or len(below) > 20:
        return None
    for place in below.values():
        if names.one_of("train", names.folders(place).values(), place) is not None:
            return place
        if (deeper := _with_training_images_below(place, depth - 1)) is not None:
            return deeper
    return None

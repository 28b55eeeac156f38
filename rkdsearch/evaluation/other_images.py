"""The sets of images of an evaluation: the networks' own test images, or those of `--data`.

    folder:PATH    PATH/CLASS/IMAGE or PATH/test/CLASS/IMAGE, at any depth below CLASS
    parquet:PATH   a file, or a folder of test*.parquet or *.parquet, in the layout of Hugging Face
    npz:FILE       image(s), x or x_test with label(s), y or y_test; FILE.npz alone is enough
    npy:PATH       the layout of CIFAR-10-C: labels.npy, and one file of images a corruption, with
                   its severities one after the other; PATH is the folder or one of the files
    corruptions    the networks' own test images, corrupted: every corruption at every severity;
                   corruptions:NAME is one of them

Classes are told apart by name where the files name them: by the network's class names, or by their
numbers in the order of its logits.
"""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkdsearch import config as run
from rkdsearch import data
from rkdsearch.data import names
from rkdsearch.data.encoded import opened_image
from rkdsearch.data.folder import images_below
from rkdsearch.data.parquet import LabelledFile, every_file
from rkdsearch.errors import ConfigError, DataError, did_you_mean
from rkdsearch.evaluation.corruptions import CORRUPTIONS, corrupted
from rkdsearch.evaluation.image_form import Bytes, Form
from rkdsearch.evaluation.images import EvaluatedImages, ImageSet, evaluated_images
from rkdsearch.evaluation.targets import EvaluationTarget
from rkdsearch.local_path import home_path, refused_url
from rkdsearch.teacher import split_of

Indices = NDArray[np.int64]

SEVERITIES = 5
_IMAGE_KEYS = ("image", "images", "x", "x_test", "data", "pixels")
_LABEL_KEYS = ("label", "labels", "y", "y_test", "fine_label")
_KNOWN = "folder:PATH, parquet:PATH, npz:FILE, npy:PATH or corruptions"
_OF_FILES = ("folder", "parquet", "npz", "npy")
# Fields of `data` that say where images are, and not which.
_PLACES = frozenset({"root", "download", "cache", "memory_gib"})


def image_sets(
    spec: str | None,
    overrides: Mapping[str, Any],
    severities: Sequence[int],
    networks: Sequence[EvaluationTarget],
    count: int | None,
) -> list[EvaluatedImages]:
    """The sets, each evaluated for itself: `count` images each, or all.

    `overrides` are fields `data.*`. Raises DataError where files are missing or not what they
    claim to be, ConfigError where an option has no meaning here.
    """
    first = networks[0]
    given = _fields(overrides)
    corrupts = spec is not None and spec.partition(":")[0] == "corruptions"
    if severities and not (corrupts or (spec or "").startswith("npy:")):
        raise ConfigError(
            "--severity chooses among the severities of --data npy:PATH and corruptions; leave it"
            " out"
        )
    for severity in severities:
        if not 1 <= severity <= SEVERITIES:
            raise ConfigError(f"--severity must be 1 to {SEVERITIES}, got {severity}")
    if spec is None or corrupts:
        _refuse_other_test_images(given, first.config.data)
        values = first.config.to_dict()
        config = run.build_stored(values | {"data": values["data"] | given}, "evaluate")
        if given:
            _check_same_set(config.data, first.weights)
        own = ImageSet.of_test(data.load_test(config.data))
        found = [own] if spec is None else _corrupted(own, spec, severities)
    else:
        classes = first.classes or tuple(map(str, range(first.task.classes)))
        found = _named(spec, Form.of(given, first.config.data.resize), classes, severities)
    seed = first.config.data.split_seed
    return [evaluated_images(each, count, seed=seed) for each in found]


def _refuse_other_test_images(given: Mapping[str, Any], own: data.DataConfig) -> None:
    """Raise ConfigError for fields that would make other images the test images."""
    name = str(given.get("name", own.name))
    moved = name != own.name and own.path and name.partition(":")[0] == own.kind
    for field in given:
        if field in _PLACES or (field == "name" and moved):
            continue
        raise ConfigError(
            f"data.{field}: the test images are the run's own, and only their place may be another"
            f" ({', '.join(f'data.{place}' for place in sorted(_PLACES))}); name other images with"
            " --data"
        )


def _check_same_set(moved: data.DataConfig, weights: Path) -> None:
    """Raise DataError where the training images there are not those of the network.

    Where there are none, or its file does not say which they were, nobody can know.
    """
    known = split_of(weights)
    try:
        now = data.load_training(moved).fingerprint
    except DataError:
        return
    if known not in (None, now):
        raise DataError(
            f"{moved.name}: its training images are not those of {weights}, so that its test images"
            " are of another data set; name other images with --data"
        )


def _corrupted(own: ImageSet, spec: str, severities: Sequence[int]) -> list[ImageSet]:
    """The test images under the corruptions that `spec` names, a set each and severity."""
    asked = spec.partition(":")[2]
    if asked and asked not in CORRUPTIONS:
        raise ConfigError(
            f"--data {spec}: unknown corruption; "
            + did_you_mean(asked, CORRUPTIONS, f"known: {', '.join(CORRUPTIONS)}")
        )

    def pixels(name: str, severity: int, rows: Indices) -> Bytes:
        floats = own.pixels(rows) / own.scale
        return np.stack([corrupted(image, name, severity) for image in floats])

    return [
        replace(
            own,
            name=f"{own.name}, {name}, severity {severity}",
            scale=255.0,
            pixels=partial(pixels, name, severity),
            split="other",
        )
        for name in ([asked] if asked else CORRUPTIONS)
        for severity in severities or range(1, SEVERITIES + 1)
    ]


def _fields(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of section `data`. Raises ConfigError for any other name."""
    wrong = [name for name in overrides if not name.startswith("data.")]
    if wrong:
        raise ConfigError(
            f"{wrong[0]}: evaluate changes no run; it takes fields of the images alone, such as"
            " data.image_size=32"
        )
    return {name.removeprefix("data."): value for name, value in overrides.items()}


def _named(
    spec: str, form: Form, classes: tuple[str, ...], severities: Sequence[int]
) -> list[ImageSet]:
    kind, colon, place = spec.partition(":")
    if (refusal := refused_url(place if kind in _OF_FILES else spec)) is not None:
        raise DataError(f"--data {refusal}")
    path = home_path(place if colon else spec)
    if not colon and path.suffix == ".npz":
        kind = "npz"
    elif not (colon and place):
        raise ConfigError(f"--data {spec}: must be {_KNOWN}")
    if kind in _OF_FILES and not path.exists():
        raise DataError(f"--data {spec}: there is no such file or folder; check the path")
    match kind:
        case "folder":
            return [_folder(spec, path, form, classes)]
        case "parquet":
            return [_parquet(spec, path, form, classes)]
        case "npz":
            return [_npz(spec, path, form, classes)]
        case "npy":
            return _npy(path, form, classes, severities)
        case _:
            raise ConfigError(f"--data {spec}: must be {_KNOWN}")


def _folder(spec: str, path: Path, form: Form, classes: tuple[str, ...]) -> ImageSet:
    home = names.one_of("test", names.folders(path).values(), path) or path
    folders = names.folders(home)
    files: list[Path] = []
    labels: list[int] = []
    numbers = _numbers(list(folders), classes, str(home))
    for folder, k in zip(folders.values(), numbers, strict=True):
        found = images_below(folder)
        files += found
        labels += [k] * len(found)
    if not files:
        raise DataError(f"{home}: holds no images in folders of classes; expected PATH/CLASS/IMAGE")
    return ImageSet(
        spec,
        np.array(labels, dtype=np.int64),
        classes,
        255.0,
        lambda rows: _decoded([(str(files[row]), files[row]) for row in rows], form),
        "other",
    )


def _parquet(spec: str, path: Path, form: Form, classes: tuple[str, ...]) -> ImageSet:
    files = [path] if path.is_file() else every_file(path)
    config = data.DataConfig(name=f"parquet:{path}")
    read = [LabelledFile.of(file, config) for file in files]
    by_text = names.numbered_otherwise(classes)
    labels = np.concatenate([file.labels(classes, by_text=by_text) for file in read])
    contents = [item for file in read for item in file.images()]
    return ImageSet(
        spec,
        labels,
        classes,
        255.0,
        lambda rows: _decoded([contents[row] for row in rows], form),
        "other",
    )


def _npz(spec: str, path: Path, form: Form, classes: tuple[str, ...]) -> ImageSet:
    try:
        # not `np.load`, which takes a single array or a pickle under this name too
        with path.open("rb") as file, np.lib.npyio.NpzFile(file) as archive:
            image = next((key for key in _IMAGE_KEYS if key in archive), None)
            label = next((key for key in _LABEL_KEYS if key in archive), None)
            if image is None or label is None:
                raise DataError(
                    f"{path}: must hold images (one of {', '.join(_IMAGE_KEYS)}) and labels (one of"
                    f" {', '.join(_LABEL_KEYS)}), got {', '.join(archive)}"
                )
            pixels, labels = archive[image], archive[label]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read as npz: {error}; write it by numpy.savez"
        ) from error
    return _array_set(spec, pixels, _checked(labels, classes, str(path)), form, classes, str(path))


def _npy(
    path: Path, form: Form, classes: tuple[str, ...], severities: Sequence[int]
) -> list[ImageSet]:
    folder = path.parent if path.is_file() else path
    files = [path] if path.is_file() else sorted(folder.glob("*.npy"))
    files = [file for file in files if file.name != "labels.npy"]
    if not files or not (folder / "labels.npy").exists():
        raise DataError(f"{path}: must hold labels.npy and one file of images a corruption")
    labels = _checked(_array(folder / "labels.npy"), classes, str(folder / "labels.npy"))
    found = []
    for file in files:
        pixels = _array(file)
        one = len(pixels) // SEVERITIES
        if len(pixels) % SEVERITIES or not (
            len(labels) == one
            or (
                len(labels) == len(pixels)
                and (labels.reshape(SEVERITIES, one) == labels[:one]).all()
            )
        ):
            if severities or len(labels) != len(pixels):
                raise DataError(
                    f"{file}: {len(pixels)} images and {len(labels)} labels are not"
                    f" {SEVERITIES} severities of the same images, one after the other"
                )
            found.append(_array_set(f"npy:{file}", pixels, labels, form, classes, str(file)))
            continue
        for severity in severities or range(1, SEVERITIES + 1):
            part = slice((severity - 1) * one, severity * one)
            name = f"npy:{file}, severity {severity}"
            found.append(_array_set(name, pixels[part], labels[:one], form, classes, str(file)))
    return found


def _array(file: Path) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: cannot be read as npy: {error}; fetch it again") from error
    if found.ndim == 0:
        raise DataError(f"{file}: must hold an array, got one number; fetch it again")
    return found


def _array_set(
    name: str,
    pixels: NDArray[Any],
    labels: Indices,
    form: Form,
    classes: tuple[str, ...],
    place: str,
) -> ImageSet:
    """Images (N, H, W, C) or (N, H, W): bytes, or floats that are 255ths of [0, 1]."""
    shaped = pixels[..., None] if pixels.ndim == 3 else pixels
    if shaped.ndim != 4 or shaped.shape[3] not in (1, 3):
        raise DataError(
            f"{place}: images must be (N, H, W, C) with 1 or 3 channels, or (N, H, W), got"
            f" {pixels.shape}; transpose them"
        )
    if len(shaped) != len(labels):
        raise DataError(
            f"{place}: holds {len(shaped)} images and {len(labels)} labels; give every image one"
        )
    if pixels.dtype.kind not in "uif":
        raise DataError(
            f"{place}: images must be bytes, or floats of [0, 1], got {pixels.dtype}; convert them"
        )

    def chosen(rows: Indices) -> Bytes:
        some = np.asarray(shaped[rows])
        if some.dtype != np.uint8:
            levels = some.astype(np.float64) * (255 if some.dtype.kind == "f" else 1)
            some = np.rint(np.nan_to_num(levels)).clip(0, 255).astype(np.uint8)
            if not (np.abs(levels - some) <= 1e-3).all():  # nor is NaN near a number
                raise DataError(
                    f"{place}: images must be bytes, or floats of [0, 1] that are 255ths; another"
                    " number would be rounded, and be another image"
                )
        return np.stack([form.array(image) for image in some])

    return ImageSet(name, labels, classes, 255.0, chosen, "other")


def _decoded(sources: Any, form: Form) -> Bytes:
    """Bytes (n, H, W, C) of image files, given as (place, file or its bytes)."""
    found: list[Bytes] = []
    for place, source in sources:
        found.append(opened_image(place, source, form))
        if found[-1].shape != found[0].shape:
            raise DataError(
                f"{place}: must have the shape of the first image, {found[0].shape}, got"
                f" {found[-1].shape}; set data.image_size and data.channels"
            )
    return np.stack(found)


def _numbers(names: Sequence[str], classes: tuple[str, ...], place: str) -> list[int]:
    """The classes with these names, or these numbers. Raises DataError for any other."""
    by_name = {name: k for k, name in enumerate(classes)}
    by_number = {str(k): k for k in range(len(classes))}
    known = by_number if all(name in by_number for name in names) else by_name
    known = by_name if all(name in by_name for name in names) else known
    for name in names:
        if name not in known:
            raise DataError(
                f"{place}: class '{name}' is not one of the network's: {', '.join(classes)}; rename"
                " the folder, or leave it out"
            )
    return [known[name] for name in names]


def _checked(labels: NDArray[Any], classes: tuple[str, ...], place: str) -> Indices:
    """Labels (N,) as integers of 0..K-1. Raises DataError for others."""
    flat = labels.reshape(-1)
    if flat.dtype.kind not in "iu" or not len(flat) or labels.shape[:1] != flat.shape:
        raise DataError(
            f"{place}: labels must be one integer an image, (N,), got {flat.dtype} {labels.shape};"
            " give each image the number of its class, from 0"
        )
    by_name = names.numbered_otherwise(classes)
    known = {int(name) if by_name else k: k for k, name in enumerate(classes)}
    for row, label in enumerate(flat.tolist()):
        if label not in known:
            raise DataError(
                f"{place}: label must be {min(known)} to {max(known)}, the network's classes, got"
                f" {label} in row {row}; correct it, or evaluate another network"
            )
    return np.array([known[label] for label in flat.tolist()], dtype=np.int64)

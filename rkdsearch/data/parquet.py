"""Data set `parquet:PATH`: train*.parquet and test*.parquet in the image layout of Hugging Face.

validation*.parquet is optional. Columns: `image` or `img: struct<bytes, path>`, and `label` or
`fine_label`. Class names come from the schema's metadata; without it, classes are called by their
numbers.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rkdsearch.data.config import DataConfig
from rkdsearch.data.encoded import Encoded, Split, decode, key_of
from rkdsearch.data.images import Images
from rkdsearch.errors import DataError

_ROWS = 1024  # rows read at a time
# As published sets name them: CIFAR-10 has img and label, CIFAR-100 img, fine_label and
# coarse_label.
_IMAGE, _LABEL = ("image", "img"), ("label", "fine_label")


def read_parquet(config: DataConfig, split: Split) -> Images | None:
    """Images of a split; None where it has no file.

    Raises DataError where there are no training files, or a file is not as described above.
    """
    root = Path(config.path).expanduser()
    training = _files(root, "train")
    if not training:
        raise DataError(
            f"{root / 'train*.parquet'}: no such file; expected Parquet files with an image and a"
            " label column"
        )
    files = _files(root, split)
    if not files:
        return None
    classes = _class_names(training[0])
    if classes is None:
        classes = _numbered(training)
    encoded = Encoded(
        items=lambda: (item for file in files for item in _images(file)),
        labels=np.concatenate([_labels(file, classes) for file in files]),
        classes=classes,
        key=key_of(root, files),
    )
    if not len(encoded.labels):
        raise DataError(f"{root}: the {split} files have no rows; write them again")
    return decode(encoded, config, split)


def _files(root: Path, split: Split) -> list[Path]:
    return sorted(root.glob(f"{split}*.parquet"))


def _open(file: Path) -> tuple[Any, str, str]:
    """A ParquetFile, and the names of its image and label columns.

    Raises DataError where these columns are missing or of other types.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file}: must be a Parquet file: {error}; write or fetch it again"
        ) from error
    types = {field.name: field.type for field in opened.schema_arrow}
    image, label = _named(file, _IMAGE, list(types)), _named(file, _LABEL, list(types))
    if not (pa.types.is_struct(types[image]) and types[image].get_field_index("bytes") >= 0):
        raise DataError(
            f"{file}: column {image} must be a struct<bytes, path>, got {types[image]}; convert it"
        )
    if not pa.types.is_integer(types[label]):
        raise DataError(
            f"{file}: column {label} must hold integers, got {types[label]}; convert it"
        )
    return opened, image, label


def _named(file: Path, names: tuple[str, ...], columns: list[str]) -> str:
    """The one column of the file with one of these names. Raises DataError on none or several."""
    found = [name for name in names if name in columns]
    if len(found) != 1:
        raise DataError(
            f"{file}: must have one column {' or '.join(names)}, got {', '.join(columns)}; rename"
            " or drop columns"
        )
    return found[0]


def _class_names(file: Path) -> tuple[str, ...] | None:
    opened, _, label = _open(file)
    with opened:
        metadata = (opened.schema_arrow.metadata or {}).get(b"huggingface")
    if metadata is None:
        return None
    try:
        return tuple(str(name) for name in json.loads(metadata)["info"]["features"][label]["names"])
    except (ValueError, KeyError, TypeError):
        return None  # the metadata may describe a plain integer label


def _numbered(training: list[Path]) -> tuple[str, ...]:
    """Classes without names: 0 to the highest label.

    Raises DataError where a number has no image.
    """
    labels = {file: _labels(file, None) for file in training}
    used = np.unique(np.concatenate(list(labels.values())))
    missing = np.flatnonzero(used != np.arange(len(used)))
    if len(missing):
        highest = used[-1]
        file, row = next(
            (file, int(found.argmax())) for file, found in labels.items() if highest in found
        )
        raise DataError(
            f"{file}, row {row}: label {highest} is the highest, so that class {missing[0]} should"
            " have a training image and has none; correct the label, or number the classes from 0"
            " without a gap"
        )
    return tuple(str(k) for k in used)


def _column(file: Path, role: Literal["image", "label"]) -> Iterator[Any]:
    """Image or label column, some rows at a time."""
    import pyarrow as pa

    opened, image, label = _open(file)
    name = image if role == "image" else label
    with opened:
        try:
            for batch in opened.iter_batches(batch_size=_ROWS, columns=[name]):
                yield batch.column(0)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{file}: column {name} is damaged: {error}; write or fetch the file again"
            ) from error


def _labels(file: Path, classes: tuple[str, ...] | None) -> NDArray[np.int64]:
    """(n,) labels of a file. Raises DataError where one is not a class."""
    values: list[int | None] = [
        value for part in _column(file, "label") for value in part.to_pylist()
    ]
    for row, value in enumerate(values):
        if value is None or value < 0 or (classes is not None and value >= len(classes)):
            law = "0 or more" if classes is None else f"0 to {len(classes) - 1}"
            raise DataError(
                f"{file}, row {row}: label must be {law}, got {value}; correct the label, or remove"
                " the row"
            )
    return np.array(values, dtype=np.int64)


def _images(file: Path) -> Iterator[tuple[str, bytes]]:
    row = 0
    for part in _column(file, "image"):
        for value in part.field("bytes").to_pylist():
            if value is None:
                raise DataError(
                    f"{file}, row {row}: image.bytes must hold the image itself, got null; embed"
                    " the files, or use folder:PATH"
                )
            yield f"{file}, row {row}", value
            row += 1

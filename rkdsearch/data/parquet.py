"""`parquet:PATH`: train*.parquet, test*.parquet and, if there are any, validation*.parquet, in the image layout of Hugging Face.

Columns `image: struct<bytes, path>` and `label`; class names in the schema's metadata, or the numbers themselves without it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkdsearch.data.config import DataConfig
from rkdsearch.data.encoded import Encoded, Split, decode, key_of
from rkdsearch.data.images import Images
from rkdsearch.errors import DataError

_ROWS = 1024  # at a time


def read_parquet(config: DataConfig, split: Split) -> Images | None:
    """The images of a split, None where it has no file."""
    root = Path(config.path).expanduser()
    training = _files(root, "train")
    if not training:
        raise DataError(f"{root / 'train*.parquet'}: no such file; expected Parquet files with columns image and label")
    files = _files(root, split)
    if not files:
        return None
    classes = _class_names(training[0])
    if classes is None:
        highest = max(int(_labels(file, None).max(initial=0)) for file in training)
        classes = tuple(str(k) for k in range(highest + 1))
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


def _open(file: Path) -> Any:
    """A ParquetFile whose columns are the expected ones."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: must be a Parquet file: {error}; write or fetch it again") from error
    schema = opened.schema_arrow
    types = {name: schema.field(name).type for name in schema.names}
    image, label = types.get("image"), types.get("label")
    if not (image is not None and pa.types.is_struct(image) and image.get_field_index("bytes") >= 0):
        raise DataError(f"{file}: must have a column image: struct<bytes, path>, got columns {types}; rename or convert it")
    if not (label is not None and pa.types.is_integer(label)):
        raise DataError(f"{file}: must have a column label of integers, got columns {types}; rename or convert it")
    return opened


def _class_names(file: Path) -> tuple[str, ...] | None:
    with _open(file) as opened:
        metadata = (opened.schema_arrow.metadata or {}).get(b"huggingface")
    if metadata is None:
        return None
    try:
        return tuple(str(name) for name in json.loads(metadata)["info"]["features"]["label"]["names"])
    except (ValueError, KeyError, TypeError):
        return None  # the metadata may describe a plain integer label


def _columns(file: Path, column: str) -> Iterator[Any]:
    """The column, some rows at a time."""
    import pyarrow as pa

    with _open(file) as opened:
        try:
            for batch in opened.iter_batches(batch_size=_ROWS, columns=[column]):
                yield batch.column(0)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file}: column {column} is damaged: {error}; write or fetch the file again") from error


def _labels(file: Path, classes: tuple[str, ...] | None) -> NDArray[np.int64]:
    """(n,) labels of a file, each one of the classes."""
    values: list[int | None] = [value for part in _columns(file, "label") for value in part.to_pylist()]
    for row, value in enumerate(values):
        if value is None or value < 0 or (classes is not None and value >= len(classes)):
            law = "0 or more" if classes is None else f"0 to {len(classes) - 1}"
            raise DataError(f"{file}, row {row}: label must be {law}, got {value}; correct the label, or remove the row")
    return np.array(values, dtype=np.int64)


def _images(file: Path) -> Iterator[tuple[str, bytes]]:
    row = 0
    for part in _columns(file, "image"):
        for value in part.field("bytes").to_pylist():
            if value is None:
                raise DataError(f"{file}, row {row}: image.bytes must hold the image itself, got null; embed the files, or use folder:PATH")
            yield f"{file}, row {row}", value
            row += 1

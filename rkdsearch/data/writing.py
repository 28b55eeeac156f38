"""Images in memory, written as the Parquet files that `data.name: parquet:PATH` reads.

A search trains in other processes, on other machines perhaps, which know nothing of this one's
memory: they read files, whose pixels the rows' fingerprints cover.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, get_args

from rkdsearch.arguments import checked
from rkdsearch.atomic_file import replacing
from rkdsearch.data import parquet as parquet_files
from rkdsearch.data.arrays import images_of
from rkdsearch.data.datasets import check_classes, forget_images
from rkdsearch.data.encoded import Split
from rkdsearch.data.images import Images
from rkdsearch.errors import DataError, DiskError
from rkdsearch.local_path import local_path

_ROWS = 1024  # rows written at a time
_MARK = "rkdsearch.write_images"  # in the metadata of every file that `write_images` writes


@checked
def write_images(
    folder: str | PathLike[str],
    train: tuple[Any, Any],
    *,
    validation: tuple[Any, Any] | None = None,
    test: tuple[Any, Any] | None = None,
    classes: Sequence[str] | None = None,
) -> str:
    """Write images in memory to Parquet files; returns their `data.name`, `parquet:FOLDER`.

    Each split is (pixels, labels), arrays or tensors: pixels (N, H, W, C) or (N, H, W) uint8,
    labels (N,) integers of 0..K-1, named by `classes`. Pixels are kept bit for bit, as PNG. Files
    of an earlier call are replaced, and those of splits that are not given now are removed. Raises
    DataError, also where another's files are there, and DiskError where none can be written.
    """
    home = local_path(folder)
    if (home / "study.json").exists():
        raise DataError(f"{home}: is the folder of a study; name one for the images alone")
    first = replace(images_of(*train, classes, "train"), split="train")
    check_classes(first)
    found: dict[Split, Images] = {"train": first}
    others: dict[Split, tuple[Any, Any] | None] = {"validation": validation, "test": test}
    for split, images in others.items():
        if images is not None:
            found[split] = images_of(*images, first.classes, split)
            if found[split].task.shape != first.task.shape:
                raise DataError(
                    f"{split}: images must have the shape of the training images, (channels,"
                    f" height, width) {first.task.shape}, got {found[split].task.shape}"
                )
    own: dict[Split, Path] = {split: home / f"{split}.parquet" for split in get_args(Split)}
    _refuse_foreign(home, own)
    try:
        home.mkdir(parents=True, exist_ok=True)
        for split, file in own.items():
            if split in found:
                _write(file, found[split])
            else:
                file.unlink(missing_ok=True)  # of other images, which were there before
    except OSError as error:
        raise DiskError.at(home, error) from None
    forget_images()  # this process may have read what was there before
    return f"parquet:{home}"


def _refuse_foreign(home: Path, own: Mapping[Split, Path]) -> None:
    """Raise DataError for files of others, which would be read beside ours, or lost."""
    for split in own:
        if foreign := parquet_files.paths_of(home, split, besides=own.values()):
            raise DataError(
                f"{home}: holds {foreign[0].relative_to(home)}, which would be read as {split}"
                " images beside those that are written; name another folder, or remove it"
            )
    for file in own.values():
        if file.exists() and not _is_ours(file):
            raise DataError(
                f"{file}: was not written by write_images, and is neither replaced nor removed;"
                " name another folder, or remove it yourself"
            )


def _is_ours(file: Path) -> bool:
    """True for a file that an earlier call wrote."""
    from pyarrow import ArrowException, parquet

    try:
        return _MARK.encode() in (parquet.read_schema(file).metadata or {})
    except (OSError, ArrowException):
        return False


def _write(file: Path, images: Images) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(images.classes), "_type": "ClassLabel"},
    }
    schema = pa.schema(
        {
            "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            "label": pa.int64(),
        },
        metadata={"huggingface": json.dumps({"info": {"features": features}}), _MARK: "1"},
    )
    with replacing(file) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for start in range(0, len(images), _ROWS):
            rows = slice(start, start + _ROWS)
            encoded = [{"bytes": png, "path": None} for png in _encoded(images, rows)]
            writer.write_batch(
                pa.record_batch([encoded, images.labels[rows].tolist()], schema=schema)
            )


def _encoded(images: Images, rows: slice) -> Iterator[bytes]:
    """The images as PNG files, which lose nothing."""
    from PIL import Image

    for pixels in images.pixels[rows].numpy():
        buffer = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "png")
        yield buffer.getvalue()

"""Generated training images: one npz of millions, memory-mapped in place.

numpy maps .npy files only. An uncompressed npz is a zip that stores its members byte for byte, so a
member can be mapped at its offset.
"""

import struct
import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rkdsearch.data.images import Images
from rkdsearch.errors import DataError
from rkdsearch.local_path import home_path

_LOCAL_HEADER = 30  # bytes of a zip member's header before its name


def load_extra(file: str, like: Images) -> Images:
    """`image` (N, H, W, C) uint8 and `label` (N,) of an npz, to be mixed with `like`.

    Nothing in the file is unpickled. Raises DataError where it is missing, compressed, damaged, or
    does not fit `like` in shape, scale or classes.
    """
    path = home_path(file)
    try:
        pixels = _map(path, "image.npy")
        with np.load(path, allow_pickle=False) as archive:
            labels = np.asarray(archive["label"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: must be an npz with `image` and `label`, written by numpy.savez: {error};"
            " write or fetch it again"
        ) from error
    expected = tuple(like.pixels.shape[1:])
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != expected:
        raise DataError(
            f"{path}: image must be uint8 (N, {str(expected)[1:]}, got {pixels.dtype}"
            f" {pixels.shape}; convert it"
        )
    if like.scale != 255:
        raise DataError(
            f"{path}: extra images have pixels of 0 to 255, {like.name} has 0 to {like.scale:g};"
            " remove data.extra"
        )
    if labels.shape != pixels.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path}: label must be {len(pixels)} integers, got {labels.dtype} {labels.shape};"
            " convert it"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= len(like.classes)))
    if len(wrong) or not len(labels):
        found = f"got {labels[wrong[0]]} in row {wrong[0]}" if len(wrong) else "got no rows"
        raise DataError(
            f"{path}: label must be 0 to {len(like.classes) - 1}, {found}; correct the file"
        )
    return Images(
        torch.from_numpy(pixels),
        torch.from_numpy(labels.astype(np.int64)),
        255.0,
        like.classes,
        path.name,
        "extra",
        mapped=True,
    )


def _map(path: Path, member: str) -> NDArray[np.uint8]:
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(
                f"{member} is compressed and cannot be memory-mapped, write it with numpy.savez"
                " instead of savez_compressed"
            )
        with archive.open(info) as content:
            version = np.lib.format.read_magic(content)
            read_header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read_header(content)
            array_at = content.tell()
    if fortran or dtype != np.uint8:
        raise ValueError(f"{member} must be uint8 in C order, got {dtype}")
    with path.open("rb") as raw:
        raw.seek(info.header_offset)
        name, extra = struct.unpack("<HH", raw.read(_LOCAL_HEADER)[-4:])
    offset = info.header_offset + _LOCAL_HEADER + name + extra + array_at
    # Copy on write: torch asks for writable memory, although nothing writes to it.
    return np.memmap(path, dtype=np.uint8, mode="c", offset=offset, shape=shape)

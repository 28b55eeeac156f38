"""Decoding of image files (PNG, JPEG, ...) into memory, or once into a memory-mapped file.

Threads decode: Pillow releases Python's global lock meanwhile, so no worker processes are needed.
"""

import hashlib
import io
import os
import struct
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rkdsearch.data.config import DataConfig
from rkdsearch.data.images import Images
from rkdsearch.errors import DataError
from rkdsearch.file_lock import one_at_a_time
from rkdsearch.pace import Pace

Split = Literal["train", "validation", "test"]
Pixels = NDArray[np.uint8]

_CHUNK = 1024  # files read at a time: encoded files need not all fit into memory
_TASK = 64  # images per task: submitting a task costs as much as decoding one small image
_GREY = ("1", "L", "LA")


@dataclass(frozen=True)
class Encoded:
    """Labelled image files.

    `items()` yields (place for messages, file or its bytes) in the order of `labels` (N,); `key`
    changes when the files do.
    """

    items: Callable[[], Iterator[tuple[str, Path | bytes]]]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    key: str


def key_of(folder: Path, files: list[Path]) -> str:
    """sha256 of the files' names, sizes and times of change: the key of a decoded copy."""
    stats = [(file.relative_to(folder).as_posix(), file.stat()) for file in files]
    return hashlib.sha256(
        "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats).encode()
    ).hexdigest()


def decode(encoded: Encoded, config: DataConfig, split: Split) -> Images:
    """All images, decoded into memory if they fit `memory_gib`, else into a memory-mapped file.

    The next run finds that file again. Raises DataError naming the image that cannot be decoded, or
    that differs from the first in shape or colour.
    """
    place, first = next(encoded.items())
    channels = config.channels or (1 if _mode(place, first) in _GREY else 3)
    decoder = _Decoder(channels, config.image_size, convert=config.channels is not None)
    shape = (len(encoded.labels), *decoder(place, first).shape)
    if shape[1] != shape[2]:
        raise DataError(
            f"{place}: images must be square, got {shape[1]} x {shape[2]} pixels; set"
            " data.image_size to crop and resize them"
        )
    mapped = int(np.prod(shape)) > config.memory_gib * 2**30
    if mapped:
        pixels = _from_cache(encoded, config, split, decoder, shape)
    else:
        pixels = np.empty(shape, dtype=np.uint8)
        _fill(pixels, encoded, decoder)
    return Images(
        torch.from_numpy(pixels),
        torch.from_numpy(encoded.labels),
        255.0,
        encoded.classes,
        config.name,
        split,
        mapped=mapped,
    )


@dataclass(frozen=True)
class _Decoder:
    channels: int
    size: int | None
    convert: bool  # may turn colour into grey, because data.channels says so

    def __call__(self, place: str, source: Path | bytes) -> Pixels:
        """Bytes (H, W, C)."""
        from PIL import ImageOps

        def pixels(image: Any) -> Pixels:
            if image.mode.startswith(("I", "F")):
                raise DataError(
                    f"{place}: images must have 8 bits a channel, got mode {image.mode}; convert"
                    " them"
                )
            if self.channels == 1 and image.mode not in _GREY and not self.convert:
                raise DataError(
                    f"{place}: a colour image (mode {image.mode}) in a data set that begins in"
                    " grey; set data.channels to 3, or to 1 to keep brightness only"
                )
            converted = image.convert("L" if self.channels == 1 else "RGB")
            if self.size is not None:
                converted = ImageOps.fit(converted, (self.size, self.size))
            return np.asarray(converted, dtype=np.uint8).reshape(
                converted.height, converted.width, self.channels
            )

        decoded: Pixels = _opened(place, source, pixels)
        return decoded


def _mode(place: str, source: Path | bytes) -> str:
    mode: str = _opened(place, source, lambda image: image.mode)
    return mode


def _opened(place: str, source: Path | bytes, use: Callable[[Any], Any]) -> Any:
    from PIL import Image

    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            return use(image)
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise DataError(
            f"{place}: must be an image that Pillow can decode: {error}; replace it, or remove it"
            " with its label"
        ) from error


def _fill(pixels: Pixels, encoded: Encoded, decoder: _Decoder) -> None:
    """Decode every item into its row of `pixels` (N, H, W, C)."""

    def decode_part(part: list[tuple[int, tuple[str, Path | bytes]]]) -> None:
        for row, (place, source) in part:
            image = decoder(place, source)
            if image.shape != pixels.shape[1:]:
                raise DataError(
                    f"{place}: must have the shape of the first image, {pixels.shape[1:]}, got"
                    f" {image.shape}; set data.image_size to crop and resize all"
                )
            pixels[row] = image

    items, pace = enumerate(encoded.items()), Pace("decoding images: {}", len(pixels))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while chunk := list(islice(items, _CHUNK)):
            for done in [
                pool.submit(decode_part, chunk[first : first + _TASK])
                for first in range(0, len(chunk), _TASK)
            ]:
                done.result()
            pace.at(chunk[-1][0] + 1)


def _from_cache(
    encoded: Encoded, config: DataConfig, split: Split, decoder: _Decoder, shape: tuple[int, ...]
) -> Pixels:
    """Memory-mapped (N, H, W, C) file of these images, written first where it is missing.

    Files of earlier versions of the data set are left alone.
    """
    key = hashlib.sha256(f"{encoded.key} {shape} {decoder}".encode()).hexdigest()[:16]
    folder = Path(config.cache or config.path).expanduser()
    path = folder / f".rkdsearch-{split}-{key}.npy"
    if not path.is_file():
        with one_at_a_time(folder):
            if not path.is_file():  # another process may have written it meanwhile
                _write(path, encoded, decoder, shape)
    # Copy on write: torch asks for writable memory, although nothing writes to it.
    mapped: Pixels = np.load(path, mmap_mode="c", allow_pickle=False)
    return mapped


def _write(path: Path, encoded: Encoded, decoder: _Decoder, shape: tuple[int, ...]) -> None:
    partial = path.with_suffix(f".{uuid.uuid4().hex}.partial")
    try:
        pixels = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        _fill(pixels, encoded, decoder)
        pixels.flush()
        # renamed when complete: a killed run leaves no partial file under the final name
        partial.replace(path)
    except OSError as error:
        raise DataError(
            f"{path.parent}: {np.prod(shape) / 2**30:.1f} GiB of decoded images cannot be written"
            f" there: {error}; set data.cache to a folder with room, or raise data.memory_gib"
        ) from error
    finally:
        partial.unlink(missing_ok=True)

"""Decoding of image files (PNG, JPEG, ...) into memory, or once into a memory-mapped file.

Threads decode: Pillow releases Python's global lock meanwhile, so no worker processes are needed.
"""

import hashlib
import io
import os
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from rkdsearch.atomic_file import TEMPORARY, replacing
from rkdsearch.data.config import DataConfig
from rkdsearch.data.images import Images
from rkdsearch.errors import DataError, DiskError
from rkdsearch.file_lock import one_at_a_time
from rkdsearch.local_path import home_path
from rkdsearch.pace import Pace

GREY_MODES = ("1", "L", "LA")  # Pillow's, of images without colour
Split = Literal["train", "validation", "test"]
Pixels = NDArray[np.uint8]
Item = tuple[str, Path | bytes]  # place for messages, file or its bytes
T = TypeVar("T")

_CHUNK = 1024  # files read at a time: encoded files need not all fit into memory
_TASK = 64  # images per task: submitting a task costs as much as decoding one small image
_LOOKED_AT = 64  # images of a set by which it is called grey


class UnlabelledError(DataError):
    """Images of a split have no labels, so that nothing can be measured on them."""


@dataclass(frozen=True)
class Encoded:
    """Labelled image files.

    `items()` yields them in the order of `labels` (N,); `key()` changes when the files do.
    """

    items: Callable[[], Iterator[Item]]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    key: Callable[[], str]


def key_of(folder: Path, files: list[Path]) -> str:
    """sha256 of the files' names, sizes and times of change: the key of a decoded copy."""
    stats = [(file.relative_to(folder).as_posix(), file.stat()) for file in files]
    return hashlib.sha256(
        "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats).encode()
    ).hexdigest()


@dataclass(frozen=True)
class Decoder:
    """The way from files to pixels, the same for every split of a data set.

    `shape` (H, W, C) is that of the first training image, or as the config says. Where `resample`
    is given, images are cropped at the centre to the aspect of `shape` and resized by this filter.
    With `convert`, colour may become grey.
    """

    shape: tuple[int, int, int]
    resample: str | None
    convert: bool

    @classmethod
    def of(cls, training: Encoded, config: DataConfig) -> "Decoder":
        """The decoder of a data set, by its first training image and the config."""
        place, source = next(training.items())
        (width, height), mode = opened_image(place, source, lambda image: (image.size, image.mode))
        height, width = config.height_and_width or (height, width)
        channels = config.channels or (1 if mode in GREY_MODES else 3)
        return cls(
            (height, width, channels),
            config.resize if config.image_size is not None else None,
            convert=config.channels is not None,
        )

    @property
    def described(self) -> str:
        """The same in words, for whoever must repeat it."""
        from PIL import __version__

        height, width, channels = self.shape
        text = f"decoded by Pillow {__version__} to {'grey' if channels == 1 else 'RGB'}"
        if self.resample is not None:
            smooth = "" if self.resample == "nearest" else ", antialiased"
            text += (
                f", cropped at the centre to the aspect {height}:{width} (height:width), resized"
                f" to {height} x {width} pixels by Pillow's {self.resample} filter{smooth}"
            )
        return f"{text}; rotation in EXIF is not applied"

    def __call__(self, place: str, source: Path | bytes) -> Pixels:
        """Bytes (H, W, C). Raises DataError where the image is of another size or colour."""
        decoded: Pixels = opened_image(place, source, lambda image: self._pixels(place, image))
        return decoded

    def check(self, place: str, source: Path | bytes) -> None:
        """Raise as a call would, as far as the header of the file shows: size and colour."""
        opened_image(place, source, lambda image: self._check(place, image))

    def _pixels(self, place: str, image: Any) -> Pixels:
        from PIL import Image, ImageOps

        self._check(place, image)
        height, width, channels = self.shape
        converted = flat_image(image, channels)
        if self.resample is not None:
            chosen = Image.Resampling[self.resample.upper()]
            converted = ImageOps.fit(converted, (width, height), method=chosen)
        return np.asarray(converted, dtype=np.uint8).reshape(self.shape)

    def _check(self, place: str, image: Any) -> None:
        height, width, channels = self.shape
        if channels == 1 and image.mode not in GREY_MODES and not self.convert:
            raise DataError(
                f"{place}: a colour image (mode {image.mode}), and the first training image is"
                " grey; set data.channels to 3, or to 1 to keep brightness only"
            )
        if self.resample is None and image.size != (width, height):
            raise DataError(
                f"{place}: must have the height and width of the first training image, {height} x"
                f" {width}, got {image.height} x {image.width}; set data.image_size to crop and"
                " resize all"
            )


def decode(encoded: Encoded, decoder: Decoder, config: DataConfig, split: Split) -> Images:
    """All images, decoded into memory if they fit `memory_gib`, else into a memory-mapped file.

    The next run finds that file again. Raises DataError naming the image that cannot be decoded, or
    that differs from the first training image in size or colour.
    """
    shape = (len(encoded.labels), *decoder.shape)
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
        preprocessing=decoder.described,
    )


def check_headers(encoded: Encoded, decoder: Decoder) -> None:
    """Raise DataError where an image could not be decoded as `decoder` asks. Reads no pixels."""
    refuse_grey(encoded, decoder)
    _each(encoded, "looking at the headers of images: {}", lambda _, item: decoder.check(*item))


def refuse_grey(encoded: Encoded, decoder: Decoder) -> None:
    """Raise DataError where the images are grey, all that are looked at, and the training's colour.

    A few grey ones among colour are colour, as in ImageNet.
    """
    if decoder.shape[2] == 1 or decoder.convert:
        return
    looked_at = list(islice(encoded.items(), _LOOKED_AT))
    if all(opened_image(*item, lambda image: image.mode in GREY_MODES) for item in looked_at):
        raise DataError(
            f"{looked_at[0][0]}: a grey image, as the first {len(looked_at)} of its set are, and"
            " the training images are colour; set data.channels to 3 to repeat grey three times, or"
            " to 1 to train on brightness only"
        )


class TransparentError(ValueError):
    """An image has transparent pixels: their hidden colours would be read as if they were seen."""


def flat_image(image: Any, channels: int) -> Any:
    """A Pillow image as grey (1 channel) or RGB (3).

    Raises TransparentError where a pixel is not opaque.
    """
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        (darkest, _) = image.convert("RGBA").getchannel("A").getextrema()
        if darkest < 255:
            raise TransparentError(
                "some pixels are transparent, and the colours that they hide would be read; lay the"
                " image over a background and write it without transparency"
            )
    return image.convert("L" if channels == 1 else "RGB")


def opened_image(place: str, source: Path | bytes, use: Callable[[Any], T]) -> T:
    """Value of `use` for the Pillow image in a file or its bytes.

    Raises DataError where Pillow cannot decode it, or its channels have more than 8 bits, which
    Pillow would cut off at 255.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(
                    f"{place}: images must have 8 bits a channel, got mode {image.mode}; convert"
                    " them"
                )
            return use(image)
    except TransparentError as error:
        raise DataError(f"{place}: {error}") from None
    except UnidentifiedImageError:
        raise DataError(
            f"{place}: must be an image that Pillow can decode, and is of no format that it knows;"
            " replace it, or remove it with its label"
        ) from None
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


def _fill(pixels: Pixels, encoded: Encoded, decoder: Decoder) -> None:
    """Decode every item into its row of `pixels` (N, H, W, C)."""

    def decode_row(row: int, item: Item) -> None:
        pixels[row] = decoder(*item)

    _each(encoded, "decoding images: {}", decode_row)


def _each(encoded: Encoded, what: str, use: Callable[[int, Item], None]) -> None:
    """Call `use` with every item and its row, by threads."""

    def use_part(part: list[tuple[int, Item]]) -> None:
        for row, item in part:
            use(row, item)

    items, pace = enumerate(encoded.items()), Pace(what, len(encoded.labels))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while chunk := list(islice(items, _CHUNK)):
            for done in [
                pool.submit(use_part, chunk[first : first + _TASK])
                for first in range(0, len(chunk), _TASK)
            ]:
                done.result()
            pace.at(chunk[-1][0] + 1)


def _from_cache(
    encoded: Encoded, config: DataConfig, split: Split, decoder: Decoder, shape: tuple[int, ...]
) -> Pixels:
    """Memory-mapped (N, H, W, C) file of these images, written first where it is missing.

    Files of earlier versions of the data set are left alone.
    """
    key = hashlib.sha256(f"{encoded.key()} {shape} {decoder}".encode()).hexdigest()[:16]
    folder = home_path(config.cache or config.path)
    path = folder / f".rkdsearch-{split}-{key}.npy"
    if not folder.is_dir():  # a disk that is not mounted, perhaps: it would be written elsewhere
        raise DataError(f"data.cache: {folder} is no folder; make it, or name another")
    if not path.is_file():
        with one_at_a_time(folder):
            if not path.is_file():  # another process may have written it meanwhile
                for left in folder.glob(f"{TEMPORARY}{path.name}-*"):  # of a killed one
                    left.unlink(missing_ok=True)
                _write(path, encoded, decoder, shape)
    # Copy on write: torch asks for writable memory, although nothing writes to it.
    mapped: Pixels = np.load(path, mmap_mode="c", allow_pickle=False)
    return mapped


def _take_room(file: Path) -> None:
    """Allocate the whole file now. Raises OSError on a full disk.

    A page of a sparse file that finds no room later ends the process by SIGBUS.
    """
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with file.open("rb+") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)


def _write(path: Path, encoded: Encoded, decoder: Decoder, shape: tuple[int, ...]) -> None:
    try:
        with replacing(path) as temporary:
            pixels = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
            _take_room(temporary)
            _fill(pixels, encoded, decoder)
            pixels.flush()
    except DiskError as error:
        raise DataError(
            f"{path.parent}: {np.prod(shape) / 2**30:.1f} GiB of decoded images cannot be written"
            f" there: {error.__cause__}; set data.cache to a folder with room, or raise"
            " data.memory_gib"
        ) from error

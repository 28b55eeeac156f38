"""Sources of images as a user writes them: functions and a data set of torch's kind."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]


def oblong(split: str) -> Arrays | None:
    """Five classes of 40 x 24 grey images, whose brightness tells the class."""
    if split == "validation":
        return None
    count = 100 if split == "train" else 40
    noise = np.random.default_rng(count).integers(0, 40, size=(count, 40, 24))
    labels = np.arange(count) % 5
    return (noise + 40 * labels[:, None, None]).astype(np.uint8), labels


def named_otherwise(split: str) -> tuple[*Arrays, tuple[str, ...]]:
    """The test images' classes stand in another order."""
    pixels = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    names = ("owl", "ant") if split == "test" else ("ant", "owl")
    return pixels, np.array([0, 1, 0, 1]), names


def larger_tests(split: str) -> Arrays:
    """The test images are larger than the training images."""
    side = 12 if split == "test" else 9
    return np.zeros((4, side, side, 3), dtype=np.uint8), np.array([0, 1, 0, 1])


class Pets:
    """A data set of torch's kind: items of a Pillow image and a label."""

    classes = ("cat", "dog")

    def __init__(self, split: str, root: str = "nowhere") -> None:
        self.count = 8 if split == "train" else 2
        self.root = root

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (6, 4), (index, 0, len(self.root))), index % 2


class Floats(Pets):
    """With ToTensor in its transform."""

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], int]:  # type: ignore[override]
        return np.zeros((3, 4, 6), dtype=np.float32), index % 2


def without_split() -> None:
    """Takes no split."""


def from_root(split: str, root: str) -> Arrays | None:
    """Images that lie somewhere."""
    return oblong(split) if root else None


def by_size(split: str, size: int) -> Arrays | None:
    """Images of a size that nobody is asked for."""
    return oblong(split) if size else None


def boom(split: str) -> Arrays:
    """A function with a bug, whose message is a whole table."""
    raise KeyError(split + " " * 5000)


def leaves(split: str) -> Arrays:
    """A function that ends the whole command, as if it were done."""
    raise SystemExit(0)


def too_much(split: str) -> Arrays:
    """A function that asks for more memory than there is."""
    raise MemoryError


class Speechless(Exception):  # noqa: N818 - as somebody may write one
    def __str__(self) -> str:
        raise ValueError("nothing to say")


def speechless(split: str) -> Arrays:
    """A function whose error has no message."""
    raise Speechless

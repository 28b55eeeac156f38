"""Images as bytes, which become floats one batch at a time on the device that computes."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rkdsearch.task import ImageTask


@dataclass(frozen=True)
class Images:
    """N labelled images.

    pixels (N, H, W, C) uint8; labels (N,) int64 in 0..K-1; `scale` is the byte that means a pixel
    of 1.0 (255; digits: 16). A memory-mapped set is never copied: `pixels` (M, H, W, C) is then the
    whole file, and image i is `pixels[rows[i]]`, or `pixels[i]` where `rows` is None.
    """

    pixels: Tensor
    labels: Tensor
    scale: float
    classes: tuple[str, ...]
    name: str
    split: str
    mapped: bool = False
    rows: Tensor | None = None
    preprocessing: str = ""  # how files became pixels; empty where pixels are read as they are

    @property
    def task(self) -> ImageTask:
        """The task that these images and classes define."""
        _, height, width, channels = self.pixels.shape
        return ImageTask(len(self.classes), channels, height, width)

    @property
    def described(self) -> dict[str, Any]:
        """Facts about these images that a file of weights records, as plain values."""
        return {
            "task": asdict(self.task),
            "classes": list(self.classes),
            "preprocessing": self.preprocessing,
        }

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor, *, split: str | None = None) -> "Images":
        """These images in this order: a copy in memory, or a view of a memory-mapped file."""
        pixels, rows = self.pixels, None
        if not self.mapped:
            pixels = pixels[indices]
        else:
            rows = indices if self.rows is None else self.rows[indices]
        return replace(
            self,
            pixels=pixels,
            labels=self.labels[indices],
            rows=rows,
            split=self.split if split is None else split,
        )

    def stored(self, indices: Tensor | slice) -> Tensor:
        """Bytes (n, H, W, C) of the images at `indices`."""
        return self.pixels[indices] if self.rows is None else self.pixels[self.rows[indices]]

    def floats(
        self,
        indices: Tensor | slice | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[Tensor, Tensor]:
        """x (n, C, H, W), pixels of [0, 1] in channels-last layout, and y (n,), at `indices`.

        Without `indices`: all images.
        """
        chosen = slice(None) if indices is None else indices
        return to_floats(self.stored(chosen).to(device), self.scale, dtype), self.labels[chosen].to(
            device
        )

    def to(self, device: torch.device) -> "Images":
        """These images on `device`; the bytes of a memory-mapped set stay in their file."""
        return (
            self
            if self.mapped
            else replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))
        )


@dataclass(frozen=True)
class FloatImages:
    """Images as floats, converted anew for each slice, because bytes need a quarter of the memory.

    A slice is (n, C, H, W) of [0, 1], of `dtype` on `device`.
    """

    images: Images
    device: torch.device
    dtype: torch.dtype = torch.float32
    channels_last: bool = True

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> Tensor:
        return to_layout(
            self.images.floats(part, device=self.device)[0].to(self.dtype),
            channels_last=self.channels_last,
        )


def to_layout(x: Tensor, *, channels_last: bool) -> Tensor:
    """Images (n, C, H, W) in the memory layout of the run's networks."""
    if channels_last:
        return x.contiguous(memory_format=torch.channels_last)
    # Not `contiguous`: an image of one channel has both layouts, and a convolution goes by strides.
    return x.flatten(1).view(x.shape)


def to_floats(pixels: Tensor, scale: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bytes (n, H, W, C) as floats (n, C, H, W) of [0, 1].

    The permutation is free: its strides are the channels-last layout that convolutions ask for.
    """
    return pixels.permute(0, 3, 1, 2).to(dtype).div_(scale)

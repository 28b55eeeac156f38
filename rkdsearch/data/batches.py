"""The batches of an epoch: a pure function of (seed, epoch), so that resuming a run needs no state of a loader."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rkdsearch.data.augment import Shifts, crop_and_flip, padding
from rkdsearch.data.config import Augmentation
from rkdsearch.data.images import Images, to_floats
from rkdsearch.errors import DataError

_Stored = tuple[Tensor, Tensor]  # bytes (n, H, W, C) and labels (n,)
_AHEAD = 2  # batches that are read from a file before they are asked for


@dataclass(frozen=True)
class Batch:
    """x (n, C, H, W) float32 of [0, 1], channels last; y (n,) labels; index (n,) rows of the training images, -1 for extra ones."""

    x: Tensor
    y: Tensor
    index: Tensor


class Batches:
    """Shuffled, augmented batches of one process.

    `batch_size` counts the images of all processes together; each takes its contiguous part of
    every batch, so that the parts laid end to end are the batch of one process, augmentation
    included. An epoch passes once over `images`; the last batch may be smaller, and is cut to a
    multiple of `processes`. Left with a single image for each process, it is dropped, unless it is
    the only one: BatchNorm has no variance of one value. Every epoch leaves out other images.
    `extra` images are drawn anew for every batch, with repetition, and spread evenly over it.
    Pixels stay bytes: on `device`, or, memory-mapped, in their file, from where a thread fetches
    them ahead.
    """

    def __init__(
        self,
        images: Images,
        *,
        batch_size: int,
        seed: int,
        augment: Augmentation = "none",
        extra: Images | None = None,
        extra_fraction: float = 0.0,
        device: torch.device | str = "cpu",
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        """Raises DataError where a batch cannot be shared out among the processes, or would be empty."""
        if batch_size < 1 or batch_size % processes:
            raise DataError(
                f"batch_size must be a positive multiple of the {processes} processes, got"
                f" {batch_size}; choose {max(1, batch_size // processes) * processes}"
            )
        self._batch_size = batch_size
        self._extra_share = 0 if extra is None else round(batch_size * extra_fraction)
        if batch_size == self._extra_share or len(images) < processes:
            raise DataError(
                f"batch_size {batch_size} with extra_fraction {extra_fraction} over {len(images)}"
                f" images and {processes} processes leaves a batch without training images; use a"
                " larger batch, a smaller share, or fewer processes"
            )
        self._seed, self._augment, self._device = seed, augment, torch.device(device)
        self._rank, self._processes = rank, processes
        self._size, self._scale = images.task.side, images.scale
        self._own = _Store(images, self._device)
        self._extra = None if extra is None else _Store(extra, self._device)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._sizes())

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of epoch `epoch` (from 0): the same number gives the same batches, on every machine and in any order."""
        # A generator for each question: what one process draws must not depend on how much of the
        # last batch several would cut.
        shuffling, drawing, shifting = (
            np.random.default_rng((self._seed, epoch, question)) for question in range(3)
        )
        sizes = self._sizes()
        foreign = np.concatenate([_spread(total, extra) for total, extra in sizes])
        rows = np.empty(len(foreign), dtype=np.int64)
        rows[~foreign] = shuffling.permutation(len(self._own.labels))[
            : len(foreign) - foreign.sum()
        ]
        if self._extra is not None:
            rows[foreign] = drawing.integers(len(self._extra.labels), size=foreign.sum())
        shifts = self._draw_shifts(shifting, len(foreign))
        places = self._places(sizes)
        stored = self._own.gather([rows[mine][~foreign[mine]] for mine in places], self._device)
        if self._extra is not None:
            extra = self._extra.gather([rows[mine][foreign[mine]] for mine in places], self._device)
            # Where each image of the batch is in (own, extra).
            orders = _sent(
                [foreign[mine].argsort(kind="stable").argsort() for mine in places], self._device
            )
            stored = map(_mixed, stored, extra, orders)
        indices = _sent([np.where(foreign[mine], -1, rows[mine]) for mine in places], self._device)
        for mine, index, (pixels, y) in zip(places, indices, stored, strict=True):
            yield Batch(
                to_floats(
                    pixels if shifts is None else crop_and_flip(pixels, shifts[mine]), self._scale
                ),
                y,
                index,
            )

    def _sizes(self) -> list[tuple[int, int]]:
        """(images, extra images among them) of every batch of an epoch."""
        own = self._batch_size - self._extra_share
        full, rest = divmod(len(self._own.labels), own)
        last = rest * self._batch_size // own // self._processes * self._processes
        if full and last < 2 * self._processes:
            last = 0
        sizes = [(self._batch_size, self._extra_share)] * full
        return sizes + ([(last, last * self._extra_share // self._batch_size)] if last else [])

    def _places(self, sizes: list[tuple[int, int]]) -> list[slice]:
        """This process's part of every batch, as places in the epoch."""
        shares = [total // self._processes for total, _ in sizes]
        begins = [
            done * self._processes + self._rank * share
            for done, share in zip(accumulate([0, *shares]), shares, strict=False)
        ]
        return [slice(begin, begin + share) for begin, share in zip(begins, shares, strict=True)]

    def _draw_shifts(self, generator: np.random.Generator, count: int) -> Shifts | None:
        """Of a whole epoch at once: a few numbers per image, and one transfer instead of one per batch."""
        if self._augment == "none":
            return None
        way = 2 * padding(self._size) + 1
        drawn = torch.from_numpy(
            generator.integers([way, way, 2], size=(count, 3), dtype=np.int32)
        ).to(self._device)
        mirror = (
            drawn[:, 2] == 1
            if self._augment == "crop_flip"
            else torch.zeros(count, dtype=torch.bool, device=self._device)
        )
        return Shifts(down=drawn[:, 0], right=drawn[:, 1], mirror=mirror)


class _Store:
    """Pixels on the device, or in their memory-mapped file; labels beside them."""

    def __init__(self, images: Images, device: torch.device) -> None:
        self.rows, self.mapped = images.rows, images.mapped
        place = torch.device("cpu") if images.mapped else device
        self.pixels, self.labels = images.pixels.to(place), images.labels.to(place)

    def gather(self, indices: list[NDArray[np.int64]], device: torch.device) -> Iterator[_Stored]:
        """Bytes (n, H, W, C) and labels (n,), on `device`, of each of the `indices` (n,)."""
        places = _sent(indices, self.labels.device)
        for pixels, labels in (
            self._ahead(places, pin=device.type == "cuda")
            if self.mapped
            else map(self._read, places)
        ):
            yield pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)

    def _read(self, at: Tensor) -> _Stored:
        pixels = self.pixels.index_select(
            0, at if self.rows is None else self.rows.index_select(0, at)
        )
        return pixels, self.labels.index_select(0, at)

    def _pinned(self, at: Tensor) -> _Stored:
        """The same where a GPU can fetch it by itself: a copy from other memory makes the host wait for all that the GPU has still to do."""
        pixels, labels = self._read(at)
        return pixels.pin_memory(), labels.pin_memory()

    def _ahead(self, places: Iterable[Tensor], *, pin: bool) -> Iterator[_Stored]:
        """The same, read by a thread while the caller computes: a page that is not in memory costs a journey to the disk."""
        with ThreadPoolExecutor(1) as reader:
            waiting: deque[Future[_Stored]] = deque()
            for at in places:
                waiting.append(reader.submit(self._pinned if pin else self._read, at))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


def _sent(parts: list[NDArray[np.int64]], device: torch.device) -> tuple[Tensor, ...]:
    """The numbers of every batch, in one transfer for the whole epoch: one for each batch would make the host wait for the GPU every step."""
    return torch.split(
        torch.from_numpy(np.concatenate(parts)).to(device), [len(part) for part in parts]
    )


def _mixed(own: _Stored, extra: _Stored, order: Tensor) -> _Stored:
    """Own and extra images as one batch: image i is number `order[i]` of the two laid end to end."""
    pixels, labels = (
        torch.cat(both).index_select(0, order) for both in zip(own, extra, strict=True)
    )
    return pixels, labels


def _spread(total: int, extra: int) -> NDArray[np.bool_]:
    """(total,) booleans, `extra` of them true and evenly apart: at the end they would all fall to the last process and its BatchNorm."""
    foreign = np.zeros(total, dtype=np.bool_)
    foreign[(2 * np.arange(extra) + 1) * total // (2 * max(1, extra))] = True
    return foreign

"""Batches of an epoch: a pure function of (seed, epoch).

Resuming a run therefore needs no loader state.
"""

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
from rkdsearch.data.config import Augmentation, Sampling
from rkdsearch.data.images import Images, to_floats
from rkdsearch.errors import DataError

_Stored = tuple[Tensor, Tensor]  # bytes (n, H, W, C) and labels (n,)
_AHEAD = 2  # batches that are read from a memory-mapped file in advance


@dataclass(frozen=True)
class Batch:
    """Images, labels, and rows in the training set.

    x (n, C, H, W) float32 of [0, 1], channels last; y (n,) labels; index (n,) rows of the training
    images, -1 for extra images.
    """

    x: Tensor
    y: Tensor
    index: Tensor


class Batches:
    """Shuffled, augmented batches of one process.

    `batch_size` counts the images of all processes. Each process takes a contiguous part of every
    batch. The parts of all processes, laid end to end, are the batch of a single process,
    augmentation included.

    An epoch passes once over `images`. With `sampling` balanced it has as many images, and as many
    of every class: those of a small class come several times, and of a large one a part. The last
    batch may be smaller; it is cut to a multiple of `processes`, and each epoch leaves out
    different images. A last batch of one image per process is dropped unless it is the only batch,
    because BatchNorm has no variance of one value.

    `extra` images are drawn anew for every batch, with replacement, and spread evenly over it.
    Pixels stay bytes: on `device`, or in their memory-mapped file, from which a thread reads ahead.
    """

    def __init__(
        self,
        images: Images,
        *,
        batch_size: int,
        seed: int,
        augment: Augmentation = "none",
        sampling: Sampling = "shuffled",
        extra: Images | None = None,
        extra_fraction: float = 0.0,
        device: torch.device | str = "cpu",
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        """Raises DataError where a batch would be empty or does not divide among the processes."""
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
        # Rows of each class, where every class is to be drawn as often.
        labels = images.labels.cpu().numpy()
        self._by_class = (
            [np.flatnonzero(labels == k) for k in np.unique(labels)]
            if sampling == "balanced"
            else []
        )
        self._scale = images.scale
        self._ways = [2 * padding(side) + 1 for side in (images.task.height, images.task.width)]
        self._own = _Store(images, self._device)
        self._extra = None if extra is None else _Store(extra, self._device)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._sizes())

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Batches of epoch `epoch` (from 0): the same on every machine, in any order of calls."""
        # One generator for each purpose: the draws must not depend on how many images several
        # processes cut from the last batch.
        shuffling, drawing, shifting = (
            np.random.default_rng((self._seed, epoch, purpose)) for purpose in range(3)
        )
        sizes = self._sizes()
        is_extra = np.concatenate([_spread(total, extra) for total, extra in sizes])
        rows = np.empty(len(is_extra), dtype=np.int64)
        rows[~is_extra] = self._order(shuffling)[: len(is_extra) - is_extra.sum()]
        if self._extra is not None:
            rows[is_extra] = drawing.integers(len(self._extra.labels), size=is_extra.sum())
        shifts = self._draw_shifts(shifting, len(is_extra))
        parts = self._parts(sizes)
        stored = self._own.gather([rows[part][~is_extra[part]] for part in parts], self._device)
        if self._extra is not None:
            extra = self._extra.gather([rows[part][is_extra[part]] for part in parts], self._device)
            # Position of each image of the batch in its own images, then its extra images.
            orders = _sent(
                [is_extra[part].argsort(kind="stable").argsort() for part in parts], self._device
            )
            stored = map(_mixed, stored, extra, orders)
        indices = _sent([np.where(is_extra[part], -1, rows[part]) for part in parts], self._device)
        for part, index, (pixels, y) in zip(parts, indices, stored, strict=True):
            yield Batch(
                to_floats(
                    pixels if shifts is None else crop_and_flip(pixels, shifts[part]), self._scale
                ),
                y,
                index,
            )

    def _order(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """Rows of an epoch in random order: each once, or all classes as often.

        A class is drawn without replacement until it is used up, then again; the images that do
        not divide among the classes go to random ones.
        """
        count = len(self._own.labels)
        if not self._by_class:
            return generator.permutation(count)
        share, rest = divmod(count, len(self._by_class))
        more = set(generator.permutation(len(self._by_class))[:rest].tolist())
        drawn = []
        for k, rows in enumerate(self._by_class):
            wanted = share + (k in more)
            passes = [generator.permutation(rows) for _ in range(-(-wanted // len(rows)))]
            drawn.append(np.concatenate([*passes, rows[:0]])[:wanted])
        return generator.permutation(np.concatenate(drawn))

    def _sizes(self) -> list[tuple[int, int]]:
        """(images, extra images among them) for every batch of an epoch."""
        own = self._batch_size - self._extra_share
        full, rest = divmod(len(self._own.labels), own)
        last = rest * self._batch_size // own // self._processes * self._processes
        if full and last < 2 * self._processes:
            last = 0
        sizes = [(self._batch_size, self._extra_share)] * full
        return sizes + ([(last, last * self._extra_share // self._batch_size)] if last else [])

    def _parts(self, sizes: list[tuple[int, int]]) -> list[slice]:
        """This process's part of every batch, as positions in the epoch."""
        shares = [total // self._processes for total, _ in sizes]
        begins = [
            done * self._processes + self._rank * share
            for done, share in zip(accumulate([0, *shares]), shares, strict=False)
        ]
        return [slice(begin, begin + share) for begin, share in zip(begins, shares, strict=True)]

    def _draw_shifts(self, generator: np.random.Generator, count: int) -> Shifts | None:
        """Shifts of a whole epoch, sent to the device once instead of once per batch."""
        if self._augment == "none":
            return None
        drawn = torch.from_numpy(
            generator.integers([*self._ways, 2], size=(count, 3), dtype=np.int32)
        ).to(self._device)
        mirror = (
            drawn[:, 2] == 1
            if self._augment == "crop_flip"
            else torch.zeros(count, dtype=torch.bool, device=self._device)
        )
        return Shifts(down=drawn[:, 0], right=drawn[:, 1], mirror=mirror)


class _Store:
    """Pixels on the device, or in their memory-mapped file, and their labels."""

    def __init__(self, images: Images, device: torch.device) -> None:
        self.rows, self.mapped = images.rows, images.mapped
        place = torch.device("cpu") if images.mapped else device
        self.pixels, self.labels = images.pixels.to(place), images.labels.to(place)

    def gather(self, indices: list[NDArray[np.int64]], device: torch.device) -> Iterator[_Stored]:
        """Bytes (n, H, W, C) and labels (n,), on `device`, for each of the `indices` (n,)."""
        parts = _sent(indices, self.labels.device)
        for pixels, labels in (
            self._ahead(parts, pin=device.type == "cuda") if self.mapped else map(self._read, parts)
        ):
            yield pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)

    def _read(self, at: Tensor) -> _Stored:
        pixels = self.pixels.index_select(
            0, at if self.rows is None else self.rows.index_select(0, at)
        )
        return pixels, self.labels.index_select(0, at)

    def _pinned(self, at: Tensor) -> _Stored:
        """The same as `_read`, in pinned memory.

        A copy to the GPU from other memory blocks the host until the GPU has done all its queued
        work.
        """
        pixels, labels = self._read(at)
        return pixels.pin_memory(), labels.pin_memory()

    def _ahead(self, parts: Iterable[Tensor], *, pin: bool) -> Iterator[_Stored]:
        """The same as `_read`, by a thread while the caller computes: reads from disk are slow."""
        with ThreadPoolExecutor(1) as reader:
            waiting: deque[Future[_Stored]] = deque()
            for at in parts:
                waiting.append(reader.submit(self._pinned if pin else self._read, at))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


def _sent(parts: list[NDArray[np.int64]], device: torch.device) -> tuple[Tensor, ...]:
    """The arrays of all batches on `device`, sent at once.

    A transfer for each batch would make the host wait for the GPU at every step.
    """
    return torch.split(
        torch.from_numpy(np.concatenate(parts)).to(device), [len(part) for part in parts]
    )


def _mixed(own: _Stored, extra: _Stored, order: Tensor) -> _Stored:
    """Own and extra images as one batch: image i is `order[i]` of own and extra laid end to end."""
    pixels, labels = (
        torch.cat(both).index_select(0, order) for both in zip(own, extra, strict=True)
    )
    return pixels, labels


def _spread(total: int, extra: int) -> NDArray[np.bool_]:
    """(total,) booleans, `extra` of them true and evenly apart.

    At the end of the batch, all extra images would fall to the last process and its BatchNorm.
    """
    is_extra = np.zeros(total, dtype=np.bool_)
    is_extra[(2 * np.arange(extra) + 1) * total // (2 * max(1, extra))] = True
    return is_extra

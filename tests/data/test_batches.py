"""Batches: a pure function of seed and epoch, divided among processes."""

import threading
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

from rkdsearch.data import Batch, Batches, FloatImages, Images
from rkdsearch.data.augment import Shifts, crop_and_flip
from rkdsearch.data.batches import _Store
from rkdsearch.errors import DataError


def images(count: int, size: int = 8, *, mapped: bool = False) -> Images:
    """Image i is recognised by its pixels: they are noise of its own."""
    pixels = torch.randint(
        1,
        256,
        (count, size, size, 3),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0),
    )
    return Images(
        pixels,
        torch.arange(count) % 10,
        255.0,
        tuple("0123456789"),
        "noise",
        "train",
        mapped=mapped,
    )


def epoch(data: Images, number: int = 0, **arguments: Any) -> list[Batch]:
    return list(Batches(data, **{"batch_size": 8, "seed": 0, **arguments}).epoch(number))


def test_an_epoch_shows_every_image_once_with_its_own_label_and_pixels() -> None:
    data = images(21)
    batches = epoch(data)
    assert [len(batch.y) for batch in batches] == [8, 8, 5]
    assert len(Batches(data, batch_size=8, seed=0)) == 3
    index = torch.cat([batch.index for batch in batches])
    assert sorted(index.tolist()) == list(range(21))
    x, y = data.floats(index)
    assert torch.equal(torch.cat([batch.x for batch in batches]), x)
    assert torch.equal(torch.cat([batch.y for batch in batches]), y)


def test_balanced_sampling_draws_every_class_as_often_and_repeats_a_small_one() -> None:
    data = images(30)
    data = replace(data, labels=torch.tensor([0] * 24 + [1] * 4 + [2] * 2))
    loader = Batches(data, batch_size=8, seed=0, sampling="balanced")
    first, second = (torch.cat([batch.index for batch in loader.epoch(e)]) for e in (0, 1))
    for index in (first, second):
        assert data.labels[index].bincount().tolist() == [10, 10, 10]
        counts = index.bincount(minlength=30)
        assert counts[:24].max() == 1
        assert sorted(counts[24:28].tolist()) == [2, 2, 3, 3]
        assert counts[28:].tolist() == [5, 5]
    assert not torch.equal(first, second)
    again = torch.cat([batch.index for batch in loader.epoch(0)])
    assert torch.equal(first, again)


def test_shifts_are_an_eighth_of_height_and_of_width_each() -> None:
    pixels = torch.zeros(400, 16, 40, 1, dtype=torch.uint8)
    pixels[:, 8, 20] = 255
    data = Images(pixels, torch.arange(400) % 2, 255.0, ("a", "b"), "dot", "train")
    x = torch.cat([batch.x for batch in epoch(data, batch_size=100, augment="crop")])
    assert x.shape == (400, 1, 16, 40)
    _, _, rows, columns = x.nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 10, 15, 25)


def test_images_are_float32_of_0_to_1_and_channels_last() -> None:
    x = epoch(images(8), augment="crop_flip")[0].x
    assert (x.dtype, x.shape) == (torch.float32, (8, 3, 8, 8))
    assert 0 <= x.min() < x.max() <= 1
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_an_epoch_is_the_same_whatever_came_before_it_and_differs_from_others() -> None:
    loader = Batches(images(16), batch_size=8, seed=3, augment="crop_flip")
    third = list(loader.epoch(3))
    list(loader.epoch(0))
    for a, b in zip(third, loader.epoch(3), strict=True):
        assert torch.equal(a.x, b.x)
    assert not torch.equal(third[0].index, next(loader.epoch(4)).index)
    assert not torch.equal(third[0].index, epoch(images(16), 3, seed=4)[0].index)


@settings(deadline=None)
@given(
    count=st.integers(4, 40),
    per_process=st.integers(1, 6),
    processes=st.integers(1, 4),
    fraction=st.sampled_from([0.0, 0.25, 0.7]),
)
def test_the_parts_of_all_processes_are_the_batches_of_one(
    count: int, per_process: int, processes: int, fraction: float
) -> None:
    size = per_process * processes
    arguments: dict[str, Any] = {
        "batch_size": size,
        "seed": 5,
        "augment": "crop_flip",
        "extra": images(6) if fraction else None,
        "extra_fraction": fraction,
    }
    if round(size * fraction) == size:
        with pytest.raises(DataError, match="leaves a batch without training images"):
            epoch(images(count), **arguments)
        return
    whole = epoch(images(count), 2, **arguments)
    parts = [
        epoch(images(count), 2, rank=rank, processes=processes, **arguments)
        for rank in range(processes)
    ]
    for batch, *shares in zip(whole, *parts, strict=False):
        assert len({len(share.y) for share in shares}) == 1
        joined = [
            torch.cat([getattr(share, name) for share in shares]) for name in ("x", "y", "index")
        ]
        # the last batch may be cut to a multiple of the processes
        if len(batch.y) == len(joined[1]):
            assert all(
                torch.equal(getattr(batch, name), value)
                for name, value in zip(("x", "y", "index"), joined, strict=True)
            )
        elif not fraction:
            assert torch.equal(batch.x[: len(joined[1])], joined[0])
            assert len(batch.y) - len(joined[1]) < processes


def test_a_last_batch_that_cannot_be_divided_is_dropped() -> None:
    assert [len(batch.y) for batch in epoch(images(17), processes=2)] == [4, 4]
    assert len(Batches(images(17), batch_size=8, seed=0, processes=2)) == 2
    assert [len(batch.y) for batch in epoch(images(21), processes=2)] == [4, 4, 2]


def test_a_last_batch_of_one_image_per_process_is_dropped_and_epochs_leave_out_others() -> None:
    loader = Batches(images(42), batch_size=41, seed=0)
    assert (len(loader), [len(batch.y) for batch in loader.epoch(0)]) == (1, [41])
    left_out = {
        ({*range(42)} - {*next(loader.epoch(number)).index.tolist()}).pop() for number in range(10)
    }
    assert len(left_out) > 5
    assert [len(batch.y) for batch in epoch(images(43), batch_size=41)] == [41, 2]
    assert [len(batch.y) for batch in epoch(images(19), processes=2)] == [4, 4]


def test_the_only_batch_of_an_epoch_is_kept_however_small() -> None:
    assert [len(batch.y) for batch in epoch(images(1))] == [1]
    assert [len(batch.y) for batch in epoch(images(3), processes=2)] == [1]


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    with pytest.raises(
        DataError,
        match="batch_size must be a positive multiple of the 2 processes, got 7; choose 6",
    ):
        epoch(images(20), batch_size=7, processes=2)
    with pytest.raises(
        DataError, match="over 1 images and 2 processes leaves a batch without training images"
    ):
        epoch(images(1), processes=2)


def test_extra_images_take_their_share_of_each_batch_and_of_each_process() -> None:
    data, extra = images(30), images(50).take(torch.arange(40, 50))
    for rank in (0, 1):
        batches = epoch(
            data, batch_size=10, extra=extra, extra_fraction=0.4, rank=rank, processes=2
        )
        assert [(batch.index == -1).sum().item() for batch in batches] == [2] * 5
        for batch in batches:
            own = batch.index >= 0
            x, y = data.floats(batch.index[own])
            assert torch.equal(batch.x[own], x)
            assert torch.equal(batch.y[own], y)
            for picture, label in zip(batch.x[~own], batch.y[~own], strict=True):
                assert any(
                    torch.equal(picture, other) and label == k
                    for other, k in zip(*extra.floats(), strict=True)
                )


def test_an_epoch_with_extra_images_still_passes_once_over_the_training_images() -> None:
    batches = epoch(images(32), batch_size=10, extra=images(9), extra_fraction=0.4)
    index = torch.cat([batch.index for batch in batches])
    assert sorted(index[index >= 0].tolist()) == list(range(32))
    assert [len(batch.y) for batch in batches] == [10, 10, 10, 10, 10, 3]


def test_a_memory_mapped_set_gives_the_same_batches() -> None:
    chosen = torch.tensor([5, 3, 18, 7, 11, 0, 1, 9])
    for a, b in zip(
        epoch(images(20).take(chosen)), epoch(images(20, mapped=True).take(chosen)), strict=True
    ):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)


@pytest.mark.parametrize("mapped", [False, True])
def test_floats_are_made_of_bytes_for_each_slice_and_a_file_stays_where_it_is(
    mapped: bool,
) -> None:
    chosen = images(20, mapped=mapped).take(torch.tensor([5, 3, 18]))
    pictures = FloatImages(chosen, torch.device("cpu"), torch.float64)
    assert len(pictures) == 3
    assert torch.equal(pictures[1:], images(20).floats(torch.tensor([3, 18]))[0].double())
    moved = chosen.to(torch.device("meta"))
    assert (moved.pixels.device.type, moved.pixels.dtype) == (
        "cpu" if mapped else "meta",
        torch.uint8,
    )
    assert FloatImages(moved, torch.device("meta"))[:2].device.type == "meta"


def test_images_in_a_file_are_read_ahead_by_another_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, readers = _Store._read, Counter[str]()
    third = threading.Event()

    def noted(store: Any, index: Any) -> Any:
        readers[
            f"{'file' if store.mapped else 'memory'},"
            f" {threading.current_thread() is threading.main_thread()}"
        ] += 1
        if readers["file, False"] == 3:
            third.set()
        return read(store, index)

    monkeypatch.setattr(_Store, "_read", noted)
    running = Batches(
        images(40), batch_size=10, seed=0, extra=images(9, mapped=True), extra_fraction=0.5
    ).epoch(0)
    next(running)
    assert third.wait(20)  # the first batch was asked for, and two more are on their way
    assert readers == {"memory, True": 1, "file, False": 3}
    threads = threading.active_count()
    running.close()
    # an epoch that is left early leaves no reader behind
    assert threading.active_count() == threads - 1


def test_a_file_that_cannot_be_read_ends_the_epoch_at_its_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(store: Any, index: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(_Store, "_read", broken)
    with pytest.raises(OSError, match="Input/output error"):
        epoch(images(20, mapped=True))


def shifts(down: int, right: int, *, mirror: bool) -> Shifts:
    return Shifts(
        torch.tensor([down], dtype=torch.int32),
        torch.tensor([right], dtype=torch.int32),
        torch.tensor([mirror]),
    )


def test_a_crop_moves_the_image_over_black_and_a_mirror_turns_what_was_cropped() -> None:
    picture = torch.arange(1, 65, dtype=torch.uint8).reshape(1, 8, 8, 1)  # padded by 8 // 8 = 1
    assert torch.equal(crop_and_flip(picture, shifts(1, 1, mirror=False)), picture)
    assert torch.equal(crop_and_flip(picture, shifts(1, 1, mirror=True)), picture.flip(2))
    up_left = crop_and_flip(picture, shifts(2, 2, mirror=False))
    assert torch.equal(up_left[0, :7, :7], picture[0, 1:, 1:])
    assert up_left[0, 7].sum() == up_left[0, :, 7].sum() == 0
    assert torch.equal(crop_and_flip(picture, shifts(2, 2, mirror=True)), up_left.flip(2))
    down = crop_and_flip(picture, shifts(0, 1, mirror=False))
    assert torch.equal(down[0, 1:], picture[0, :7])


def test_all_81_crops_of_a_32_pixel_image_occur_and_half_are_mirrored() -> None:
    data = images(1, size=32)
    loader = Batches(data, batch_size=1, seed=0, augment="crop_flip")
    drawn = loader._draw_shifts(np.random.default_rng(0), 20_000)
    assert drawn is not None
    assert set(zip(drawn.down.tolist(), drawn.right.tolist(), strict=True)) == {
        (down, right) for down in range(9) for right in range(9)
    }
    assert drawn.mirror.float().mean() == pytest.approx(0.5, abs=0.02)


def test_crop_alone_mirrors_nothing() -> None:
    picture = torch.arange(64, dtype=torch.uint8).reshape(1, 8, 8, 1)
    data = Images(
        picture.repeat(50, 1, 1, 1), torch.zeros(50, dtype=torch.int64), 255.0, ("a",), "", ""
    )
    for batch in epoch(data, augment="crop"):
        middle = batch.x[:, 0, 1:-1, 1:-1]  # untouched by the black border
        assert (middle.diff(dim=2) > 0).all()


class Transfers(TorchDispatchMode):
    """What leaves the CPU: for each tensor, whether the host need not wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[bool] = []

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (
            func is torch.ops.aten._to_copy.default
            and args[0].device.type == "cpu"
            and kwargs.get("device") == torch.device("meta")
        ):
            self.found.append(bool(kwargs.get("non_blocking")))
        return func(*args, **(kwargs or {}))


def test_nothing_is_sent_to_the_device_between_the_first_batch_and_the_last() -> None:
    loader = Batches(
        images(40),
        batch_size=10,
        seed=0,
        augment="crop_flip",
        extra=images(9),
        extra_fraction=0.5,
        device="meta",
    )
    running = loader.epoch(0)
    next(running)
    with Transfers() as transfers:
        assert [batch.x.device.type for batch in running] == ["meta"] * 7
    assert transfers.found == []


def test_the_host_waits_for_no_batch_that_comes_from_a_file() -> None:
    running = Batches(
        images(40, mapped=True), batch_size=10, seed=0, augment="crop_flip", device="meta"
    ).epoch(0)
    next(running)
    with Transfers() as transfers:
        assert [batch.x.device.type for batch in running] == ["meta"] * 3
    assert transfers.found == [True] * 6  # pixels and labels

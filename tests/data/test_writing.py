"""Images in memory, written for a search."""

import errno
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from rkdsearch.data import DataConfig, load_test, load_training, write_images
from rkdsearch.errors import DataError, DiskError
from tests.data.files import pictures

LABELS = np.arange(20) % 5


@pytest.mark.parametrize(("size", "channels"), [((40, 24), 3), ((8, 8), 1)])
def test_what_is_written_is_read_bit_for_bit(
    tmp_path: Path, size: tuple[int, int], channels: int
) -> None:
    pixels = pictures(20, size, channels)
    held = torch.from_numpy(pixels if channels == 3 else pixels[..., 0])
    name = write_images(
        tmp_path / "mine",
        (held, torch.from_numpy(LABELS)),
        validation=(pixels[:5], LABELS[:5]),
        test=(pixels[5:15], LABELS[5:15]),
        classes=["a", "b", "c", "d", "é"],
    )
    assert name == f"parquet:{tmp_path}/mine"
    config = DataConfig(name=name)
    splits = load_training(config)
    assert splits.train.classes == ("a", "b", "c", "d", "é")
    assert splits.train.task.shape == (channels, *size)
    assert np.array_equal(splits.train.pixels, pixels)
    assert np.array_equal(splits.validation.pixels, pixels[:5])
    assert np.array_equal(load_test(config).labels, LABELS[5:15])


def test_images_that_are_written_again_are_read_again(tmp_path: Path) -> None:
    before, after = pictures(20, 8, 1), pictures(20, 8, 1, seed=1)
    name = write_images(tmp_path, (before, LABELS), test=(before, LABELS))
    config = DataConfig(name=name, validation_fraction=0.3)
    first = load_training(config)
    write_images(tmp_path, (after, LABELS))
    second = load_training(config)
    assert first.hashes["pixels_sha256"] != second.hashes["pixels_sha256"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["train.parquet"]


@pytest.mark.parametrize(
    ("there", "split"),
    [
        ("train-00000-of-00001.parquet", "train"),
        ("val.parquet", "validation"),
        ("data/validation-00000-of-00001.parquet", "validation"),
        ("test/0000.parquet", "test"),
    ],
)
def test_images_of_other_files_are_not_read_beside_those_that_are_written(
    tmp_path: Path, there: str, split: str
) -> None:
    images = pictures(20, 8, 1)
    write_images(tmp_path, (images, LABELS), validation=(images, LABELS), test=(images, LABELS))
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_bytes((tmp_path / "train.parquet").read_bytes())
    with pytest.raises(DataError, match=f"{there}, which would be read as {split} images beside"):
        write_images(tmp_path, (images, LABELS))
    assert (tmp_path / "validation.parquet").exists(), "nothing was changed"


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    images = pictures(20, (40, 24), 3)
    with pytest.raises(DataError, match=r"^train: pixels must be uint8 of 0 to 255, got float32"):
        write_images(tmp_path, (np.zeros((20, 8, 8), dtype=np.float32), LABELS))
    with pytest.raises(DataError, match=r"^test: images must have the shape of the training im"):
        write_images(tmp_path, (images, LABELS), test=(pictures(20, (24, 40), 3), LABELS))
    with pytest.raises(DataError, match=r"^test: label must be 0 to 4, got 5 of image 0"):
        write_images(tmp_path, (images, LABELS), test=(images, LABELS + 5))
    with pytest.raises(DataError, match=r"class .1. has no training image; add images, or number"):
        write_images(tmp_path, (images, LABELS * 2))
    with pytest.raises(DataError, match="classes must have names of their own, got 'a' twice; ren"):
        write_images(tmp_path, (images, LABELS), classes=["a", "b", "c", "a", "e"])
    huge = np.where(np.arange(20) == 3, 10**12, LABELS)
    with pytest.raises(DataError, match=r"label must be below 100,000, got 1000000000000 of ima"):
        write_images(tmp_path, (images, huge))
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="could not be written"):
        write_images(tmp_path / "file", (images, LABELS))


def test_a_disk_that_fills_up_leaves_no_half_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(parquet.ParquetWriter, "write_batch", refuse)
    with pytest.raises(DiskError, match="No space left on device"):
        write_images(tmp_path / "mine", (pictures(20, 8, 1), LABELS))
    assert list((tmp_path / "mine").iterdir()) == []


def test_no_images_are_written_into_a_study(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(DataError, match="is the folder of a study; name one for the images alone"):
        write_images(tmp_path, (pictures(20, 8, 1), LABELS))


@pytest.mark.parametrize("name", ["train.parquet", "test.parquet", "validation.parquet"])
def test_files_of_others_are_neither_replaced_nor_removed(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    parquet.write_table(pa.table({"mine": [1, 2, 3]}), file)
    before = file.read_bytes()
    with pytest.raises(
        DataError, match=rf"{name}: was not written by write_images, and is neither"
    ):
        write_images(tmp_path, (pictures(20, 8, 1), LABELS))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: before}

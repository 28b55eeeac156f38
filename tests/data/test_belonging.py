"""Splits belong together: what the training images are, the others are, or are refused."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from rkdsearch.data import DataConfig, check_test, load_test, load_training
from rkdsearch.errors import DataError
from tests.data.files import pictures, png, write_folder, write_parquet

TRAIN = {"train/cat": 6, "train/dog": 4}


def folder(root: Path, **fields: object) -> DataConfig:
    return DataConfig.model_validate(
        {"name": f"folder:{root}", "validation_fraction": 0.3, **fields}
    )


def test_test_images_of_another_size_are_refused_before_training_or_resized(
    tmp_path: Path,
) -> None:
    write_folder(tmp_path, TRAIN, size=9)
    write_folder(tmp_path, {"test/cat": 2, "test/dog": 2}, size=12)
    law = "000.png: must have the height and width of the first training image, 9 x 9, got 12 x 12"
    for refused in (check_test, load_test):
        with pytest.raises(DataError, match=law):
            refused(folder(tmp_path))
    sized = folder(tmp_path, image_size=9)
    assert check_test(sized) is None
    assert load_test(sized).task == load_training(sized).train.task


def test_grey_test_images_beside_colour_ones_have_the_training_images_three_channels(
    tmp_path: Path,
) -> None:
    write_folder(tmp_path, TRAIN)
    write_folder(tmp_path, {"test/cat": 1, "validation/cat": 1}, channels=1)
    write_folder(tmp_path, {"test/dog": 1, "validation/dog": 1}, channels=3)
    config = folder(tmp_path)
    assert check_test(config) is None
    assert load_test(config).pixels.shape == (2, 8, 8, 3)
    assert load_training(config).validation.pixels.shape == (2, 8, 8, 3)


def test_grey_images_alone_beside_colour_ones_are_refused_before_training(tmp_path: Path) -> None:
    write_folder(tmp_path, TRAIN)
    write_folder(tmp_path, {"test/cat": 1, "test/dog": 1}, channels=1)
    law = (
        r"000\.png: a grey image, as the first 2 of its set are, and the training images are colour"
    )
    for refused in (check_test, load_test):
        with pytest.raises(DataError, match=law):
            refused(folder(tmp_path))
    assert load_test(folder(tmp_path, channels=3)).pixels.shape == (2, 8, 8, 3)
    assert load_test(folder(tmp_path, channels=1)).pixels.shape == (2, 8, 8, 1)


def test_colour_test_images_of_a_grey_data_set_are_refused_before_training(tmp_path: Path) -> None:
    write_folder(tmp_path, TRAIN, channels=1)
    write_folder(tmp_path, {"test/dog": 1})
    with pytest.raises(DataError, match=r"a colour image .* and the first training image is grey"):
        check_test(folder(tmp_path))
    assert check_test(folder(tmp_path, channels=1)) is None
    assert load_test(folder(tmp_path, channels=3)).task.channels == 3


def test_classes_that_a_file_numbers_in_another_order_are_read_by_their_names(
    tmp_path: Path,
) -> None:
    images = [png(image) for image in pictures(6, 8, 3)]
    write_parquet(tmp_path / "train-0.parquet", images[:3], [0, 1, 2], ["a", "b", "c"])
    write_parquet(tmp_path / "train-1.parquet", images[3:], [0, 1, 2], ["c", "b", "a"])
    write_parquet(tmp_path / "validation.parquet", images[:2], [0, 2], ["b", "c", "a"])
    write_parquet(tmp_path / "test.parquet", images[:3], [0, 1, 2], ["c", "b", "a"])
    config = DataConfig(name=f"parquet:{tmp_path}")
    splits, test = load_training(config), load_test(config)
    assert splits.train.labels.tolist() == [0, 1, 2, 2, 1, 0]
    assert splits.validation.labels.tolist() == [1, 0]
    assert (test.labels.tolist(), test.classes) == ([2, 1, 0], ("a", "b", "c"))


def test_a_test_class_that_no_training_image_has_is_refused_before_training(tmp_path: Path) -> None:
    images = [png(image) for image in pictures(2, 8, 3)]
    write_parquet(tmp_path / "train.parquet", images, [0, 1], ["a", "b"])
    write_parquet(tmp_path / "test.parquet", images, [0, 1], ["a", "z"])
    law = "test.parquet, row 1: label must be a class of the training images, a, b, got z"
    with pytest.raises(DataError, match=law):
        check_test(DataConfig(name=f"parquet:{tmp_path}"))


def test_a_missing_test_set_is_a_notice_at_the_start(tmp_path: Path) -> None:
    write_folder(tmp_path, TRAIN)
    notice = check_test(folder(tmp_path))
    assert notice is not None
    assert f"has no test images; expected {tmp_path}/test/CLASS/IMAGE.png" in notice
    assert "Training needs no test images, but `rkdsearch evaluate` will" in notice
    with pytest.raises(DataError, match="a test evaluation needs them"):
        load_test(folder(tmp_path))
    assert check_test(DataConfig()) is None
    missing = check_test(DataConfig(name="mnist", root=str(tmp_path)))
    assert missing is not None
    assert "no sound copy of mnist" in missing


@pytest.mark.parametrize("labels", [[-1, -1], [None, None]])
def test_withheld_labels_are_no_test_set(tmp_path: Path, labels: list[int | None]) -> None:
    images = [png(image) for image in pictures(2, 8, 3)]
    write_parquet(tmp_path / "train.parquet", images, [0, 1], ["a", "b"])
    write_parquet(tmp_path / "test.parquet", images, labels, ["a", "b"])
    notice = check_test(DataConfig(name=f"parquet:{tmp_path}"))
    assert notice is not None
    assert "test.parquet: holds images without labels" in notice


def test_a_test_file_without_the_training_files_label_column_is_unlabelled(tmp_path: Path) -> None:
    images = [png(image) for image in pictures(2, 8, 3)]
    write_parquet(tmp_path / "train.parquet", images, [0, 1], None, ("image", "label"), id=[0, 1])
    write_parquet(tmp_path / "test.parquet", images, [7, 8], None, ("image", "id"))
    notice = check_test(DataConfig(name=f"parquet:{tmp_path}"))
    assert notice is not None
    assert "test.parquet: holds images without labels" in notice


def test_images_of_another_column_are_not_taken_from_its_decoded_file(tmp_path: Path) -> None:
    near, far = ([png(image) for image in pictures(4, 8, 1, seed)] for seed in (0, 1))
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({"near": near, "far": far, "label": [0, 1, 0, 1]})
    parquet.write_table(table, tmp_path / "train.parquet")
    parquet.write_table(table, tmp_path / "test.parquet")
    tests = [
        load_test(
            DataConfig(name=f"parquet:{tmp_path}", image_column=column, memory_gib=1e-9)
        ).stored(slice(None))
        for column in ("near", "far")
    ]
    assert np.array_equal(tests[0], pictures(4, 8, 1, 0))
    assert np.array_equal(tests[1], pictures(4, 8, 1, 1))


def test_images_need_not_be_square_and_keep_height_and_width_apart(tmp_path: Path) -> None:
    write_folder(tmp_path, {**TRAIN, "test/cat": 1}, size=(40, 24))
    config = folder(tmp_path)
    assert load_training(config).train.task.shape == (3, 40, 24)
    assert np.array_equal(load_test(config).pixels[0], pictures(1, (40, 24), 3, 2)[0])
    mapped = load_training(folder(tmp_path, memory_gib=1e-9))
    assert mapped.fingerprint == load_training(config).fingerprint
    assert torch.equal(mapped.train.floats()[0], load_training(config).train.floats()[0])


def test_image_size_is_height_and_width_and_each_makes_a_file_of_its_own(tmp_path: Path) -> None:
    write_folder(tmp_path, TRAIN, size=(12, 20))
    tall, wide = (
        load_training(folder(tmp_path, image_size=size, memory_gib=1e-9)).train
        for size in ([8, 4], [4, 8])
    )
    assert (tall.task.shape, wide.task.shape) == ((3, 8, 4), (3, 4, 8))
    assert len(list(tmp_path.glob(".rkdsearch-train-*.npy"))) == 2
    assert folder(tmp_path, image_size=[8, 8]) == folder(tmp_path, image_size=8)


@pytest.mark.parametrize("size", [0, [8], [8, 0], [8, 8, 3], "8x8", 8.5])
def test_an_image_size_is_one_or_two_whole_numbers(size: object) -> None:
    if size == [8]:
        assert DataConfig(name="folder:x", image_size=size).image_size == 8  # type: ignore[arg-type]
        return
    with pytest.raises(ValueError, match=re.escape("must be N or [H, W]")):
        DataConfig(name="folder:x", image_size=size)  # type: ignore[arg-type]


def test_a_resize_names_its_crop_filter_and_decoder(tmp_path: Path) -> None:
    from PIL import Image, ImageOps, __version__

    write_folder(tmp_path, TRAIN, size=(12, 20))
    train = load_training(folder(tmp_path, image_size=[4, 6], resize="bilinear")).train
    assert train.preprocessing == (
        f"decoded by Pillow {__version__} to RGB, cropped at the centre to the aspect 4:6"
        " (height:width), resized to 4 x 6 pixels by Pillow's bilinear filter, antialiased;"
        " rotation in EXIF is not applied"
    )
    written = [Image.fromarray(image) for image in pictures(6, (12, 20), 3, 0)]
    expected = {
        np.asarray(ImageOps.fit(image, (6, 4), method=Image.Resampling.BILINEAR)).tobytes()
        for image in written
    }
    assert sum(image.tobytes() in expected for image in train.pixels.numpy()) == 4

"""Image folders and Parquet files: decoded right, once, and every fault with its place."""

import errno
import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rkdsearch.data import Batches, DataConfig, load_test, load_training
from rkdsearch.data import encoded as encoded_files
from rkdsearch.data.datasets import _read, forget_images
from rkdsearch.errors import DataError
from tests.data.files import pictures, png, write_folder, write_parquet

COUNTS = {"train/cat": 6, "train/dog": 4, "test/cat": 2, "test/dog": 3}


def folder_config(root: Path, **fields: object) -> DataConfig:
    return DataConfig.model_validate(
        {"name": f"folder:{root}", "validation_fraction": 0.3, **fields}
    )


def test_a_folder_of_png_files_gives_every_pixel_back(tmp_path: Path) -> None:
    write_folder(tmp_path, COUNTS)
    splits = load_training(folder_config(tmp_path))
    written = {
        image.tobytes(): k
        for k, seed in ((0, 0), (1, 1))
        for image in pictures((6, 4)[k], 8, 3, seed)
    }
    for images in (splits.train, splits.validation):
        assert [
            written[image.tobytes()] for image in images.pixels.numpy()
        ] == images.labels.tolist()
    assert (len(splits.train), len(splits.validation), splits.train.classes) == (
        7,
        3,
        ("cat", "dog"),
    )
    assert load_test(folder_config(tmp_path)).labels.tolist() == [0, 0, 1, 1, 1]


def test_a_validation_folder_is_used_in_place_of_training_images(tmp_path: Path) -> None:
    write_folder(tmp_path, COUNTS | {"validation/dog": 2})
    splits = load_training(folder_config(tmp_path))
    assert (len(splits.train), splits.validation.labels.tolist()) == (10, [1, 1])


def test_grey_images_have_one_channel_unless_three_are_asked_for(tmp_path: Path) -> None:
    write_folder(tmp_path, COUNTS, channels=1)
    assert load_training(folder_config(tmp_path)).train.task.channels == 1
    assert load_training(folder_config(tmp_path, channels=3)).train.task.channels == 3


def test_image_size_crops_to_the_middle_square_and_resizes(tmp_path: Path) -> None:
    write_folder(tmp_path, COUNTS)
    wide = np.zeros((40, 120, 3), dtype=np.uint8)
    wide[:, 30:90] = 200  # squeezed instead of cropped, the mean would be 100
    (tmp_path / "test/cat/000.png").write_bytes(png(wide))
    test = load_test(folder_config(tmp_path, image_size=4))
    assert test.pixels.shape == (5, 4, 4, 3)
    assert test.pixels[0].float().mean() == pytest.approx(200, abs=5)


def test_a_data_set_beyond_memory_gib_is_decoded_once_and_then_mapped(tmp_path: Path) -> None:
    write_folder(tmp_path, COUNTS)
    in_memory = load_training(folder_config(tmp_path))
    mapped = load_training(folder_config(tmp_path, memory_gib=1e-9))
    (cached,) = tmp_path.glob(".rkdsearch-train-*.npy")
    assert mapped.train.mapped
    # views of one file
    assert mapped.train.pixels.data_ptr() == mapped.validation.pixels.data_ptr()
    assert mapped.fingerprint == in_memory.fingerprint
    for one, other in ((in_memory.train, mapped.train), (in_memory.validation, mapped.validation)):
        assert torch.equal(one.floats()[0], other.floats()[0])
        assert torch.equal(one.floats(slice(1, 3))[0], other.floats(slice(1, 3))[0])
    ours, theirs = (
        Batches(s.train, batch_size=3, seed=1, augment="crop_flip").epoch(2)
        for s in (in_memory, mapped)
    )
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.x, b.x)
    before = cached.stat().st_mtime_ns
    load_training(folder_config(tmp_path, memory_gib=2e-9))
    assert cached.stat().st_mtime_ns == before


def test_a_changed_image_is_decoded_again(tmp_path: Path) -> None:
    write_folder(tmp_path, COUNTS)
    load_test(folder_config(tmp_path, memory_gib=1e-9))
    (tmp_path / "test/cat/000.png").write_bytes(png(np.full((8, 8, 3), 9, dtype=np.uint8)))
    assert (
        load_test(folder_config(tmp_path, memory_gib=1e-9)).pixels[0].flatten().tolist()
        == [9] * 192
    )


def test_a_failed_decoding_leaves_no_cache_behind(tmp_path: Path) -> None:
    write_folder(tmp_path, COUNTS)
    (tmp_path / "test/dog/002.png").write_bytes(b"GIF89a, or so it says")
    with pytest.raises(
        DataError, match=r"test.dog.002\.png: must be an image that Pillow can decode"
    ):
        load_test(folder_config(tmp_path, memory_gib=1e-9))
    assert list(tmp_path.glob(".rkdsearch-*")) == []


def test_of_processes_that_start_together_one_decodes_and_the_others_read_what_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, COUNTS)
    fill, decoded = encoded_files._fill, list[str]()

    def slowly(*arguments: Any) -> None:
        decoded.append("all")
        time.sleep(0.5)
        fill(*arguments)

    monkeypatch.setattr(encoded_files, "_fill", slowly)
    with ThreadPoolExecutor(3) as pool:  # each opens the lock for itself, as processes do
        loaded = list(pool.map(load_test, [folder_config(tmp_path, memory_gib=1e-9)] * 3))
    assert decoded == ["all"]
    assert all(torch.equal(images.floats()[0], loaded[0].floats()[0]) for images in loaded)


def test_a_cache_folder_that_cannot_be_written_says_which_value_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_folder(tmp_path, COUNTS)
    with pytest.raises(DataError, match=r"data.cache: .*absent is no folder; make it, or name"):
        load_test(folder_config(tmp_path, memory_gib=1e-9, cache=str(tmp_path / "absent")))
    # a sparse file would be mapped, and a page without room would end the process by SIGBUS
    monkeypatch.setattr(os, "posix_fallocate", full)
    law = r"No space left.*; set data\.cache to a folder with room, or raise data\.memory_gib"
    with pytest.raises(DataError, match=law):
        load_test(folder_config(tmp_path, memory_gib=1e-9))
    assert not list(tmp_path.glob(".tmp-*"))


def test_what_a_killed_process_left_of_a_cache_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, COUNTS)

    def killed(*_: object) -> None:
        (written,) = tmp_path.glob(".tmp-*")
        shutil.copyfile(written, written.with_name(written.name + "-left"))
        raise KeyboardInterrupt

    fill = encoded_files._fill
    monkeypatch.setattr(encoded_files, "_fill", killed)
    with pytest.raises(KeyboardInterrupt):
        load_test(folder_config(tmp_path, memory_gib=1e-9))
    monkeypatch.setattr(encoded_files, "_fill", fill)
    (left,) = tmp_path.glob(".tmp-*")
    assert left.stat().st_size > 0
    load_test(folder_config(tmp_path, memory_gib=1e-9))
    assert not list(tmp_path.glob(".tmp-*"))


def test_images_in_sub_folders_belong_to_their_class_in_the_order_of_image_folder(
    tmp_path: Path,
) -> None:
    from torchvision.datasets import ImageFolder  # imported here: seconds

    write_folder(
        tmp_path,
        {
            "train/cat": 3,
            "train/cat/a-b": 2,
            "train/cat/a/c": 1,
            "train/cat/.thumbnails": 4,
            "train/dog/a": 2,
            "test/cat": 1,
        },
    )
    write_folder(tmp_path / "elsewhere", {"more": 2})
    (tmp_path / "train" / "dog" / "more").symlink_to(tmp_path / "elsewhere" / "more")
    images = _read(folder_config(tmp_path), "train")
    assert images is not None
    assert images.labels.tolist() == [0] * 6 + [1] * 4
    places = [
        tmp_path / "train" / place for place in ("cat", "cat/a-b", "cat/a/c", "dog/a", "dog/more")
    ]
    expected = [
        np.asarray(Image.open(file)) for place in places for file in sorted(place.glob("*.png"))
    ]
    assert np.array_equal(images.pixels.numpy(), np.stack(expected))
    shutil.rmtree(tmp_path / "train" / "cat" / ".thumbnails")
    theirs = [file for file, _ in ImageFolder(str(tmp_path / "train")).samples]
    assert np.array_equal(
        images.pixels.numpy(), np.stack([np.asarray(Image.open(file)) for file in theirs])
    )


def test_faults_of_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must hold one folder of images per class, found none"):
        load_training(folder_config(tmp_path))
    write_folder(tmp_path, {"train/cat": 3, "train/dog": 3, "test/cow": 1})
    with pytest.raises(DataError, match=r"test.cow: holds images without labels|test: holds"):
        load_test(folder_config(tmp_path))
    write_folder(tmp_path, {"test/cat": 1})
    with pytest.raises(DataError, match=r"test.cow: the class has no training images"):
        load_test(folder_config(tmp_path))
    (tmp_path / "train/empty").mkdir()
    with pytest.raises(DataError, match="class 'empty' has no training image"):
        load_training(folder_config(tmp_path))


def test_without_test_images_there_is_no_test_evaluation(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/cat": 3, "train/dog": 3})
    assert len(load_training(folder_config(tmp_path)).train) == 4
    with pytest.raises(DataError, match="has no test images"):
        load_test(folder_config(tmp_path))


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (
            pictures(1, 9, 3)[0],
            (
                r"must have the height and width of the first training image, 8 x 8, got 9 x 9;"
                r" set data.image_size"
            ),
        ),
        (pictures(1, 8, 1)[0], None),  # grey among colour is colour
    ],
)
def test_images_must_agree_in_size_but_not_in_colour(
    tmp_path: Path, odd: np.ndarray, message: str | None
) -> None:
    write_folder(tmp_path, COUNTS)
    (tmp_path / "test/dog/001.png").write_bytes(png(odd))
    if message is None:
        assert load_test(folder_config(tmp_path)).pixels[3, 0, 0].diff().tolist() == [0, 0]
    else:
        with pytest.raises(DataError, match=message):
            load_test(folder_config(tmp_path))


def test_colour_among_grey_is_refused_until_the_user_decides(tmp_path: Path) -> None:
    write_folder(tmp_path, COUNTS, channels=1)
    (tmp_path / "test/dog/001.png").write_bytes(png(pictures(1, 8, 3)[0]))
    with pytest.raises(
        DataError,
        match=(
            r"001\.png: a colour image \(mode RGB\), and the first training image is grey; set"
            r" data.channels"
        ),
    ):
        load_test(folder_config(tmp_path))
    assert load_test(folder_config(tmp_path, channels=1)).task.channels == 1


def test_parquet_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    images = pictures(7, 8, 1)
    encoded: list[bytes | None] = [png(image) for image in images]
    write_parquet(tmp_path / "train-0.parquet", encoded, [0, 1, 2, 0, 1, 2, 0], ["a", "b", "c"])
    write_parquet(tmp_path / "test-1-of-2.parquet", encoded[4:], [2, 1, 0])
    write_parquet(tmp_path / "test-0-of-2.parquet", encoded[:4], [0, 0, 1, 1])
    test = load_test(DataConfig(name=f"parquet:{tmp_path}"))
    assert torch.equal(test.pixels, torch.from_numpy(images))
    assert (test.labels.tolist(), test.classes) == ([0, 0, 1, 1, 2, 1, 0], ("a", "b", "c"))


def test_parquet_without_class_names_counts_its_labels_and_brings_its_own_validation(
    tmp_path: Path,
) -> None:
    encoded: list[bytes | None] = [png(image) for image in pictures(4, 8, 3)]
    write_parquet(tmp_path / "train.parquet", encoded, [0, 1, 2, 0])
    write_parquet(tmp_path / "validation.parquet", encoded[:1], [2])
    splits = load_training(DataConfig(name=f"parquet:{tmp_path}"))
    assert (splits.train.classes, len(splits.train), splits.validation.labels.tolist()) == (
        ("0", "1", "2"),
        4,
        [2],
    )


@pytest.mark.parametrize("label", [77, 10**12])
def test_without_class_names_a_label_far_above_the_others_is_named_with_its_row(
    tmp_path: Path, label: int
) -> None:
    encoded: list[bytes | None] = [png(image) for image in pictures(4, 8, 3)]
    write_parquet(tmp_path / "train-0.parquet", encoded, [0, 1, 2, 0])
    write_parquet(tmp_path / "train-1.parquet", encoded, [0, 1, label, 2])
    law = (
        rf"train-1.parquet, row 2: label {label} is the highest, so that class 3 should have a"
        r" training image and has none; correct the label"
    )
    with pytest.raises(DataError, match=law):
        load_training(DataConfig(name=f"parquet:{tmp_path}"))


@pytest.mark.parametrize(
    ("labels", "images", "message"),
    [
        ([0, 1, 0, 1, 7], None, "train.parquet, row 4: label must be 0 to 1, got 7"),
        ([0, 1, 0, 1, -1], None, "row 4: label must be 0 to 1, got -1"),
        ([0, 1, None, 1, 0], None, "row 2: label must be 0 to 1, got None"),
        ([0, 0, 0, 0, 0], None, "class 'b' has no training image"),
        (
            [0, 1, 0, 1, 0],
            {3: b"\x89PNG and then nothing"},
            "row 3: must be an image that Pillow can decode",
        ),
        ([0, 1, 0, 1, 0], {3: None}, "row 3: image.bytes must hold the image itself, got null"),
        ([], None, "the train files have no rows"),
    ],
)
def test_faults_of_a_parquet_file_are_named_with_their_row(
    tmp_path: Path, labels: list[int | None], images: dict[int, bytes | None] | None, message: str
) -> None:
    encoded: list[bytes | None] = [png(image) for image in pictures(len(labels), 8, 3)]
    for row, replaced in (images or {}).items():
        encoded[row] = replaced
    write_parquet(tmp_path / "train.parquet", encoded, labels, ["a", "b"])
    with pytest.raises(DataError, match=message):
        load_training(DataConfig(name=f"parquet:{tmp_path}"))


def test_a_half_written_png_is_named(tmp_path: Path) -> None:
    good = [png(image) for image in pictures(4, 32, 3)]
    write_parquet(
        tmp_path / "train.parquet",
        [*good[:3], good[3][: len(good[3]) // 2]],
        [0, 1, 0, 1],
        ["a", "b"],
    )
    with pytest.raises(DataError, match="row 3: must be an image"):
        load_training(DataConfig(name=f"parquet:{tmp_path}"))


def test_a_folder_without_parquet_and_a_file_that_is_none_are_named(tmp_path: Path) -> None:
    config = DataConfig(name=f"parquet:{tmp_path}")
    with pytest.raises(DataError, match=r"train\*\.parquet: no such file"):
        load_training(config)
    (tmp_path / "train.parquet").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(DataError, match=r"train\.parquet: must be a Parquet file"):
        load_training(config)


@pytest.mark.parametrize("where", [0.3, 0.6])
def test_damage_inside_a_parquet_file_is_a_data_error(tmp_path: Path, where: float) -> None:
    write_parquet(
        tmp_path / "train.parquet",
        [png(image) for image in pictures(40, 16, 3)],
        [0, 1] * 20,
        ["a", "b"],
    )
    content = bytearray((tmp_path / "train.parquet").read_bytes())
    middle = int(len(content) * where)
    content[middle : middle + 3000] = bytes(3000)
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "train.parquet"))):
        load_training(DataConfig(name=f"parquet:{tmp_path}"))


@pytest.mark.parametrize(
    ("columns", "more"),
    [(("img", "label"), {}), (("img", "fine_label"), {"coarse_label": [1, 1, 0, 0]})],
)
def test_the_columns_of_hugging_faces_cifar_are_read(
    tmp_path: Path, columns: tuple[str, str], more: dict[str, list[int]]
) -> None:
    images = pictures(4, 8, 3)
    for split in ("train", "test"):
        write_parquet(
            tmp_path / f"{split}.parquet",
            [png(image) for image in images],
            [0, 2, 1, 0],
            ["a", "b", "c"],
            columns,
            **more,
        )
    test = load_test(DataConfig(name=f"parquet:{tmp_path}"))
    assert torch.equal(test.pixels, torch.from_numpy(images))
    assert (test.labels.tolist(), test.classes) == ([0, 2, 1, 0], ("a", "b", "c"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"image": b"", "img": b"", "label": 0},
            (
                "must have one column of images, such as image or img, got columns image, img,"
                " label; name it by data.image_column"
            ),
        ),
        (
            {"picture": b"", "thumbnail": b"", "label": 0},
            (
                "must have one column of images, such as image or img, got columns picture,"
                " thumbnail, label; name it by data.image_column"
            ),
        ),
        (
            {"image": b"", "coarse": 0, "fine": 0},
            (
                "must have one column of labels, such as label or fine_label, got columns image,"
                " coarse, fine; name it by data.label_column"
            ),
        ),
        (
            {"img": 1, "label": 0},
            "column img must be a struct<bytes, path> or binary, got int64; convert it",
        ),
        (
            {"img": {"bytes": b""}, "fine_label": 0.5},
            "column fine_label must hold integers or class names, got double; convert it",
        ),
    ],
)
def test_columns_that_are_missing_twofold_or_of_another_type_are_refused(
    tmp_path: Path, columns: dict[str, object], message: str
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(
        pa.table({name: [value] for name, value in columns.items()}), tmp_path / "train.parquet"
    )
    with pytest.raises(DataError, match=re.escape(f"train.parquet: {message}")):
        load_training(DataConfig(name=f"parquet:{tmp_path}"))


def test_a_link_to_a_folder_above_it_brings_no_image_twice(tmp_path: Path) -> None:
    write_folder(tmp_path, COUNTS)
    before = len(
        load_training(DataConfig(name=f"folder:{tmp_path}", validation_fraction=0.25)).train
    )
    (tmp_path / "train" / "cat" / "up").symlink_to(tmp_path / "train" / "cat")
    (tmp_path / "train" / "cat" / "down").mkdir()
    (tmp_path / "train" / "cat" / "down" / "again").symlink_to(tmp_path / "train" / "cat" / "down")
    assert (
        len(
            load_training(
                DataConfig(name=f"folder:{tmp_path}", validation_fraction=0.25, split_seed=1)
            ).train
        )
        == before
    )


def test_hidden_colours_are_not_learned_and_opaque_alpha_is_none(tmp_path: Path) -> None:
    write_folder(tmp_path, COUNTS)
    file = min((tmp_path / "train").rglob("*.png"))
    with Image.open(file) as image:
        size = image.size
    Image.new("RGBA", size, (10, 20, 30, 255)).save(file)
    assert load_training(folder_config(tmp_path)).train.pixels.shape[3] == 3
    Image.new("RGBA", size, (10, 20, 30, 254)).save(file)
    forget_images()
    with pytest.raises(
        DataError, match=rf"{file.name}: some pixels are transparent, and the colou"
    ):
        load_training(folder_config(tmp_path))


def test_a_photograph_that_nobody_can_decode_is_not_left_out_in_silence(tmp_path: Path) -> None:
    write_folder(tmp_path, COUNTS)
    home = min((tmp_path / "train").iterdir())
    (home / "IMG_1.HEIC").write_bytes(b"ftypheic")
    with pytest.raises(
        DataError, match=r"IMG_1.HEIC: is an image in a format that Pillow does not"
    ):
        load_training(folder_config(tmp_path))


def test_jpegs_are_read_by_each_of_their_endings(tmp_path: Path) -> None:
    write_folder(tmp_path, COUNTS)
    file = min((tmp_path / "train").rglob("*.png"))
    with Image.open(file) as image:
        image.convert("RGB").save(file.with_name("more.jfif"), "jpeg")
    splits = load_training(folder_config(tmp_path))
    assert len(splits.train) + len(splits.validation) == 11

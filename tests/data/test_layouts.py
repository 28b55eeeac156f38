"""Folders and Parquet files under the names that people use, as they were unzipped."""

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from rkdsearch.data import DataConfig, check_test, load_test, load_training
from rkdsearch.data.datasets import forget_images
from rkdsearch.errors import DataError
from tests.data.files import pictures, png, write_folder, write_parquet

TRAIN = {"train/cat": 6, "train/dog": 4}


def folder(root: Path, **fields: object) -> DataConfig:
    return DataConfig.model_validate(
        {"name": f"folder:{root}", "validation_fraction": 0.3, **fields}
    )


@pytest.mark.parametrize("name", ["val", "valid", "dev", "Validation", "VAL"])
def test_validation_has_many_names(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path / "images", {**TRAIN, f"{name}/dog": 2})
    splits = load_training(folder(tmp_path / "images"))
    assert (len(splits.train), splits.validation.labels.tolist()) == (10, [1, 1])
    images = [png(image) for image in pictures(4, 8, 3)]
    write_parquet(tmp_path / "train-00000-of-00001.parquet", images, [0, 1, 0, 1])
    write_parquet(tmp_path / f"{name}-00000-of-00001.parquet", images[:1], [1])
    splits = load_training(DataConfig(name=f"parquet:{tmp_path}"))
    assert (len(splits.train), splits.validation.labels.tolist()) == (4, [1])


def test_two_names_of_one_split_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {**TRAIN, "val/dog": 1, "validation/cat": 1})
    with pytest.raises(DataError, match="has 2 folders for validation images, val and validation"):
        load_training(folder(tmp_path))
    images = [png(image) for image in pictures(2, 8, 3)]
    for name in ("train", "val-0", "valid-0"):
        write_parquet(tmp_path / "rows" / f"{name}.parquet", images, [0, 1])
    with pytest.raises(DataError, match="files named val and valid, each for validation"):
        load_training(DataConfig(name=f"parquet:{tmp_path}/rows"))


@pytest.mark.parametrize("place", ["data/{}-00000-of-00001", "{}/0000"])
def test_parquet_files_lie_where_hugging_face_puts_them(tmp_path: Path, place: str) -> None:
    images = [png(image) for image in pictures(4, 8, 3)]
    for split, count in (("train", 4), ("test", 2)):
        write_parquet(
            tmp_path / f"{place.format(split)}.parquet", images[:count], [0, 1, 0, 1][:count]
        )
    config = DataConfig(name=f"parquet:{tmp_path}", validation_fraction=0.5)
    assert (len(load_training(config).train), len(load_test(config))) == (2, 2)


@pytest.mark.parametrize(
    ("training", "test", "refused"),
    [
        ([str(k) for k in range(12)], [*range(12)], None),
        (["cat", "dog"] * 6, ["dog", "cat"] * 6, None),
        (["cat", "dog"] * 6, [0, 1] * 6, "must be a class of the training images, cat, dog, got 0"),
    ],
)
def test_integers_beside_texts_are_the_classes_of_that_name(
    tmp_path: Path, training: list[str], test: list[Any], refused: str | None
) -> None:
    images = [png(image) for image in pictures(12, 8, 3)]
    write_parquet(tmp_path / "train.parquet", images, training)
    write_parquet(tmp_path / "test.parquet", images, test)
    config = DataConfig(name=f"parquet:{tmp_path}", validation_fraction=0.5)
    if refused is not None:
        with pytest.raises(DataError, match=refused):
            load_test(config)
        return
    images_read = load_test(config)
    named = [images_read.classes[k] for k in images_read.labels]
    assert named == [str(value) for value in test]


def test_a_part_that_is_missing_is_missed(tmp_path: Path) -> None:
    images = [png(image) for image in pictures(4, 8, 3)]
    for number in (0, 2):
        write_parquet(tmp_path / f"train-0000{number}-of-00003.parquet", images, [0, 1, 0, 1])
    with pytest.raises(
        DataError, match=r"3 files train-\*-of-00003.parquet, .* number 00001; fetch"
    ):
        load_training(DataConfig(name=f"parquet:{tmp_path}"))


def test_other_column_names_are_found_by_type_or_named(tmp_path: Path) -> None:
    images = [png(image) for image in pictures(4, 8, 3)]
    for split in ("train", "test"):
        write_parquet(
            tmp_path / f"{split}.parquet", images, ["owl", "ant", "owl", "ant"], None, ("x", "kind")
        )
    config = DataConfig(name=f"parquet:{tmp_path}")
    test = load_test(config)
    assert (test.classes, test.labels.tolist()) == (("ant", "owl"), [1, 0, 1, 0])
    for split in ("train", "test"):
        write_parquet(
            tmp_path / f"{split}.parquet",
            images,
            [0, 1, 2, 3],
            None,
            ("x", "fine"),
            coarse=[1, 0, 0, 1],
        )
    named = DataConfig(name=f"parquet:{tmp_path}", label_column="coarse")
    assert load_test(named).labels.tolist() == [1, 0, 0, 1]
    with pytest.raises(DataError, match="got no column 'coarser'; name it by"):
        load_test(DataConfig(name=f"parquet:{tmp_path}", label_column="coarser"))


def test_tiny_imagenet_is_read_as_it_was_unzipped(tmp_path: Path) -> None:
    write_folder(
        tmp_path, {"train/n02/images": 3, "train/n01/images": 3, "val/images": 3, "test/images": 2}
    )
    (tmp_path / "train/n01/n01_boxes.txt").write_text("n01_0.JPEG\t0\t0\t62\t62\n")
    (tmp_path / "val/val_annotations.txt").write_text(
        "000.png\tn02\t0\t32\t44\t62\n001.png\tn01\t52\t55\t57\t59\n002.png\tn02\t4\t0\t60\t55\n"
    )
    splits = load_training(folder(tmp_path))
    assert splits.train.classes == ("n01", "n02")
    assert (len(splits.train), splits.validation.labels.tolist()) == (6, [0, 1, 1])
    written = pictures(3, 8, 3, 2)
    assert splits.validation.pixels.numpy().tolist() == written[[1, 0, 2]].tolist()
    notice = check_test(folder(tmp_path))
    assert notice is not None
    assert "test: holds images without labels, such as images/000.png" in notice
    with pytest.raises(DataError, match="holds images without labels"):
        load_test(folder(tmp_path))
    (tmp_path / "val/other_annotations.txt").touch()
    forget_images()
    with pytest.raises(DataError, match=r"other_annotations.txt and val_annotations.txt both list"):
        load_training(folder(tmp_path))
    (tmp_path / "val/other_annotations.txt").unlink()
    (tmp_path / "val/val_annotations.txt").write_bytes("000.png\tchâteau\n".encode("latin-1"))
    forget_images()
    with pytest.raises(DataError, match=r"val_annotations.txt: byte 10 is not UTF-8; save the"):
        load_training(folder(tmp_path))
    (tmp_path / "val/val_annotations.txt").write_text("000.png\tn03\n")
    forget_images()
    with pytest.raises(DataError, match=r"line 1: 000\.png has no training folder of its class"):
        load_training(folder(tmp_path))


def test_validation_images_may_be_the_test_images(tmp_path: Path) -> None:
    write_folder(tmp_path / "images", {**TRAIN, "val/cat": 1, "val/dog": 2})
    usual = folder(tmp_path / "images")
    said = check_test(usual)
    assert said is not None
    assert said.startswith(f"folder:{tmp_path}/images: has no test images; expected ")
    assert "set data.test_split to validation now: others are then held out" in said
    config = folder(tmp_path / "images", test_split="validation")
    assert check_test(config) is None
    splits, test = load_training(config), load_test(config)
    assert (len(splits.train), len(splits.validation)) == (7, 3)
    assert (test.labels.tolist(), test.split) == ([0, 1, 1], "test")
    assert (len(load_training(usual).train), len(load_training(usual).validation)) == (10, 3)
    images = [png(image) for image in pictures(10, 8, 3)]
    write_parquet(tmp_path / "train.parquet", images, [0, 1] * 5)
    write_parquet(tmp_path / "valid.parquet", images[:1], [1])
    rows = {"name": f"parquet:{tmp_path}", "validation_fraction": 0.3}
    assert load_test(DataConfig(**rows, test_split="validation")).labels.tolist() == [1]
    with pytest.raises(ValueError, match="test_split has no meaning for digits"):
        DataConfig(name="digits", test_split="validation")
    # neither split: there is no way out to point at
    write_folder(tmp_path / "alone", TRAIN)
    assert "test_split" not in str(check_test(folder(tmp_path / "alone")))


def test_imagenets_flat_validation_images_are_named(tmp_path: Path) -> None:
    write_folder(tmp_path, {**TRAIN, "val": 2})
    with pytest.raises(DataError, match=r"val: holds images without labels, such as 00.\.png"):
        load_training(folder(tmp_path))


def test_files_of_an_operating_system_are_no_data(tmp_path: Path) -> None:
    write_folder(tmp_path, {**TRAIN, "test/cat": 1})
    before = load_training(folder(tmp_path)).fingerprint
    forget_images()
    for name in (
        "__MACOSX/train/cat/._000.png",
        "train/__MACOSX/a.png",
        "train/.DS_Store",
        "train/cat/._000.png",
        "train/cat/Thumbs.db",
        "train/dog/desktop.ini",
        "train/cat/@eaDir/000.png",
        "test/__MACOSX/cat/000.png",
        "val_of_nobody.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"Mac OS X")
    write_parquet(tmp_path / "._train.parquet", [], [])
    assert load_training(folder(tmp_path)).fingerprint == before
    assert len(load_test(folder(tmp_path))) == 1


def test_names_are_compared_in_one_unicode_form(tmp_path: Path) -> None:
    taken_apart = unicodedata.normalize("NFD", "café")
    write_folder(tmp_path, {f"train/{taken_apart}": 3, "train/bar": 3, "test/café": 2})
    assert load_training(folder(tmp_path)).train.classes == ("bar", "café")
    assert load_test(folder(tmp_path)).labels.tolist() == [1, 1]
    write_folder(tmp_path, {"train/café": 3})
    forget_images()
    with pytest.raises(DataError, match="two folders named 'café', written in two Unicode forms"):
        load_training(folder(tmp_path))


def test_one_class_is_no_classification(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train/images": 4})
    with pytest.raises(DataError, match="must have two classes or more, got one, 'images'"):
        load_training(folder(tmp_path))


def test_a_folder_that_was_unzipped_one_level_deeper_is_pointed_at(tmp_path: Path) -> None:
    write_folder(tmp_path / "one" / "pets", TRAIN)
    with pytest.raises(DataError, match=rf"did you mean folder:{tmp_path}/one/pets\?"):
        load_training(folder(tmp_path / "one"))
    with pytest.raises(DataError, match=rf"did you mean folder:{tmp_path}/one/pets\?"):
        load_training(folder(tmp_path / "one/pets/train"))
    write_parquet(tmp_path / "p.parquet", [png(image) for image in pictures(2, 8, 3)], [0, 1])
    with pytest.raises(DataError, match=rf"is a file, and data.name needs its .*:{tmp_path}, with"):
        load_training(DataConfig(name=f"parquet:{tmp_path}/p.parquet"))
    write_folder(tmp_path / "two" / "ILSVRC" / "Data" / "CLS-LOC", TRAIN)
    with pytest.raises(DataError, match=rf"did you mean folder:{tmp_path}/two/ILSVRC/Data/CLS-LOC"):
        load_training(folder(tmp_path / "two"))

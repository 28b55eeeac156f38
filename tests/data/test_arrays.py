"""Images that the user's code makes, or that are in memory."""

import numpy as np
import pytest

from rkdsearch import plugins
from rkdsearch.data import DataConfig, check_test, load_test, load_training, splits_of
from rkdsearch.errors import ConfigError, DataError


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_allowed", {"tests.strangers"})


def source(name: str, **fields: object) -> DataConfig:
    return DataConfig.model_validate({"name": f"tests.strangers.images.{name}", **fields})


def test_no_source_is_imported_that_was_not_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_allowed", set())
    with pytest.raises(ConfigError, match=r"data\.name: .* would import code; allow it with"):
        load_training(source("oblong"))


@pytest.mark.usefixtures("allowed")
def test_a_function_of_the_users_brings_arrays_of_any_shape() -> None:
    config = source("oblong", validation_fraction=0.2)
    splits = load_training(config)
    assert (len(splits.train), len(splits.validation)) == (80, 20)
    assert splits.train.task.shape == (1, 40, 24)
    assert splits.train.classes == ("0", "1", "2", "3", "4")
    assert (len(load_test(config)), check_test(config)) == (40, None)


@pytest.mark.usefixtures("allowed")
def test_a_data_set_of_torchs_kind_is_read_with_its_classes_and_root() -> None:
    config = source("Pets", root="12345")
    splits = load_training(config)
    assert (splits.train.classes, splits.train.task.shape) == (("cat", "dog"), (3, 4, 6))
    assert (len(splits.train), len(splits.validation)) == (8, 2)
    assert splits.train.pixels[3, 0, 0].tolist() == [3, 0, 5]


@pytest.mark.usefixtures("allowed")
def test_classes_of_a_users_test_images_are_matched_by_name() -> None:
    test = load_test(source("named_otherwise"))
    assert (test.classes, test.labels.tolist()) == (("ant", "owl"), [1, 0, 1, 0])


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("larger_tests", "test images must have the shape of the training images, 9 x 9 pixels"),
        ("Floats", r"must be of Pillow or uint8 \(H, W, C\), got float32 \(3, 4, 6\); leave"),
        ("without_split", "must take split, 'train', 'validation' or 'test'"),
        ("boom", r"boom, split train, raised KeyError: 'train *\.\.\. \(images.py:\d+\)$"),
        ("leaves", r"leaves, split train, raised SystemExit: 0 \(images.py:\d+\)$"),
        ("too_much", r"too_much, split train, raised MemoryError \(images.py:\d+\)$"),
        ("speechless", r"raised Speechless: \(its message cannot be read\) \(images.py:\d+\)$"),
        ("missing", "has no function or class 'missing'"),
        ("from_root", r"from_root needs root, and is given split; set data.root for root"),
        ("by_size", r"by_size needs size, and is given split; .* any other argument a default"),
    ],
)
def test_a_source_that_is_not_one_is_refused_before_training(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_test(source(name))


def test_arrays_in_memory_become_splits() -> None:
    config = DataConfig(name="arrays", validation_fraction=0.25, split_seed=3)
    pixels, labels = np.zeros((20, 5, 7, 3), dtype=np.uint8), np.arange(20) % 2
    pixels[:, 0, 0, 0] = range(20)
    splits = splits_of(config, (pixels, labels), classes=["cat", "dog"])
    assert (len(splits.train), len(splits.validation)) == (15, 5)
    assert (splits.train.classes, splits.train.task.shape) == (("cat", "dog"), (3, 5, 7))
    again = splits_of(config, (pixels, labels), (pixels[:4], labels[:4]))
    assert again.validation.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"give them as Trainer\(config, splits="):
        load_training(config)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ((np.zeros((4, 5, 7, 3)), [0, 1, 0, 1]), "train: pixels must be uint8 of 0 to 255"),
        (([np.zeros((5, 7)), np.zeros((4, 7))], [0, 1]), "train: pixels and labels must be arrays"),
        ((np.zeros((4, 5, 7, 4), np.uint8), [0, 1, 0, 1]), r"as x\[\.\.\., :3\] does"),
        ((np.zeros((4, 5, 7, 3), np.uint8), [1, 2, 1, 2]), "or number the classes from 0 without"),
        ((np.zeros((4, 3, 5, 7), np.uint8), [0, 1, 0, 1]), "move the channels to the end"),
        ((np.zeros((4, 5, 7, 3), np.uint8), [0, 1, 0]), "labels must be 4 integers, one an image"),
        ((np.zeros((4, 5, 7, 3), np.uint8), [0, 1, -1, 0]), "got -1 of image 2"),
        ((np.zeros((4, 5, 7, 3), np.uint8), [0, 2, 2, 0]), "class '1' has no training image"),
        ((np.zeros((4, 5, 7, 3), np.uint8), [0, 0, 0, 0]), "must have two classes or more"),
    ],
)
def test_arrays_that_are_no_images_are_refused(train: tuple[object, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        splits_of(DataConfig(name="arrays"), train)
    with pytest.raises(DataError, match=r"data\.name must be arrays"):
        splits_of(DataConfig(), train)

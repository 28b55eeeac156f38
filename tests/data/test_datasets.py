"""Every source of images is read, and its faults are named."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from rkdsearch.data import DataConfig, Images, load_test, load_training
from rkdsearch.errors import DataError
from tests.data import files
from tests.shared import shared
from tests.tasks import CIFAR10

DIGITS = DataConfig(validation_fraction=0.2)


def everything(config: DataConfig) -> tuple[np.ndarray, list[int]]:
    """Training and validation images as bytes, and their labels, in the order of training first."""
    splits = load_training(config)
    pixels = torch.cat([splits.train.pixels, splits.validation.pixels]).numpy()
    return pixels, splits.train.labels.tolist() + splits.validation.labels.tolist()


def as_set(pixels: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in pixels}


def test_digits_are_divided_into_1078_270_and_449_images_with_the_same_fingerprint_everywhere() -> (
    None
):
    splits = load_training(DIGITS)
    assert (len(splits.train), len(splits.validation), len(load_test(DIGITS))) == (1078, 270, 449)
    assert splits.fingerprint == "a9de1bba828d127d2a3f196dc4f74d48418dc3f6ad4fae1d1e33dcd5bc03901f"


def test_digits_have_one_channel_of_8_by_8_pixels_and_reach_from_0_to_1() -> None:
    x, y = load_training(DIGITS).train.floats()
    assert (x.shape, x.dtype, y.dtype) == ((1078, 1, 8, 8), torch.float32, torch.int64)
    assert (x.min().item(), x.max().item()) == (0, 1)


def test_no_split_seed_moves_a_test_image_of_digits() -> None:
    other = load_training(DIGITS.model_copy(update={"split_seed": 7}))
    assert other.fingerprint != load_training(DIGITS).fingerprint
    test = load_test(DIGITS.model_copy(update={"split_seed": 7}))
    assert torch.equal(test.pixels, load_test(DIGITS).pixels)


def test_fewer_training_images_leave_the_validation_images_as_they_are() -> None:
    few = load_training(DIGITS.model_copy(update={"train_images": 100}))
    assert torch.equal(few.validation.pixels, load_training(DIGITS).validation.pixels)
    assert len(few.train) == 100
    assert few.train.labels.bincount().min() >= 9


def test_a_second_trial_with_another_augmentation_reads_nothing_again() -> None:
    assert (
        load_training(DIGITS).train
        is load_training(DIGITS.model_copy(update={"augment": "crop"})).train
    )


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_binary_cifar_is_read_in_its_own_order(tmp_path: Path, name: str) -> None:
    written = files.write_cifar_binary(tmp_path, name, per_file=200)
    config = DataConfig(name=name, root=str(tmp_path), validation_fraction=0.5)
    splits = load_training(config)
    assert as_set(everything(config)[0]) == as_set(written)
    place = {image.tobytes(): i for i, image in enumerate(written)}
    classes = 10 if name == "cifar10" else 100
    found = [place[image.tobytes()] % 200 % classes for image in splits.train.pixels.numpy()]
    assert found == splits.train.labels.tolist()
    assert splits.train.classes[3] == "class3"
    assert len(load_test(config)) == 200


def test_a_cut_off_cifar_file_is_named(tmp_path: Path) -> None:
    files.write_cifar_binary(tmp_path, "cifar10")
    cut = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    cut.write_bytes(cut.read_bytes()[:-5])
    with pytest.raises(
        DataError,
        match=r"data_batch_3\.bin: must hold whole records of 3073 bytes, got 61455 bytes",
    ):
        load_training(DataConfig(name="cifar10", root=str(tmp_path)))
    cut.unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin: the file is missing"):
        load_training(DataConfig(name="cifar10", root=str(tmp_path)))


def test_a_label_that_no_class_has_is_found_in_a_cifar_file(tmp_path: Path) -> None:
    files.write_cifar_binary(tmp_path, "cifar10")
    damaged = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    damaged.write_bytes(b"\x63" + damaged.read_bytes()[1:])
    with pytest.raises(DataError, match="test image 0: label must be 0 to 9, got 99"):
        load_test(DataConfig(name="cifar10", root=str(tmp_path)))


def test_pickled_cifar_is_read_only_when_its_md5_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = files.write_cifar_pickles(tmp_path, monkeypatch)
    config = DataConfig(name="cifar10", root=str(tmp_path), validation_fraction=0.25)
    assert as_set(everything(config)[0]) == as_set(written)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"anything else")
    with pytest.raises(
        DataError, match=r"no sound copy of cifar10; looked for .*cifar-10-batches-bin"
    ):
        load_test(config)


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_mnist_and_its_double_are_read_from_idx_files(
    tmp_path: Path, name: str, folder: str
) -> None:
    written = files.write_mnist(tmp_path, folder)
    config = DataConfig(name=name, root=str(tmp_path), validation_fraction=0.25)
    pixels, _ = everything(config)
    assert as_set(pixels) == as_set(written)
    assert load_test(config).pixels.shape == (20, 28, 28, 1)


def test_svhn_calls_the_digit_0_class_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = files.write_svhn(tmp_path, monkeypatch)
    test = load_test(DataConfig(name="svhn", root=str(tmp_path)))
    assert torch.equal(test.pixels, torch.from_numpy(written))
    assert test.labels.tolist() == list(range(10)) * 4
    assert test.classes[0] == "0"


def test_a_missing_root_and_a_wrong_one_say_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root must name the folder of mnist's files"):
        load_training(DataConfig(name="mnist"))
    with pytest.raises(DataError, match=r"no sound copy of mnist.*data\.download: true") as error:
        load_training(DataConfig(name="mnist", root=str(tmp_path)))
    assert "download=True" not in str(error.value)


def test_processes_that_start_together_download_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, most, root = list[str](), list[int](), tmp_path / "absent"

    class Fetched:
        data, targets, classes = (
            torch.zeros(20, 28, 28, dtype=torch.uint8),
            torch.arange(20) % 10,
            [str(k) for k in range(10)],
        )

        def __init__(self, root: Path, *, download: bool, train: bool) -> None:
            inside.append("one")
            most.append(len(inside))
            time.sleep(0.2)
            inside.pop()

    monkeypatch.setattr("torchvision.datasets.MNIST", Fetched)
    with ThreadPoolExecutor(3) as pool:  # each opens the lock for itself, as processes do
        list(pool.map(load_test, [DataConfig(name="mnist", root=str(root), download=True)] * 3))
    assert most == [1, 1, 1]


def test_real_cifar_images_have_the_published_mean_and_first_label() -> None:
    config = DataConfig(name=f"parquet:{shared('data/cifar10')}")
    test = load_test(config)
    assert (len(test), test.task) == (1000, CIFAR10)
    assert [test.classes[k] for k in test.labels[:4]] == ["cat", "ship", "ship", "airplane"]
    assert test.floats()[0].mean(dim=(0, 2, 3)).tolist() == pytest.approx(
        [0.491, 0.482, 0.447], abs=0.01
    )


def test_floats_take_a_slice_indices_or_all() -> None:
    images = Images(
        torch.tensor([[[[0]]], [[[51]]], [[[255]]]], dtype=torch.uint8),
        torch.tensor([4, 5, 6]),
        255.0,
        (),
        "",
        "train",
    )
    assert images.floats(slice(1, 3))[0].flatten().tolist() == pytest.approx([0.2, 1.0])
    assert images.floats(torch.tensor([2, 0]))[1].tolist() == [6, 4]
    assert images.floats(dtype=torch.float64)[0].flatten().tolist() == [0.0, 0.2, 1.0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "cifar-10"}, "did you mean 'cifar10'?"),
        ({"name": "folder:"}, "unknown data set 'folder:'"),
        ({"name": "digits:PATH"}, "unknown data set"),
        ({"name": "Folder:pets"}, "did you mean 'folder:pets'?"),
        ({"name": "imagefolder:pets"}, "did you mean 'folder:pets'?"),
        ({"root": "data"}, "root has no meaning for digits, got 'data'"),
        ({"name": "mnist", "test_fraction": 0.1}, "test_fraction has no meaning for mnist"),
        ({"extra_fraction": 0.5}, "extra and extra_fraction go together"),
        ({"extra": "more.npz"}, "extra and extra_fraction go together"),
        ({"validation_fraction": 0.0}, "greater than 0"),
        ({"colour": True}, "Extra inputs are not permitted"),
    ],
)
def test_a_setting_that_would_be_ignored_or_break_a_law_is_refused(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message.replace("?", r"\?")):
        DataConfig.model_validate(fields)


def test_a_config_survives_the_way_to_json_and_back() -> None:
    for config in (
        DIGITS,
        DataConfig(name="folder:pictures", image_size=64),
        DataConfig(name="svhn", root="data"),
        # a function of the user's may read what we do not, and this is no URL
        DataConfig(name="my_lab.data.images", root="s3://bucket/images"),
        DataConfig(name="folder:///pictures"),
    ):
        assert DataConfig.model_validate_json(config.model_dump_json()) == config

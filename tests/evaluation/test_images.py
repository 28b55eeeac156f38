import numpy as np
import pytest
import torch

from rkdsearch import data
from rkdsearch.errors import DataError
from rkdsearch.evaluation.images import ImageSet, evaluated_images
from tests.evaluation.files import CONFIG, digits

LABELS = np.array([0, 1, 3] * 10)


def of(pixels: np.ndarray, labels: np.ndarray = LABELS, **more: object) -> ImageSet:
    return ImageSet("x", labels, tuple("abcd"), 255.0, lambda rows: pixels[rows], "other", **more)


def test_a_subset_is_stratified_over_the_classes_that_have_images() -> None:
    pixels = np.arange(30, dtype=np.uint8).reshape(30, 1, 1, 1)
    found = evaluated_images(of(pixels), 6, seed=0)
    assert np.bincount(found.pixels.labels).tolist() == [2, 2, 0, 2]
    assert found.rows.tolist() == found.pixels.pixels.ravel().tolist() == sorted(found.rows)
    assert [row["class_name"] for row in found.subset_rows()] == list("abd") * 2 or len(
        found.subset_rows()
    ) == 6
    with pytest.raises(DataError, match="--images: 2 of 30 images were asked for"):
        evaluated_images(of(pixels), 2, seed=0)


def test_the_fingerprint_covers_pixels_labels_and_places() -> None:
    pixels = np.arange(30, dtype=np.uint8).reshape(30, 1, 1, 1)
    changed = pixels.copy()
    changed[7] += 1
    labels = LABELS.copy()
    labels[0] = 1
    sets = (of(pixels), of(changed), of(pixels, labels), of(pixels[::-1]))
    assert len({evaluated_images(each, None, seed=0).sha256 for each in sets}) == 4
    again = evaluated_images(of(pixels.copy()), None, seed=0)
    assert again.sha256 == evaluated_images(of(pixels), None, seed=0).sha256


@pytest.mark.parametrize("channels_last", [True, False])
def test_workers_get_the_floats_of_the_data_set(channels_last: bool) -> None:
    images = data.load_test(CONFIG.data)
    found = digits(40)
    x, y = found.pixels.floats(slice(5, 9), torch.device("cpu"), channels_last=channels_last)
    expected_x, expected_y = images.floats(torch.from_numpy(found.rows[5:9]))
    assert torch.equal(x, expected_x)
    assert torch.equal(y, expected_y)

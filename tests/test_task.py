import torch

from rkdsearch.data import Images
from rkdsearch.task import ImageTask


def test_a_task_knows_the_shape_of_an_image() -> None:
    assert ImageTask(classes=10, channels=3, height=24, width=32).shape == (3, 24, 32)


def test_images_set_the_task_of_their_classes_and_pixels() -> None:
    pixels = torch.zeros(2, 24, 32, 3, dtype=torch.uint8)
    images = Images(pixels, torch.tensor([0, 1]), 255.0, ("cat", "dog", "ship"), "x", "train")
    assert images.task == ImageTask(classes=3, channels=3, height=24, width=32)

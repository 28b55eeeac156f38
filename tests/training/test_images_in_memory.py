"""A run on arrays of any shape: trained, attacked, exported, without a file of images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rkdsearch import config as configs
from rkdsearch.data import load_training, splits_of
from rkdsearch.errors import ConfigError, DataError
from rkdsearch.exporting.trial import export_trial
from rkdsearch.models import ModelConfig, normalisation
from rkdsearch.task import ImageTask
from rkdsearch.teacher import load
from rkdsearch.training.run import single_run
from rkdsearch.training.trainer import Trainer

VALUES = {
    "method.name": "trades",
    "data": {"name": "arrays", "validation_fraction": 0.2, "augment": "crop_flip"},
    "student": {"name": "small_cnn", "width": 4, "mean": [0.3], "std": [0.2]},
    "attack": {"eps": 0.1, "steps": 2},
    "validation": {"attack": {"eps": 0.1, "steps": 2}},
    "training": {"epochs": 1, "batch_size": 20, "device": "cpu"},
}


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Five classes of 40 x 24 grey images, whose brightness tells the class."""
    noise = np.random.default_rng(0).integers(0, 40, size=(50, 40, 24))
    labels = np.arange(50) % 5
    return (noise + 40 * labels[:, None, None]).astype(np.uint8), labels


def test_arrays_of_five_classes_and_40_by_24_pixels_are_trained_on_and_exported(
    tmp_path: Path,
) -> None:
    config = configs.build(VALUES)
    splits = splits_of(config.data, arrays(), classes=list("abcde"))
    (epoch,) = single_run(Trainer(config, tmp_path / "run", splits=splits))
    assert epoch.images == 10
    export_trial(tmp_path / "run", "run", tmp_path / "run" / "best.safetensors", tmp_path / "out")
    file, task = tmp_path / "out" / "student.safetensors", ImageTask(5, 1, 40, 24)
    # as a teacher, without a word on its width and normalisation
    teacher = load(file, ModelConfig(name="small_cnn"), task)
    assert normalisation(teacher) is not None
    x, _ = splits.validation.floats()
    with torch.no_grad():
        expected = load(tmp_path / "run" / "best.safetensors", config.student, task)(x)
        assert torch.equal(teacher(x), expected)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "1 x 40 x 24 (channels, height, width) pixels" in card
    assert "in this order: a, b, c, d, e" in card


def test_images_that_are_given_and_the_name_in_the_config_must_agree() -> None:
    config = configs.build(VALUES)
    splits = splits_of(config.data, arrays())
    digits = configs.build({**VALUES, "data": {"name": "digits"}})
    with pytest.raises(
        ConfigError, match=r"data\.name must be 'arrays' where the images are given"
    ):
        Trainer(digits, splits=splits)
    with pytest.raises(DataError, match=r"give them as Trainer\(config, splits="):
        load_training(config.data)

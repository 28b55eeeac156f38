"""The student of a run, with fresh weights."""

from torch import nn

from rkdsearch import data, models
from rkdsearch.config import TrainConfig
from rkdsearch.errors import ConfigError


def build_student(config: TrainConfig, images: data.Images) -> nn.Module:
    """The student for images like these, with weights from the global generator.

    Raises ConfigError where it cannot be trained as the config says.
    """
    try:
        student = models.build(config.student, images.task)
    except ConfigError as error:
        raise ConfigError(f"student: {error}") from error
    if config.training.channels_last:
        models.check_channels_last(config.student, student, images.task)
    config.method.check_student(student)
    return student


def try_student(config: TrainConfig) -> None:
    """Check the student before its teachers are trained. Raises as `build_student` does."""
    build_student(config, data.load_training(config.data).train)

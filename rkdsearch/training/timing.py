"""A short timing of a run on this machine, before any of it is trained."""

import math
import time
from dataclasses import replace
from itertools import islice

from rkdsearch import data
from rkdsearch.config import TrainConfig
from rkdsearch.data.splits import select, stratified_subset
from rkdsearch.training.accelerator import accelerator_for
from rkdsearch.training.epoch import EpochResult
from rkdsearch.training.trainer import Trainer

FEW = 32  # images of the first timing; each further one has four times as many
ENOUGH_SECONDS = 2.0


def expected_seconds(config: TrainConfig) -> float | None:
    """Seconds that the run will take, by short runs on more and more of its images.

    None for a run of several processes. Nothing is kept.
    """
    if accelerator_for(config).num_processes > 1:
        return None
    splits, epochs = data.load_training(config.data), config.training.epochs
    validated = min(config.validation.images or len(splits.validation), len(splits.validation))
    images = min(max(FEW, len(splits.train.classes)), len(splits.train))
    while True:
        started = time.perf_counter()
        epoch = _second_epoch(config, splits, images, min(images, validated))
        if images == len(splits.train) or time.perf_counter() - started > ENOUGH_SECONDS:
            break
        images = min(4 * images, len(splits.train))
    seconds_per_image = 1 / epoch.images_per_second
    training = seconds_per_image * len(splits.train)
    validation = (epoch.seconds - images * seconds_per_image) * validated / min(images, validated)
    return epochs * training + math.ceil(epochs / config.validation.every) * validation


def _second_epoch(
    config: TrainConfig, splits: data.Splits, images: int, validated: int
) -> EpochResult:
    """The second of three epochs on so few images.

    The first one warms the device up; the last one of a run has the checks behind its flags too.
    The images are chosen here: the data section with another number of them would be read anew.
    """
    batch = min(config.training.batch_size, images)
    chosen = stratified_subset(
        splits.train.labels.numpy(), images, seed=0, field="data.train_images"
    )
    few = {
        "training": config.training.model_copy(update={"epochs": 3, "batch_size": batch}),
        "validation": config.validation.model_copy(update={"images": validated, "every": 1}),
    }
    few_images = replace(splits, train=select(splits.train, chosen, "train"))
    _, epoch = islice(Trainer(config.model_copy(update=few), splits=few_images).epochs(), 2)
    return epoch

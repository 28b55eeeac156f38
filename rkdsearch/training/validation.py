"""Validation: a run's network on validation images, and its best epoch so far."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rkdsearch import data, flags, models
from rkdsearch.accuracy import ImageResults, TeacherReliability, evaluate_accuracy
from rkdsearch.config import TrainConfig, ValidationConfig
from rkdsearch.data.splits import stratified_subset
from rkdsearch.results.rows import Checks
from rkdsearch.training.epoch import Best, EpochResult
from rkdsearch.training.precision import WEIGHT_DTYPES

# One seed for all: every epoch of every trial meets the same random starts.
VALIDATION_SEED = 20_210_600


class Validator:
    """The validation attack of one run, on the validation images that its fidelities ask for.

    Raises DataError where a fidelity asks for an impossible number of images.
    """

    def __init__(
        self,
        config: TrainConfig,
        splits: data.Splits,
        accelerator: Accelerator,
        teacher: nn.Module | None,
        counts: Iterable[int | None],
    ) -> None:
        self._config = config
        self._splits = splits
        self._accelerator = accelerator
        self._teacher = teacher
        self._images: dict[int | None, tuple[data.FloatImages, Tensor]] = {}
        for count in counts:  # all are drawn before any training
            self.images(count)

    def images(self, count: int | None) -> tuple[data.FloatImages, Tensor]:
        """`count` validation images of all classes, all images for None; and their labels (N,).

        A file's first images may be of one class. Images are laid out channels last, as bytes are.
        """
        if count not in self._images:
            validation, device = self._splits.validation, self._accelerator.device
            rows = stratified_subset(
                validation.labels.numpy(),
                count,
                seed=self._config.data.split_seed,
                field="validation.images",
            )
            chosen = validation.take(torch.from_numpy(rows)).to(device)
            training = self._config.training
            x = data.FloatImages(
                chosen, device, WEIGHT_DTYPES[training.precision], training.channels_last
            )
            self._images[count] = x, chosen.labels.to(device)
        return self._images[count]

    def evaluate(
        self, network: nn.Module, protocol: ValidationConfig
    ) -> tuple[ImageResults, TeacherReliability | None]:
        """Results of `network` (eval mode) by this protocol, shared out over all processes."""
        x, y = self.images(protocol.images)
        attack, accelerator = protocol.attack, self._accelerator
        processes = accelerator.num_processes
        return evaluate_accuracy(
            models.fold(network),
            x,
            y,
            attack.build(),
            restarts=attack.restarts,
            seed=VALIDATION_SEED,
            teacher=self._teacher,
            rank=accelerator.process_index,
            processes=processes,
            sum_over_processes=lambda counts: (
                accelerator.reduce(counts) if processes > 1 else counts
            ),
        )

    def check(self, network: nn.Module) -> Checks:
        """The checks behind flags, of `network` (eval mode) under the full validation attack.

        On at most `flags.IMAGES` of the validation images; this process does them alone.
        """
        everything, labels = self.images(self._config.validation.images)
        some = flags.spread(len(labels))
        # memory-mapped images stay on the CPU, and are chosen there
        here = some.to(everything.images.labels.device)
        x, _ = everything.images.floats(here, device=labels.device, dtype=everything.dtype)
        x = data.to_layout(x, channels_last=everything.channels_last)
        attack = self._config.validation.attack.build()
        return flags.check(models.fold(network), x, labels[some.to(labels.device)], attack).counts


def with_validation(
    result: EpochResult,
    images: ImageResults,
    reliability: TeacherReliability | None,
    *,
    select: str,
    attack_steps: int,
) -> EpochResult:
    """`result` with its accuracies and the best epoch so far, the earliest of equal epochs."""
    best = Best(
        result.epoch,
        images.clean_accuracy,
        images.robust_accuracy,
        images.worst_class_accuracy,
        images.by_class,
    )
    if result.best is not None and result.best.selection_score(select) >= best.selection_score(
        select
    ):
        best = result.best
    return replace(
        result,
        clean_accuracy=images.clean_accuracy,
        robust_accuracy=images.robust_accuracy,
        worst_class_accuracy=images.worst_class_accuracy,
        by_class=images.by_class,
        reliability=reliability,
        best=best,
        robust_peak=max(result.robust_peak or 0.0, images.robust_accuracy),
        images=len(images.y),
        validation_attack_steps=attack_steps,
    )

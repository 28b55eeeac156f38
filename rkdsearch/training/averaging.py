"""Averages of the student's weights: EMA after every step, SWA after every epoch.

SWA: Izmailov et al., UAI 2018, https://arxiv.org/abs/1803.05407.

The average lives outside the training objective, so that nothing broadcasts or trains it.
BatchNorm statistics are not averaged: they are re-estimated on clean training images before the
average is validated or saved, as Chen et al. (ICLR 2021) do.
"""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rkdsearch.config import AveragingConfig


class Average:
    """The averaged network, which is validated and delivered in place of the student."""

    def __init__(self, config: AveragingConfig, student: nn.Module, epochs: int) -> None:
        self.network = copy.deepcopy(student).requires_grad_(False)
        self._config = config
        # At least the last two epochs: the average of one is no average.
        self._first = (
            max(0, min(round(config.start * epochs), epochs - 2)) if config.name == "swa" else 0
        )
        self.count = 0

    def after_step(self, student: nn.Module) -> None:
        """EMA: move towards the student by 1 - decay.

        The first steps take the plain mean, so that the initial weights fade.
        """
        if self._config.name == "ema":
            self.count += 1
            self._move(student, max(1 - self._config.decay, 1 / self.count))

    @torch.no_grad()
    def after_epoch(self, student: nn.Module, epoch: int) -> None:
        """SWA: the mean of all epochs since the first averaged one; before it, the student.

        What is no weight is the student's own, such as the statistics of an InstanceNorm; those of
        BatchNorm are estimated anew (`reestimate_batchnorm`).
        """
        for mine, theirs in zip(self.network.buffers(), student.buffers(), strict=True):
            mine.copy_(theirs)
        if self._config.name == "swa":
            self.count = max(0, epoch - self._first) + 1
            self._move(student, 1 / self.count)

    @torch.no_grad()
    def _move(self, student: nn.Module, share: float) -> None:
        # One call for all weights, because an EMA moves after every step.
        torch._foreach_lerp_(list(self.network.parameters()), list(student.parameters()), share)

    @torch.no_grad()
    def reestimate_batchnorm(self, images: Iterable[Tensor]) -> None:
        """Estimate the statistics anew, by one pass of clean images with a cumulative mean.

        `images` yields batches (n, C, H, W). Without BatchNorm no batch is read.
        """
        parent = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - torch names no public parent
        norms = [m for m in self.network.modules() if isinstance(m, parent)]
        if not norms:
            return
        momenta = [m.momentum for m in norms]
        for norm in norms:
            norm.reset_running_stats()
        self.network.train()
        for count, x in enumerate(images, start=1):
            for norm in norms:
                # A cumulative mean; `None` gives the same but waits for the device in each layer.
                norm.momentum = 1 / count
            self.network(x)
        self.network.eval()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

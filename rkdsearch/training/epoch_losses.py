"""Losses of one epoch: kept on the device while it runs, averaged and checked at its end."""

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import Tensor


class EpochLosses:
    """Detached loss and terms (0-d) of every batch of one epoch, on one of the processes."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._losses: list[Tensor] = []
        self._terms: dict[str, list[Tensor]] = {}

    def add(self, loss: Tensor, terms: dict[str, Tensor]) -> None:
        """Keep the loss and terms of a batch, without waiting for the device."""
        self._losses.append(loss)
        for name, value in terms.items():
            self._terms.setdefault(name, []).append(value)

    def means(self) -> tuple[float, dict[str, float]]:
        """Loss and terms of the epoch, as means over its batches and over all processes."""
        names = sorted(self._terms)
        means = torch.stack(
            [
                torch.stack(values).double().mean()
                for values in (self._losses, *(self._terms[name] for name in names))
            ]
        )
        if self._accelerator.num_processes > 1:
            means = self._accelerator.reduce(means, "mean")
        loss, *values = means.tolist()
        return loss, dict(zip(names, values, strict=True))

    def non_finite(self, weights: Iterable[Tensor]) -> str | None:
        """The first batch whose loss is not finite, or the last batch where a weight is not finite.

        A text such as `batch 3: the loss is nan`, on every process alike; None where all are
        finite.
        """
        losses = torch.stack(self._losses)
        finite = torch.stack([weight.detach().isfinite().all() for weight in weights]).all()
        bad = torch.cat([losses.isfinite().logical_not(), finite.logical_not()[None]]).int()
        if self._accelerator.num_processes > 1:
            bad = self._accelerator.reduce(bad, "sum")
        found = bad.nonzero().flatten().tolist()
        if not found:
            return None
        batch = min(found[0], len(losses) - 1)
        if found[0] == len(losses):
            fault = "the weights are not finite after its step"
        elif losses[batch].isfinite():
            fault = "the loss of another process is not finite"
        else:
            fault = f"the loss is {float(losses[batch])}"
        return f"batch {batch + 1}: {fault}"

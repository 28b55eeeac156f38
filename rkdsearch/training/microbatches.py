"""Microbatches: one optimizer step over a batch in parts, where the device cannot hold it whole.

The gradient is the whole batch's wherever the loss couples images only by a mean. BatchNorm takes
each part's statistics, and updates its running statistics once a part. A method whose loss couples
the batch (crdnd's relations, saad, ciard, dgad's short batches) couples the part. The loss weights
of mtard and bmtard follow one batch later.
"""

from dataclasses import replace

import torch
from torch import Tensor

from rkdsearch.data import Batch


def parts(batch: Batch, count: int) -> list[tuple[Batch, float]]:
    """The batch in at most `count` parts, each with its share of the images, a fraction of 1.

    No part has a single image, unless the batch has: BatchNorm needs two.
    """
    n = len(batch.y)
    count = max(1, min(count, n // 2))
    if count == 1:
        return [(batch, 1.0)]
    rows = torch.arange(n, device=batch.y.device).tensor_split(count)
    return [
        (replace(batch, x=batch.x[r], y=batch.y[r], index=batch.index[r]), len(r) / n) for r in rows
    ]


def together(
    found: list[tuple[float, Tensor, dict[str, Tensor]]],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and terms of a batch, from the shares, losses and terms of its parts."""
    if len(found) == 1:
        return found[0][1:]
    names = {name for _, _, terms in found for name in terms}
    loss = torch.stack([share * loss for share, loss, _ in found]).sum()
    return loss, {
        name: torch.stack([share * terms[name] for share, _, terms in found if name in terms]).sum()
        for name in names
    }

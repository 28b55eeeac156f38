"""`training.microbatches`: a batch that is too large for the device goes through it in parts, for one step of the optimizer.

The gradient is the whole batch's wherever images meet only in a mean. BatchNorm takes each part's
statistics, and moves its running ones once a part; a method whose loss couples the batch (crdnd's
relations, saad, ciard, dgad's short batches) couples the part, and mtard's and bmtard's weights
follow one batch later.
"""

from dataclasses import replace

import torch
from torch import Tensor

from rkdsearch.data import Batch


def parts(batch: Batch, count: int) -> list[tuple[Batch, float]]:
    """The batch in `count` parts, each with its share of the images; in fewer where a part would have a single one, for BatchNorm's sake."""
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
    """Loss and terms of a batch, of its parts' shares, losses and terms."""
    if len(found) == 1:
        return found[0][1:]
    names = {name for _, _, terms in found for name in terms}
    loss = torch.stack([share * loss for share, loss, _ in found]).sum()
    return loss, {
        name: torch.stack([share * terms[name] for share, _, terms in found if name in terms]).sum()
        for name in names
    }

"""The weights of MTARD and B-MTARD: of two losses, the one that has fallen less gets more weight."""

import torch
from torch import Tensor

from rkdsearch.methods.base import Step


def balance(
    step: Step, adversarial: Tensor, natural: Tensor, *, rate: float, exponent: float = 1.0
) -> Tensor:
    """(2,) weights [adversarial, natural] that sum to 1, moved once a batch by its losses (N,) and kept in the step's memory.

    r_k = (L_k / first L_k) ** exponent;  w_k <- w_k - rate (w_k - r_k / sum r), with the losses of the whole batch, over all processes.
    A convex combination: with rate <= 1 no weight leaves [0, 1], and B-MTARD's floor and renormalisation have nothing to do.
    A batch in parts meets the weights that the batch before it left: its own losses are known when its first parts have gone backward.
    """
    part = step.across(torch.stack([adversarial, natural], dim=1).detach()).mean(dim=0)
    weights = step.memory.get("weights", torch.full_like(part, 0.5))
    losses = step.over_parts("losses", part)
    if losses is None:
        return weights
    losses = losses.clamp_min(torch.finfo(losses.dtype).tiny)
    first = step.memory.setdefault("first_losses", losses)
    # r / sum r, which no underflow turns into 0 / 0
    target = (exponent * (losses.log() - first.log())).softmax(dim=0)
    step.memory["weights"] = moved = weights - rate * step.lr_factor * (weights - target)
    return moved if step.share == 1 else weights

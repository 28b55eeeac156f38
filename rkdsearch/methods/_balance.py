"""The weights of MTARD and B-MTARD: the loss that has fallen less gets more weight."""

import torch
from torch import Tensor

from rkdsearch.methods import Step


def balance(
    step: Step, adversarial: Tensor, natural: Tensor, *, rate: float, exponent: float = 1.0
) -> Tensor:
    """The weights (2,) [adversarial, natural], of sum 1, moved once a batch by its losses (N,).

    r_k = (L_k / first L_k) ** exponent;  w_k <- w_k - rate (w_k - r_k / sum r)

    The losses are the whole batch's, over all processes; the step's memory keeps the weights. With
    rate <= 1 no weight leaves [0, 1], so B-MTARD's floor and renormalisation have no effect. A
    batch in parts uses the weights that the previous batch left: its own losses are known only
    after the backward pass of its first parts.
    """
    weights = step.memory.get("weights", adversarial.new_full((2,), 0.5))
    losses = step.batch_mean("losses", torch.stack([adversarial, natural], dim=1))
    if losses is None:
        return weights
    losses = losses.clamp_min(torch.finfo(losses.dtype).tiny)
    first = step.memory.setdefault("first_losses", losses)
    # r / sum r, which no underflow turns into 0 / 0
    target = (exponent * (losses.log() - first.log())).softmax(dim=0)
    step.memory["weights"] = moved = weights - rate * step.lr_factor * (weights - target)
    return moved if step.share == 1 else weights

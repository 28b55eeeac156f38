"""Objectives of a validation attack, as functions of logits, with their slopes in closed form.

Logits z (N, K), labels y (N,), K >= 2; values (N,), slopes (N, K). A slope points along the
gradient of its value and may be longer or shorter by one positive factor per image: steepest
ascent (`Ball.direction`) does not see that factor, and without it a slope cannot vanish in fp32.
Each docstring below says where such a factor is left out.

All but `cross_entropy` are invariant: a z + b with any a > 0 and b has the same slope directions.
The package has the two that were chosen, "margin" and "soft others 6"
(`rkdsearch/attacks/margin.py`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from rkdsearch import losses
from rkdsearch.attacks import LogitLoss
from rkdsearch.losses import probabilities

Values = Callable[[Tensor, Tensor], Tensor]  # logits (N, K), labels (N,) to (N,)
Slopes = Callable[[Tensor, Tensor], Tensor]  # the same to (N, K)
Spread = Literal["range", "deviation", "first_third", "margin", "others"]


@dataclass(frozen=True)
class LogitFunction:
    """A function of logits and labels that an attack maximises, and its slope."""

    value: Values
    slope: Slopes

    def loss(self, y: Tensor) -> LogitLoss:
        """The package's loss for these labels; its gradient is the slope."""
        return LogitLoss(lambda z: self.value(z, y), lambda z: self.slope(z, y))


def cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """-log p(y)."""
    return losses.cross_entropy(z, y)


def cross_entropy_slope(z: Tensor, y: Tensor) -> Tensor:
    """p - e_y: exactly 0 in fp32 where the label's logit leads by more than 104."""
    return _minus_label(probabilities(z), y)


def margin(z: Tensor, y: Tensor) -> Tensor:
    """max_{k != y} z_k - z_y: positive where misclassified (Carlini & Wagner, 2017)."""
    return _others(z, y).amax(dim=1) - _own(z, y)


def margin_slope(z: Tensor, y: Tensor) -> Tensor:
    """e_j - e_y, j the strongest other class."""
    return _minus_label(_one_hot(_others(z, y).argmax(dim=1), z), y)


def dlr(z: Tensor, y: Tensor) -> Tensor:
    """The margin over z_(1) - z_(3), the largest and third largest logit (Croce & Hein, 2020).

    K = 2: the margin.
    """
    if z.shape[1] < 3:
        return margin(z, y)
    top = z.topk(3, dim=1).values
    return margin(z, y) / _nonzero(top[:, 0] - top[:, 2])


def dlr_slope(z: Tensor, y: Tensor) -> Tensor:
    """(e_j - e_y) - dlr (e_(1) - e_(3)): the gradient times z_(1) - z_(3).

    K = 3: 0 where the label's logit is the smallest, and the image misclassified already.
    """
    if z.shape[1] < 3:
        return margin_slope(z, y)
    top = z.topk(3, dim=1).indices
    spread = _one_hot(top[:, 0], z) - _one_hot(top[:, 2], z)
    return margin_slope(z, y) - dlr(z, y)[:, None] * spread


def soft_margin(z: Tensor, y: Tensor, *, spread: Spread, sharpness: float) -> Tensor:
    """s logsumexp_{k != y}(z_k / s) - z_y, s = spread(z) / sharpness without gradient.

    The margin in which every other class counts by its distance from the strongest. Along the same
    directions as the cross-entropy of z / s, -log p(y) = log(1 + exp(value / s)), whose gradient
    has the factor (1 - p(y)) / s: it underflows, and is left out. K = 2, and the limit of infinite
    sharpness: `margin`.
    """
    s = (_spread(z, y, spread) / sharpness)[:, None]
    others = _others(z, y)
    strongest = others.amax(dim=1, keepdim=True)
    # Differences before quotients: z / s rounds them away where all logits are large.
    soft = torch.logsumexp((others - strongest) / s, dim=1, keepdim=True) * s
    return (soft + strongest).squeeze(1) - _own(z, y)


def soft_margin_slope(z: Tensor, y: Tensor, *, spread: Spread, sharpness: float) -> Tensor:
    """q - e_y, q = softmax of z / s over the classes other than y; never small as a whole."""
    s = (_spread(z, y, spread) / sharpness)[:, None]
    others = _others(z, y)
    return _minus_label(probabilities((others - others.amax(dim=1, keepdim=True)) / s), y)


def attached_slope(z: Tensor, y: Tensor, *, spread: Spread, sharpness: float) -> Tensor:
    """Direction of the gradient of CE(sharpness z / spread(z), y), the spread's gradient included.

    g - <g, z> dspread/dz / spread, g the soft margin's slope. K = 2: 0 everywhere.
    """
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        s = _spread(leaf, y, spread)
    (ds,) = torch.autograd.grad(s.sum(), leaf)
    s = s.detach()[:, None]
    centred = z - z.amax(dim=1, keepdim=True)
    g = soft_margin_slope(z, y, spread=spread, sharpness=sharpness)
    return g - (g * centred / s).sum(dim=1, keepdim=True) * ds


def own_logit(z: Tensor, y: Tensor) -> Tensor:
    """mean_k z_k - z_y: the label's logit falls (one half of Ma et al.'s MD attack, 2020)."""
    return z.mean(dim=1) - _own(z, y)


def own_logit_slope(z: Tensor, y: Tensor) -> Tensor:
    """1 / K - e_y."""
    return _minus_label(torch.full_like(z, 1 / z.shape[1]), y)


def objectives() -> Mapping[str, LogitFunction]:
    """Every candidate, by the name that the tables print."""
    found = {
        "cross-entropy": LogitFunction(cross_entropy, cross_entropy_slope),
        "margin": LogitFunction(margin, margin_slope),
        "dlr": LogitFunction(dlr, dlr_slope),
        "own logit": LogitFunction(own_logit, own_logit_slope),
    }
    sharpnesses: Mapping[Spread, tuple[float, ...]] = {
        "range": (5, 10, 20, 40),
        "deviation": (2, 4, 8, 16),
        "first_third": (2, 4, 8),
        "margin": (1, 2, 4),
        "others": (3, 6, 12),
    }
    for spread, values in sharpnesses.items():
        for value in values:
            soft = partial(soft_margin, spread=spread, sharpness=value)
            found[f"soft {spread} {value:g}"] = LogitFunction(
                soft, partial(soft_margin_slope, spread=spread, sharpness=value)
            )
            if spread in ("range", "deviation", "first_third") and value in (4, 10):
                found[f"soft {spread} {value:g}, attached"] = LogitFunction(
                    soft, partial(attached_slope, spread=spread, sharpness=value)
                )
    return found


def _spread(z: Tensor, y: Tensor, name: Spread) -> Tensor:
    """(N,) positive numbers, proportional to the scale of the logits and blind to their offset."""
    match name:
        case "range":
            return _range(z)
        case "deviation":
            # Of z / range: squares of 1e25 or 1e-25 are no numbers of fp32.
            wide = _range(z).detach()
            return _nonzero((z / wide[:, None]).std(dim=1, correction=0) * wide)
        case "first_third":
            top = z.topk(min(3, z.shape[1]), dim=1).values
            return _nonzero(top[:, 0] - top[:, -1])
        case "margin":
            return _nonzero(margin(z, y).abs())
        case "others":  # the strongest other class above their median: no outlier moves it
            ranks = _others(z, y).sort(dim=1, descending=True).values
            return _nonzero(ranks[:, 0] - ranks[:, (z.shape[1] - 1) // 2])


def _range(z: Tensor) -> Tensor:
    return _nonzero(z.amax(dim=1) - z.amin(dim=1))


def _nonzero(s: Tensor) -> Tensor:
    return s.clamp_min(torch.finfo(s.dtype).tiny)


def _own(z: Tensor, y: Tensor) -> Tensor:
    return z.gather(1, y[:, None]).squeeze(1)


def _others(z: Tensor, y: Tensor) -> Tensor:
    """The logits, with -inf in the label's place."""
    return z.scatter(1, y[:, None], -torch.inf)


def _one_hot(k: Tensor, z: Tensor) -> Tensor:
    return torch.zeros_like(z).scatter_(1, k[:, None], 1)


def _minus_label(q: Tensor, y: Tensor) -> Tensor:
    """q - e_y, (N, K). Overwrites q."""
    return q.scatter_add_(1, y[:, None], q.new_full((len(y), 1), -1))

"""The margin attack: projected gradient ascent that the scale of the logits cannot weaken.

    first half    J = s logsumexp_{k != y}((z_k - m) / s) + m - z_y,   m = max_{k != y} z_k
                  s = (m - median_{k != y} z_k) / 6, without gradient
    second half   J = m - z_y
    step k of n   eps (1 + cos(pi k / n)) / 2, from a uniform start in the ball

The gradient of cross-entropy vanishes in fp32 where logits are large, and a network then looks
robust that is not. These gradients have the same sign pattern for a z + b with any a > 0 and any b,
and no change of the winning logit alters them. The first half is the direction of the
cross-entropy of z / s, without the factor that vanishes; the second half is Carlini and Wagner's
margin (2017, https://arxiv.org/abs/1608.04644). With K = 2 both halves are the margin.

Chosen by measurement among 40 attacks of equal cost (docs/adr/0014-...; analysis/benchmarks/
validation_attack.py): at 10 steps 1.8 points above AutoAttack on average, where PGD on the
cross-entropy is 5.8 above.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rkdsearch.attacks.balls import Ball
from rkdsearch.attacks.objectives import LogitLoss, Network, finite_gradient_of
from rkdsearch.attacks.pgd import Noise

SHARPNESS = 6.0  # the spread of the other logits, in units of the softmax's temperature


@dataclass(frozen=True)
class MarginAttack:
    """The margin attack of so many `steps` in a `ball`."""

    ball: Ball
    steps: int

    def start(self, x: Tensor, noise: Noise) -> Tensor:
        """x_0, in new memory: uniform noise in the ball, within [0, 1]."""
        return (x + self.ball.random_perturbation(noise.uniform(x))).clamp(0, 1)

    def step_size(self, step: int) -> float:
        """Length of step number `step`, from 0: from eps to near 0, in pixels of [0, 1]."""
        return self.ball.eps * (1 + math.cos(math.pi * step / self.steps)) / 2

    def climb(self, network: Network, y: Tensor, x: Tensor, x_adv: Tensor) -> Tensor:
        """x' for images x (N, C, H, W) with labels y (N,), from `x_adv`; detached.

        Computes no parameter's gradient.
        """
        first_half = (self.steps + 1) // 2
        soft, hard = (finite_gradient_of(loss(y).of(network), x) for loss in (soft_margin, margin))
        project = self.ball.projection_around(x)
        x_adv = x_adv.detach().clone()
        for step in range(self.steps):
            gradient = soft if step < first_half else hard
            uphill = self.ball.direction(gradient(x_adv))
            x_adv = project(x_adv.add_(uphill, alpha=self.step_size(step)))
        return x_adv.detach()


def margin(y: Tensor) -> LogitLoss:
    """max_{k != y} z_k - z_y, (N,): positive where the image is misclassified."""

    def value(z: Tensor) -> Tensor:
        return _others(z, y).amax(dim=1) - _own(z, y)

    def gradient(z: Tensor) -> Tensor:
        strongest = _others(z, y).argmax(dim=1, keepdim=True)
        return _minus_label(torch.zeros_like(z).scatter_(1, strongest, 1), y)

    return LogitLoss(value, gradient)


def soft_margin(y: Tensor) -> LogitLoss:
    """The margin in which every other class counts by its distance from the strongest, (N,)."""

    def relative(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The other logits below the strongest, in units of s; s and the strongest, (N, 1)."""
        ranked = _others(z, y).sort(dim=1, descending=True).values
        strongest, median = ranked[:, :1], ranked[:, (z.shape[1] - 1) // 2, None]
        s = (strongest - median).clamp_min(torch.finfo(z.dtype).tiny) / SHARPNESS
        # Differences before quotients: z / s would round them away where all logits are large.
        return (_others(z, y) - strongest) / s, s, strongest

    def value(z: Tensor) -> Tensor:
        below, s, strongest = relative(z)
        return (s * below.logsumexp(dim=1, keepdim=True) + strongest).squeeze(1) - _own(z, y)

    def gradient(z: Tensor) -> Tensor:
        return _minus_label(relative(z)[0].softmax(dim=1), y)

    return LogitLoss(value, gradient)


def _own(z: Tensor, y: Tensor) -> Tensor:
    return z.gather(1, y[:, None]).squeeze(1)


def _others(z: Tensor, y: Tensor) -> Tensor:
    """The logits, with -inf in the label's place."""
    return z.scatter(1, y[:, None], -torch.inf)


def _minus_label(q: Tensor, y: Tensor) -> Tensor:
    """q - one_hot(y), (N, K). Overwrites q."""
    return q.scatter_add_(1, y[:, None], q.new_full((len(y), 1), -1))

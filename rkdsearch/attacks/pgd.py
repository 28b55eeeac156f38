"""Projected gradient ascent: the one loop behind every training attack (Madry et al., ICLR 2018, https://arxiv.org/abs/1706.06083).

    x_0     = x + noise
    x_{k+1} = project(x_k + step_size * direction(dJ/dx_k))

What differs between papers is J, the start, and the student's BatchNorm mode: J is a function of
images that returns (N,), the start is a value of `Attack`, the mode is the business of
`Step.maximize`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from rkdsearch.attacks.balls import Ball, Projection
from rkdsearch.models import Gradient, Slope

# images (N, C, H, W) to (N,); the next step writes over the images: clone what is kept
Objective = Callable[[Tensor], Tensor]
Start = Literal["uniform", "uniform_clipped", "gaussian", "none"]

GAUSSIAN_SCALE = 0.001  # pixels: the start of TRADES, and of all that copied it


class Network(Protocol):
    """Images (N, C, H, W) in, logits (N, K) out; and what an attack asks of it."""

    def __call__(self, x: Tensor) -> Tensor:
        """Logits."""
        ...

    def closed_form_gradient(self, slope: Slope, x: Tensor) -> Gradient | None:
        """x' to dJ/dx' for images shaped like `x`, where that is faster than autograd; `slope` turns logits into dJ/dlogits."""
        ...


@dataclass(frozen=True)
class OfLogits:
    """J(x') = value(network(x')), where dJ/dlogits is written down: an ascent step then costs the network's forward and backward alone.

    `value` maps logits (N, K) to (N,), `slope` to (N, K): the gradient of the values' sum, which
    need not have a gradient itself.
    """

    network: Network
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """J, (N,)."""
        return self.value(self.network(x))


@dataclass(frozen=True)
class Noise:
    """Random numbers for a batch that several processes share.

    Every process draws the numbers of the whole batch and keeps its slice, so that N processes see
    what one would, if the batch is not cut in parts (`training.microbatches`): each process cuts
    its own share, and the parts of one are not the parts of N.
    """

    generator: torch.Generator
    rank: int = 0
    processes: int = 1

    def uniform(self, like: Tensor) -> Tensor:
        """(N, C, H, W) numbers of [-1, 1)."""
        return self._slice(torch.rand, like) * 2 - 1

    def normal(self, like: Tensor) -> Tensor:
        """(N, C, H, W) standard normal numbers."""
        return self._slice(torch.randn, like)

    def _slice(self, draw: Callable[..., Tensor], like: Tensor) -> Tensor:
        n = len(like)
        shape = (n * self.processes, *like.shape[1:])
        return draw(shape, generator=self.generator, dtype=like.dtype, device=like.device)[
            n * self.rank : n * (self.rank + 1)
        ]


@dataclass(frozen=True)
class Attack:
    """How x' is searched for: a ball, a number of steps, a step size (pixels of [0, 1]) and a start."""

    ball: Ball
    steps: int
    step_size: float
    initial: Start = "uniform_clipped"

    def start(self, x: Tensor, noise: Noise) -> Tensor:
        """x_0, in new memory: uniform noise in the ball, 0.001 of Gaussian noise, or x. Only `uniform_clipped` is clamped to [0, 1] already."""
        match self.initial:
            case "none":
                return x.clone()
            case "gaussian":
                return x + GAUSSIAN_SCALE * noise.normal(x)
            case "uniform":
                return x + self.ball.fill(noise.uniform(x))
            case "uniform_clipped":
                return (x + self.ball.fill(noise.uniform(x))).clamp(0, 1)

    def ascend(self, x_adv: Tensor, gradient: Tensor) -> Tensor:
        """One step uphill, not yet projected; `x_adv` is written over."""
        return x_adv.add_(self.ball.direction(gradient), alpha=self.step_size)

    def around(self, x: Tensor) -> Projection:
        """What takes x' back into the ball around `x`, then into [0, 1]; it may write over x'."""
        return self.ball.around(x)

    def maximize(self, objective: Objective, x: Tensor, noise: Noise) -> Tensor:
        """x' = argmax of `objective` over the ball around `x`, detached; `objective` maps images to (N,), its sum is climbed."""
        return self.climb(objective, x, self.start(x, noise))

    def climb(self, objective: Objective, x: Tensor, x_adv: Tensor) -> Tensor:
        """The same from `x_adv`."""
        gradient, project = gradient_of(objective, x), self.around(x)
        # every step writes over it: what it lies in is still near the processor
        x_adv = x_adv.detach().clone()
        for _ in range(self.steps):
            x_adv = project(self.ascend(x_adv, gradient(x_adv)))
        return x_adv.detach()


def gradient_of(objective: Objective, x: Tensor) -> Gradient:
    """x' to d(sum of objective)/dx', for images shaped like `x`. No parameter's gradient is computed, no DDP hook fires."""
    if not isinstance(objective, OfLogits):
        return lambda x_adv: _by_autograd(objective, torch.ones_like, x_adv)
    network, slope = objective.network, objective.slope
    return network.closed_form_gradient(slope, x) or (
        lambda x_adv: _by_autograd(network, slope, x_adv)
    )


def input_gradient(objective: Objective, x: Tensor) -> Tensor:
    """d(sum of objective)/dx, of x's shape."""
    return gradient_of(objective, x)(x)


def _by_autograd(function: Callable[[Tensor], Tensor], slope: Slope, x: Tensor) -> Tensor:
    """dJ/dx, of x's shape, where `slope` turns the function's answer into dJ/danswer."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        answer = function(x)
    (gradient,) = torch.autograd.grad(answer, x, slope(answer.detach()).to(answer.dtype))
    return gradient

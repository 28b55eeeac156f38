"""Projected gradient ascent (PGD), the loop of training attacks.

Madry et al., ICLR 2018, https://arxiv.org/abs/1706.06083.

    x_0     = x + noise
    x_{k+1} = project(x_k + step_size * direction(dJ/dx_k))

Papers differ in J, in the start and in the student's BatchNorm mode. J is an `AttackObjective`, the
start a field of `Attack`; `Step.maximize` sets the mode.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rkdsearch.attacks.balls import Ball, Projection
from rkdsearch.attacks.objectives import AttackObjective, gradient_of
from rkdsearch.models import Gradient

Start = Literal["uniform", "uniform_clipped", "gaussian", "none"]

GAUSSIAN_SCALE = 0.001  # pixels: the start of TRADES, copied by most later papers


@dataclass(frozen=True)
class Noise:
    """Random numbers for a batch that several processes share.

    Every process draws the numbers of the whole batch and keeps its slice. N processes then see the
    same noise as one, unless `training.microbatches` cuts the batch: each process cuts its own
    share, so the parts of one process are not the parts of N.
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
    """The search for x': a ball, a number of steps, a step size (pixels of [0, 1]) and a start."""

    ball: Ball
    steps: int
    step_size: float
    initial: Start = "uniform_clipped"

    def start(self, x: Tensor, noise: Noise) -> Tensor:
        """x_0, in new memory: uniform noise in the ball, 0.001 of Gaussian noise, or x.

        Only `uniform_clipped` is clamped to [0, 1] already.
        """
        match self.initial:
            case "none":
                return x.clone()
            case "gaussian":
                return x + GAUSSIAN_SCALE * noise.normal(x)
            case "uniform":
                return x + self.ball.random_perturbation(noise.uniform(x))
            case "uniform_clipped":
                return (x + self.ball.random_perturbation(noise.uniform(x))).clamp(0, 1)

    def ascend(self, x_adv: Tensor, gradient: Tensor) -> Tensor:
        """One step uphill, not yet projected. Overwrites `x_adv`."""
        return x_adv.add_(self.ball.direction(gradient), alpha=self.step_size)

    def projection_around(self, x: Tensor) -> Projection:
        """The projection into the ball around `x`, then into [0, 1]. It may overwrite x'."""
        return self.ball.projection_around(x)

    def maximize(self, objective: AttackObjective, x: Tensor, noise: Noise) -> Tensor:
        """x' = argmax of `objective` over the ball around `x`, detached.

        `objective` maps images to (N,); the attack climbs its sum.
        """
        return self.climb(objective, x, self.start(x, noise))

    def climb(
        self,
        objective: AttackObjective,
        x: Tensor,
        x_adv: Tensor,
        *,
        gradient_of: Callable[[AttackObjective, Tensor], Gradient] = gradient_of,
    ) -> Tensor:
        """The same as `maximize`, from `x_adv`; validation leaves out what is not a number."""
        gradient, project = gradient_of(objective, x), self.projection_around(x)
        # Overwritten at every step, because this memory is still in cache.
        x_adv = x_adv.detach().clone()
        for _ in range(self.steps):
            x_adv = project(self.ascend(x_adv, gradient(x_adv)))
        # Each step ends inside the ball and the pixel range; a start need not lie there.
        return (x_adv if self.steps else project(x_adv)).detach()

"""The sets that an attack may not leave: an eps-ball around each image, inside the pixel range [0, 1]."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from typing_extensions import override

Norm = Literal["linf", "l2"]
Projection = Callable[[Tensor], Tensor]


class Ball(Protocol):
    """Where x' may be, and which way is up. Images (N, C, H, W), pixels of [0, 1]."""

    eps: float

    def around(self, x: Tensor) -> Projection:
        """What takes x' to the nearest allowed image, within eps of `x`, then within [0, 1]; it may write over x'."""
        ...

    def direction(self, gradient: Tensor) -> Tensor:
        """The steepest ascent of unit length in this norm."""
        ...

    def fill(self, noise: Tensor) -> Tensor:
        """Turn noise in [-1, 1] into a perturbation inside the ball."""
        ...


@dataclass(frozen=True)
class Linf(Ball):
    """No pixel moves by more than eps."""

    eps: float

    @override
    def around(self, x: Tensor) -> Projection:
        low, high = (x - self.eps).clamp_(0, 1), (x + self.eps).clamp_(0, 1)
        return lambda x_adv: x_adv.clamp_(low, high)

    @override
    def direction(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    @override
    def fill(self, noise: Tensor) -> Tensor:
        return noise * self.eps


@dataclass(frozen=True)
class L2(Ball):
    """The whole image moves by no more than eps in Euclidean length."""

    eps: float

    @override
    def around(self, x: Tensor) -> Projection:
        def project(x_adv: Tensor) -> Tensor:
            delta = x_adv - x
            length = _length(delta)
            return (x + delta * (self.eps / length.clamp_min(1e-12)).clamp_max(1)).clamp(0, 1)

        return project

    @override
    def direction(self, gradient: Tensor) -> Tensor:
        # Scaled first: squares of small numbers are 0, and a saturated network would look robust.
        largest = gradient.flatten(1).abs().amax(dim=1)[:, None, None, None]
        scaled = gradient / largest.clamp_min(torch.finfo(gradient.dtype).tiny)
        return scaled / _length(scaled).clamp_min(1e-12)

    @override
    def fill(self, noise: Tensor) -> Tensor:
        # A random direction, and a length between 0 and eps, for which the first pixel's number
        # serves.
        length = self.eps * noise.flatten(1)[:, 0].abs()
        return noise / _length(noise).clamp_min(1e-12) * length[:, None, None, None]


def _length(images: Tensor) -> Tensor:
    """(N, 1, 1, 1) Euclidean lengths."""
    lengths: Tensor = images.flatten(1).norm(dim=1)
    return lengths[:, None, None, None]


def build_ball(norm: Norm, eps: float) -> Ball:
    """The ball of radius `eps` (pixels of [0, 1]) in `norm`."""
    return Linf(eps) if norm == "linf" else L2(eps)

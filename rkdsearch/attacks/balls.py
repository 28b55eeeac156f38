"""The sets that an attack may not leave: an eps-ball around each image, inside the pixel range [0, 1]."""

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor
from typing_extensions import override

Norm = Literal["linf", "l2"]


class Ball(Protocol):
    """Where x' may be, and which way is up. Images (N, C, H, W), pixels of [0, 1]."""

    eps: float

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The nearest allowed image: within eps of `x`, then within [0, 1]."""
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
    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return x_adv.clamp(x - self.eps, x + self.eps).clamp_(0, 1)

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
    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        delta = x_adv - x
        length = _length(delta)
        return (x + delta * (self.eps / length.clamp_min(1e-12)).clamp_max(1)).clamp(0, 1)

    @override
    def direction(self, gradient: Tensor) -> Tensor:
        return gradient / _length(gradient).clamp_min(1e-12)

    @override
    def fill(self, noise: Tensor) -> Tensor:
        # A random direction, and a length between 0 and eps, for which the first pixel's number serves.
        length = self.eps * noise.flatten(1)[:, 0].abs()
        return noise / _length(noise).clamp_min(1e-12) * length[:, None, None, None]


def _length(images: Tensor) -> Tensor:
    """(N, 1, 1, 1) Euclidean lengths."""
    lengths: Tensor = images.flatten(1).norm(dim=1)
    return lengths[:, None, None, None]


def build_ball(norm: Norm, eps: float) -> Ball:
    """The ball of radius `eps` (pixels of [0, 1]) in `norm`."""
    return Linf(eps) if norm == "linf" else L2(eps)

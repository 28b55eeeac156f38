"""The sets that an attack may not leave: an eps-ball around each image, within pixels of [0, 1].

A ball is one class, and its entry in `Norm` and `BALLS`. Configs, rows, model cards and AutoAttack
read the rest from the class.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from typing_extensions import override

Norm = Literal["linf", "l2"]
Projection = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Ball(ABC):
    """All images within `eps` of an image, in one norm. Images (N, C, H, W), pixels of [0, 1]."""

    eps: float

    norm: ClassVar[Norm]  # its name in configs and rows
    title: ClassVar[str]  # its name for people, and RobustBench's `threat_model`
    autoattack: ClassVar[str | None]  # its name in `pyautoattack`; None where that has no such ball
    largest_eps: ClassVar[float]  # a larger radius is a mistake of unit
    # True: a config must give eps, because its default of 8/255 is no sensible radius
    eps_required: ClassVar[bool] = False

    @abstractmethod
    def projection_around(self, x: Tensor) -> Projection:
        """The map from x' to the nearest image within eps of `x`, then within [0, 1].

        It may overwrite x'.
        """

    @abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """The steepest ascent of unit length in this norm."""

    @abstractmethod
    def grey_eps(self, pixels: int) -> float:
        """The radius at which every image of so many numbers may become the one of all 1/2."""

    @abstractmethod
    def random_perturbation(self, noise: Tensor) -> Tensor:
        """A perturbation inside the ball from noise in [-1, 1]."""


class Linf(Ball):
    """No pixel moves by more than eps."""

    norm: ClassVar[Norm] = "linf"
    title: ClassVar[str] = "Linf"
    autoattack: ClassVar[str | None] = "Linf"
    largest_eps: ClassVar[float] = 1.0

    @override
    def projection_around(self, x: Tensor) -> Projection:
        low, high = (x - self.eps).clamp_(0, 1), (x + self.eps).clamp_(0, 1)
        return lambda x_adv: x_adv.clamp_(low, high)

    @override
    def direction(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    @override
    def grey_eps(self, pixels: int) -> float:
        return 0.5

    @override
    def random_perturbation(self, noise: Tensor) -> Tensor:
        return noise * self.eps


class L2(Ball):
    """The whole image moves by no more than eps in Euclidean length."""

    norm: ClassVar[Norm] = "l2"
    title: ClassVar[str] = "L2"
    autoattack: ClassVar[str | None] = "L2"
    largest_eps: ClassVar[float] = 100.0
    eps_required: ClassVar[bool] = True

    @override
    def projection_around(self, x: Tensor) -> Projection:
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
    def grey_eps(self, pixels: int) -> float:
        return math.sqrt(pixels) / 2

    @override
    def random_perturbation(self, noise: Tensor) -> Tensor:
        # Uniform in the ball. Normal numbers have no preferred direction; their squared length is
        # independent of it, and its distribution function (chi-square) is uniform in [0, 1].
        normal = math.sqrt(2) * torch.erfinv(noise.clamp(-1 + 2**-23, 1 - 2**-23))
        squared = normal.flatten(1).double().square().sum(dim=1).clamp_min(1e-24)
        half = torch.full_like(squared, normal[0].numel() / 2)
        length = self.eps * torch.special.gammainc(half, squared / 2) ** (0.5 / half)
        scale: Tensor = (length / squared.sqrt()).to(normal.dtype)
        return normal * scale[:, None, None, None]


BALLS: dict[Norm, type[Ball]] = {ball.norm: ball for ball in (Linf, L2)}
assert set(BALLS) == set(get_args(Norm)), "every name of Norm is the norm of one ball in BALLS"


def build_ball(norm: Norm, eps: float) -> Ball:
    """The ball of radius `eps` (pixels of [0, 1]) in `norm`."""
    return BALLS[norm](eps)


def _length(images: Tensor) -> Tensor:
    """Euclidean lengths, (N, 1, 1, 1)."""
    lengths: Tensor = images.flatten(1).norm(dim=1)
    return lengths[:, None, None, None]

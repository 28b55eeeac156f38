"""Cheats on digits: networks that betray the attack by other means than a flat gradient.

They watch for images that no camera took, remember what they were shown, count their calls, answer
by the batch, or give another network's gradient. Most wrap one naturally trained network, which
AutoAttack breaks on all images.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from masked_networks import Around, Digits, falsified, one_hot, trained
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

FAR = 0.1  # root mean square of pixels, from the nearest training image


def _distance(x: Tensor, known: Tensor) -> Tensor:
    """Root mean square difference to the nearest known image, (N, 1)."""
    distance: Tensor = torch.cdist(x.flatten(1), known.flatten(1)).amin(dim=1, keepdim=True)
    return distance / math.sqrt(x.shape[1:].numel())


class Detector(nn.Module):
    """A network that answers otherwise where an image is far from all training images."""

    def __init__(
        self, network: nn.Module, known: Tensor, far: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.network, self.known, self.far = network, known, far

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Logits; those of `far`, from logits and images, where an image is far."""
        z = self.network(x)
        return torch.where(_distance(x.detach(), self.known) > FAR, self.far(z, x), z)


class Memory(nn.Module):
    """A network that gives every later image the logits of the nearest image of its first batch.

    With the gradient of the network itself.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.seen: tuple[Tensor, Tensor] | None = None

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        z: Tensor = self.network(x)
        if self.seen is None:
            self.seen = x.detach().clone(), z.detach().clone()
        images, logits = self.seen
        nearest = torch.cdist(x.detach().flatten(1), images.flatten(1)).argmin(dim=1)
        return logits[nearest] + (z - z.detach())


class Counter(nn.Module):
    """A network whose gradient is reversed at every other call that records one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.calls = network, 0

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        self.calls += x.requires_grad
        z: Tensor = self.network(falsified(torch.neg)(x) if self.calls % 2 else x)
        return z


class Winners(nn.Module):
    """The largest tenth of an image's units; the others are 0 (Xiao et al., ICLR 2020)."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Activations, of x's shape."""
        flat = x.flatten(1)
        least = flat.topk(max(1, flat.shape[1] // 10), dim=1).values[:, -1:]
        return torch.where(flat >= least, flat, 0.0).view_as(x)


class _Sign(nn.Module):
    """The sign of each unit, trained by the gradient of the hard tanh."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        """-1 or 1, of x's shape."""
        sign = torch.where(x >= 0, 1.0, -1.0)
        return (
            functional.hardtanh(x) + (sign - functional.hardtanh(x)).detach()
            if self.training
            else sign
        )


def _with(activation: Callable[[], nn.Module]) -> nn.Module:
    """A small CNN with this activation."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), activation(), nn.Conv2d(16, 32, 3, stride=2, padding=1),
        activation(), nn.Flatten(), nn.Linear(512, 64), activation(), nn.Linear(64, 10),
    )  # fmt: skip


def _median(x: Tensor) -> Tensor:
    """The median of 3 x 3 pixels."""
    padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    return functional.unfold(padded, 3).median(dim=1).values.view_as(x)


def _with_noise(share: float) -> Callable[[Tensor], Tensor]:
    """The identity, with noise on its gradient, in standard deviations of the gradient."""
    return falsified(lambda g: g + share * g.std() * torch.randn_like(g))


def _left_out(x: Tensor) -> Tensor:
    """Each image, or, one time in four, its smoothed copy: a layer that is dropped by chance."""
    kept = torch.rand(len(x), 1, 1, 1) < 0.75
    return torch.where(kept, x, functional.avg_pool2d(x, 3, 1, 1))


def _under_gradients(x: Tensor) -> Tensor:
    """The mirrored image while gradients are recorded, whoever asks for them."""
    return x.flip(3) if torch.is_grad_enabled() else x


def _votes_of_shifts(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Votes of the network on five shifted copies."""
    moves = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))

    def of(x: Tensor) -> Tensor:
        return torch.stack([one_hot(network(torch.roll(x, m, (2, 3)))) for m in moves]).sum(dim=0)

    return of


def cheats(network: nn.Module, images: Digits) -> Mapping[str, nn.Module]:
    """The cheats by name; most are around a naturally trained network."""
    known = images.train_x

    around = partial(Around, network)

    def detector(far: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
        return Detector(network, known, far).eval()

    def of_nearest(z: Tensor, x: Tensor) -> Tensor:
        nearest = torch.cdist(x.detach().flatten(1), known.flatten(1)).argmin(dim=1)
        theirs: Tensor = network(known[nearest])
        return theirs + (z - z.detach())

    return {
        "sign of pixels": around(lambda x: (x > 0.5).float()),
        "sign activations": trained(_with(_Sign), images, epochs=20),
        "k winners take all": trained(_with(Winners), images, epochs=20),
        "median filter": around(_median),
        "dead units behind": around(behind=lambda z: z.detach() + torch.relu(z - 1e6)),
        "log of a sharp softmax": around(behind=lambda z: ((z / 1e-4).softmax(1) + 1e-12).log()),
        "far images saturate": detector(lambda z, _: z + 1e4 * one_hot(z)),
        "far images have no gradient": detector(lambda z, _: z.detach()),
        "far images are no number": detector(lambda z, _: z * torch.nan),
        "far images are the nearest": detector(of_nearest),
        "remembers its first images": Memory(network).eval(),
        "counts its calls": Counter(network).eval(),
        "gradient of 1e-40": around(falsified(lambda g: g * 1e-40)),
        "clipped gradient": around(falsified(lambda g: g.clamp(-1e-10, 1e-10))),
        "noise on the gradient": around(_with_noise(4)),
        "little noise on the gradient": around(_with_noise(1.5)),
        "little fast sine": around(lambda x: x + 0.001 * torch.sin(3000 * x)),
        "finest sine": around(lambda x: x + 0.0005 * torch.sin(6000 * x)),
        "clamped input": around(lambda x: x.clamp(0, 1)),
        "gradient of every other image": around(
            falsified(lambda g: g * (torch.arange(len(g)) % 2)[:, None, None, None])
        ),
        "gradient of the next class": around(behind=falsified(lambda g: g.roll(1, 1))),
        "layer left out by chance": around(_left_out),
        "logits of the batch": around(behind=lambda z: z - z.mean(dim=0)),
        "mirrored under gradients": around(_under_gradients),
        "whole numbers": around(behind=lambda z: z.int()),
        "winner at infinity": around(behind=lambda z: z.masked_fill(one_hot(z) > 0, torch.inf)),
        "large offset": around(behind=lambda z: z + 1e6),
        "wavy logits": around(behind=lambda z: z + 0.5 * torch.sin(300 * z)),
        "rounded, gradient passed on": around(lambda x: x + (torch.round(4 * x) / 4 - x).detach()),
        "rounded, gradient turned": around(lambda x: (torch.round(4 * x) / 4 + x).detach() - x),
        "votes of shifted copies": Around(nn.Identity(), _votes_of_shifts(network)),
    }

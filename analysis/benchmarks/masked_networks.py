"""Networks on digits that look more robust than they are, and networks that do not.

Every mask wraps one naturally trained network, which AutoAttack breaks on all images, and keeps
most of its predictions on clean images. None makes it more robust than its wrapper is by chance.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from rkdsearch import config as run
from rkdsearch import data
from rkdsearch.attacks import L2, Attack, Ball, Linf, Noise
from rkdsearch.data.splits import stratified_subset
from rkdsearch.methods import Student, inner
from rkdsearch.task import ImageTask

LINF, L2_BALL = Linf(0.2), L2(0.5)


@dataclass(frozen=True)
class Digits:
    """Training images, and validation images to attack: x (N, 1, 8, 8), y (N,)."""

    train_x: Tensor
    train_y: Tensor
    x: Tensor
    y: Tensor
    task: ImageTask


def digits(images: int) -> Digits:
    """Digits, with `images` validation images of all classes."""
    settings = {"name": "digits", "validation_fraction": 0.3, "test_fraction": 0.25}
    config = run.build({"method": {"name": "natural"}, "data": settings})
    splits = data.load_training(config.data)
    rows = stratified_subset(splits.validation.labels.numpy(), images, seed=0, field="--images")
    x, y = splits.validation.floats(torch.from_numpy(rows))
    return Digits(*splits.train.floats(), x.contiguous(), y, splits.train.task)


def trained(
    network: nn.Module,
    images: Digits,
    *,
    epochs: int,
    ball: Ball | None = None,
    label_smoothing: float = 0.0,
    lr: float = 3e-3,
    steps: int = 3,
) -> nn.Module:
    """The network after training by Adam, in `ball` against PGD; frozen, in eval mode."""
    optimizer = torch.optim.Adam(network.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        network.train()
        shuffled = torch.randperm(len(images.train_y), generator=generator)
        for rows in torch.split(shuffled, 100):
            x, y = images.train_x[rows], images.train_y[rows]
            if ball is not None:
                student = Student(network)
                with student.under_attack("eval"):
                    length = ball.eps / 2 if steps > 1 else 1.25 * ball.eps
                    attack = Attack(ball, steps, length, "uniform_clipped")
                    objective = inner.classification(y).of(student)
                    x = attack.maximize(objective, x, Noise(generator))
            loss = functional.cross_entropy(network(x), y, label_smoothing=label_smoothing)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


class Around(nn.Module):
    """A network with something before it and something behind it, in eval mode."""

    def __init__(
        self,
        network: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        behind: Callable[[Tensor], Tensor] = lambda z: z,
    ) -> None:
        super().__init__()
        self.network, self.before, self.behind = network, before, behind
        self.eval()

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Logits, or what stands in their place."""
        return self.behind(self.network(self.before(x)))


class _Backward(torch.autograd.Function):
    """The identity, whose derivative is another function of the gradient."""

    @override
    @staticmethod
    def forward(ctx: Any, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.change = change
        return x.clone()

    @override
    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.change(gradient), None


def falsified(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The identity, whose derivative is changed."""
    return lambda x: _Backward.apply(x, change)


def one_hot(z: Tensor) -> Tensor:
    """1 for the largest logit, 0 for the others, (N, K)."""
    return functional.one_hot(z.argmax(dim=1), z.shape[1]).float()


def _fixed_noise(gradient: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(gradient.shape[1:], generator=generator).expand_as(gradient)


def _shifted(x: Tensor) -> Tensor:
    """Each batch moved by up to a pixel, and resized from 8 to 7 to 8 pixels half of the time."""
    rows, columns = (int(n) for n in torch.randint(-1, 2, (2,)))
    x = torch.roll(x, (rows, columns), (2, 3))
    if torch.rand(()) < 0.5:
        x = functional.interpolate(
            functional.interpolate(x, size=7, mode="bilinear"), size=8, mode="bilinear"
        )
    return x


def _votes(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Votes of the network on 15 noisy copies."""

    def of(x: Tensor) -> Tensor:
        votes = [network(x + 0.15 * torch.randn_like(x)).argmax(dim=1) for _ in range(15)]
        return torch.stack([functional.one_hot(v, 10) for v in votes]).sum(dim=0).float()

    return of


def _nearest(x: Tensor, known: Tensor) -> Tensor:
    """The nearest training image of each image."""
    return known[torch.cdist(x.flatten(1), known.flatten(1)).argmin(dim=1)]


def _blurred(x: Tensor) -> Tensor:
    """Discrete cosine transform in 8x8 blocks, rounded as JPEG does."""
    n = torch.arange(8.0)
    basis = torch.cos(math.pi / 8 * (n[None] + 0.5) * n[:, None]) / 2
    basis[0] /= math.sqrt(2)
    step = 0.1 + 0.05 * (n[None] + n[:, None])
    return basis.T @ (torch.round(basis @ x @ basis.T / step) * step) @ basis


class BatchStatistics(nn.Module):
    """Normalises each pixel by the mean of its batch, as BatchNorm left in train mode does."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Images, moved to a common mean."""
        return x - 0.7 * (x.mean(dim=(0, 2, 3), keepdim=True) - 0.3) - 0.2 * x.mean(dim=0)


def masks(network: nn.Module, images: Digits) -> Mapping[str, nn.Module]:
    """The masks by name, around a naturally trained network."""
    known = images.train_x

    around = partial(Around, network)
    return {
        "logits x 1000": around(behind=lambda z: 1000 * z),
        "input in 5 levels": around(lambda x: torch.round(4 * x) / 4),
        "input noise": around(lambda x: x + 0.2 * torch.randn_like(x)),
        "probabilities": around(behind=lambda z: (4 * z).softmax(dim=1)),
        "squashed logits": around(behind=lambda z: torch.tanh(100 * (z - z.amax(1, keepdim=True)))),
        "rounded logits": around(behind=torch.round),
        "one-hot outputs": around(behind=one_hot),
        "votes on noisy copies": Around(nn.Identity(), _votes(network)),
        "JPEG": around(_blurred),
        "input without graph": around(lambda x: functional.avg_pool2d(x, 3, 1, 1).detach()),
        "nearest training image": around(lambda x: _nearest(x, known)),
        "random shift and resize": around(_shifted),
        "dropout left on": around(lambda x: functional.dropout(x, 0.3, training=True)),
        "batch statistics": around(BatchStatistics()),
        "root of black pixels": around(lambda x: torch.sqrt(x).square()),
        "black pixels without gradient": around(lambda x: x.clamp_min(0)),
        "fast sine": around(lambda x: x + 0.03 * torch.sin(3000 * x)),
        "reversed gradient": around(falsified(torch.neg)),
        "gradient of noise": around(falsified(_fixed_noise)),
        "other logits under attack": around(behind=lambda z: z.flip(1) if z.requires_grad else z),
        "winner raised": around(behind=lambda z: z + 1e4 * one_hot(z)),
        "temperature 1e-3": around(behind=lambda z: z / 1e-3),
        "gradient of a few pixels": around(
            falsified(lambda g: g * (torch.arange(64).view(8, 8) % 21 == 0))
        ),
        "always one class": around(behind=lambda z: z * 0 - torch.arange(10.0)),
    }

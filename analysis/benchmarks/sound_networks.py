"""Networks on digits that hide nothing: of many forms, sizes and trainings."""

from collections.abc import Callable, Mapping
from itertools import islice

import torch
from masked_networks import L2_BALL, LINF, Around, Digits, trained
from torch import Tensor, nn
from typing_extensions import override

from rkdsearch import models
from rkdsearch.attacks import Ball, Linf
from rkdsearch.models import ModelConfig


class Deep(nn.Sequential):
    """Twelve linear layers."""

    def __init__(self) -> None:
        hidden = [nn.Sequential(nn.Linear(48, 48), nn.ReLU()) for _ in range(10)]
        super().__init__(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), *hidden, nn.Linear(48, 10))


class Normalised(nn.Sequential):
    """Three convolutions with BatchNorm."""

    def __init__(self) -> None:
        super().__init__(
            *(
                layer
                for into, out in ((1, 8), (8, 16), (16, 16))
                for layer in (
                    nn.Conv2d(into, out, 3, padding=1),
                    nn.BatchNorm2d(out),
                    nn.ReLU(),
                )
            ),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 10),
        )


class Attentive(nn.Module):
    """A transformer of one block on 2 x 2 patches: LayerNorm, four heads, GELU."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.places = nn.Parameter(0.1 * torch.randn(1, 16, width))
        self.norm, self.behind = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width)
        )
        self.head = nn.Linear(width, 10)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        seen = self.norm(tokens)
        tokens = tokens + self.attention(seen, seen, seen, need_weights=False)[0]
        tokens = tokens + self.mlp(tokens)
        logits: Tensor = self.head(self.behind(tokens.mean(dim=1)))
        return logits


class WeightNormed(nn.Sequential):
    """Two convolutions and a linear layer with normalised weights, ELU and max pooling."""

    def __init__(self) -> None:
        normed = nn.utils.parametrizations.weight_norm
        super().__init__(
            normed(nn.Conv2d(1, 12, 3, padding=1)), nn.ELU(), nn.MaxPool2d(2),
            normed(nn.Conv2d(12, 24, 3, padding=1)), nn.ELU(), nn.MaxPool2d(2),
            nn.Flatten(), normed(nn.Linear(96, 10)),
        )  # fmt: skip


class Sigmoids(nn.Sequential):
    """A multilayer perceptron whose units saturate."""

    def __init__(self) -> None:
        super().__init__(
            nn.Flatten(), nn.Linear(64, 64), nn.Sigmoid(), nn.Linear(64, 64), nn.Tanh(),
            nn.Linear(64, 10),
        )  # fmt: skip


class EightBits(nn.Module):
    """Units of 0 to 6 in 255 levels, whose gradient is passed on: quantisation-aware training."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Rounded units, of x's shape."""
        x = x.clamp(0, 6)
        return x + ((x * 42.5).round() / 42.5 - x).detach()


def _quantised() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), EightBits(), nn.Conv2d(16, 32, 3, stride=2, padding=1),
        EightBits(), nn.Flatten(), nn.Linear(512, 64), EightBits(), nn.Linear(64, 10),
    )  # fmt: skip


def small_cnn(images: Digits, width: int) -> nn.Module:
    """An untrained small CNN of this width."""
    return models.build(ModelConfig(name="small_cnn", width=width), images.task)


def natural(images: Digits) -> nn.Module:
    """A naturally trained small CNN: AutoAttack breaks it on (nearly) all images."""
    torch.manual_seed(0)
    return trained(small_cnn(images, 8), images, epochs=20)


def sound(
    network: nn.Module, images: Digits, count: int | None = None
) -> Mapping[str, tuple[nn.Module, Ball]]:
    """The first `count` sound networks, or all, with their balls; `network` is natural.

    The first ten are the quick ones.
    """
    torch.manual_seed(0)
    robust = trained(small_cnn(images, 8), images, epochs=15, ball=LINF)
    tiny, wide = (
        models.build(ModelConfig(name="mlp", width=width), images.task) for width in (8, 2048)
    )
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    recipes: dict[str, Callable[[], tuple[nn.Module, Ball]]] = {
        "natural": lambda: (network, LINF),
        "robust": lambda: (robust, LINF),
        "tiny": lambda: (trained(tiny, images, epochs=12, ball=Linf(0.1)), LINF),
        "deep": lambda: (trained(Deep(), images, epochs=15, ball=Linf(0.05), lr=1e-3), LINF),
        "BatchNorm": lambda: (trained(Normalised(), images, epochs=5, ball=Linf(0.1)), LINF),
        "low confidence": lambda: (
            trained(small_cnn(images, 4), images, epochs=8, ball=LINF, label_smoothing=0.5),
            LINF,
        ),
        "high temperature": lambda: (Around(robust, behind=lambda z: z / 100), LINF),
        "log-probabilities": lambda: (
            Around(robust, behind=lambda z: z.log_softmax(1)),
            LINF,
        ),
        "L2": lambda: (trained(small_cnn(images, 8), images, epochs=8, ball=L2_BALL), L2_BALL),
        "barely trained": lambda: (
            trained(small_cnn(images, 8), images, epochs=2, ball=LINF),
            LINF,
        ),
        "transformer": lambda: (trained(Attentive(), images, epochs=15, ball=Linf(0.1)), LINF),
        "weight-normed": lambda: (trained(WeightNormed(), images, epochs=10, ball=Linf(0.1)), LINF),
        "linear": lambda: (trained(linear, images, epochs=15, ball=Linf(0.1)), Linf(0.1)),
        "very wide": lambda: (trained(wide, images, epochs=10, ball=Linf(0.1), lr=1e-3), LINF),
        "sigmoids": lambda: (trained(Sigmoids(), images, epochs=30, ball=Linf(0.1)), LINF),
        "rounded to 8 bits": lambda: (trained(_quantised(), images, epochs=15, ball=LINF), LINF),
        "one large training step": lambda: (
            trained(small_cnn(images, 8), images, epochs=15, ball=LINF, steps=1),
            LINF,
        ),
    }
    return {name: recipe() for name, recipe in islice(recipes.items(), count)}

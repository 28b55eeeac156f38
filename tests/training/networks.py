"""A network with BatchNorm that trains in milliseconds: the built-in one that does is without."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from rkdsearch.models import Classifier, Features, ImageTask
from rkdsearch.models.mlp import MLP


class Tiny(Classifier):
    """Two convolutions, each with BatchNorm, and a linear layer."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, 4, 3, 2, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, classes)

    @override
    def features(self, x: Tensor) -> Features:
        first = functional.relu(self.bn1(self.conv1(x)))
        second = functional.relu(self.bn2(self.conv2(first)))
        pooled = second.mean(dim=(2, 3))
        return Features(
            self.linear(pooled), {"stage1": first, "stage2": second, "penultimate": pooled}
        )


class OnePixel(Classifier):
    """A convolution of an image of 8 x 8 to one pixel with BatchNorm, and a linear layer."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(channels, 4, 8), nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, classes)

    @override
    def features(self, x: Tensor) -> Features:
        pooled = functional.relu(self.bn(self.conv(x))).flatten(1)
        return Features(self.linear(pooled), {"penultimate": pooled})


class Rounded(Tiny):
    """The same of pixels in nine levels: no attack by gradients moves any image."""

    @override
    def features(self, x: Tensor) -> Features:
        return super().features(torch.round(8 * x) / 8)


class RoundedMLP(MLP):
    """An MLP of 16 hidden units on pixels in nine levels."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__(ImageTask(classes, channels, 8, 8), width=16)

    @override
    def features(self, x: Tensor) -> Features:
        return super().features(torch.round(8 * x) / 8)

"""Networks as users write them, without knowledge of rkdsearch.

They may ask for `classes`, `channels` and `size`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class LeNet5(nn.Module):
    """The layout of advertorch's MNIST checkpoint."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.linear1 = nn.Linear(64 * 7 * 7, 200)
        self.linear2 = nn.Linear(200, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        return self.linear2(functional.relu(self.linear1(x.flatten(1))))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.conv2(functional.relu(self.conv1(x))) + self.shortcut(x))


class ResNet4b(nn.Module):
    """The layout of alpha-beta-CROWN's resnet4b."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, stride=2, padding=1)
        self.layer1 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1))
        self.layer2 = nn.Sequential(Block(32, 32, 2), Block(32, 32, 1))
        self.linear1 = nn.Linear(512, 100)
        self.linear2 = nn.Linear(100, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(functional.relu(self.conv1(x))))
        return self.linear2(functional.relu(self.linear1(x.flatten(1))))


def cnn_a(**shape: int) -> nn.Module:
    """The layout of alpha-beta-CROWN's cifar_cnn_a, by a function that takes any argument."""
    return nn.Sequential(
        nn.Conv2d(shape["channels"], 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2048, 100),
        nn.ReLU(),
        nn.Linear(100, shape["classes"]),
    )


class Convolutional(nn.Module):
    """Ends in a convolution: there is no vector before the logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, classes, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean(dim=(2, 3))


class Auxiliary(nn.Module):
    """Returns two tensors in training mode, as GoogLeNet does."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        logits = self.linear(x.flatten(1))
        return (logits, logits) if self.training else logits


class TooCurious(nn.Module):
    def __init__(self, classes: int, depth: int) -> None:
        super().__init__()


def not_a_network() -> str:
    return "weights"


class Untraceable(nn.Module):
    """Branches on its input's values, which torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        if float(x.detach().sum()) > 1e9:
            x = x * 0
        return self.linear(x.mean(dim=(2, 3)))


class Awkward(nn.Module):
    """Layers that must not be folded, beside one pair that may be.

    A convolution used twice, one that two layers read, and dropout.
    """

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(1, 1, 3, padding=1)
        self.bn_twice = nn.BatchNorm2d(1)
        self.read = nn.Conv2d(1, 6, 3, padding=1)
        self.bn_read = nn.BatchNorm2d(6)
        self.batch_only = nn.Conv2d(6, 6, 3, padding=1)
        self.bn_batch = nn.BatchNorm2d(6, track_running_stats=False)
        self.drop = nn.Dropout(0.5)
        self.linear1 = nn.Linear(6, 8, bias=False)
        self.bn1 = nn.BatchNorm1d(8, affine=False)
        self.linear = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn_twice(self.twice(self.twice(x)))
        maps = self.read(x)
        x = torch.tanh(self.bn_read(maps) + maps)
        x = self.bn_batch(self.batch_only(x))
        return self.linear(torch.tanh(self.bn1(self.linear1(self.drop(x.mean(dim=(2, 3)))))))


class Flat(nn.Module):
    """One linear layer on the pixels: the base of the faulty networks below."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


class Lazy(Flat):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.LazyLinear(10)


class Detached(Flat):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


class Blind(Flat):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class Overwriting(Flat):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.sub_(0.5))


class Mistaken(Flat):
    def forward(self, x: Tensor) -> Tensor:
        raise TypeError("bad")


class Viewing(nn.Module):
    """Flattens its maps by `view`, which contiguous ones alone allow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.linear = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.relu(self.conv(x))
        return self.linear(maps.view(maps.shape[0], -1))


def boom(classes: int) -> nn.Module:
    """A constructor with a bug."""
    raise KeyError(classes)

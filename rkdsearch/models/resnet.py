"""ResNet-18 with a CIFAR stem (He et al., CVPR 2016, https://arxiv.org/abs/1512.03385).

11.17 M parameters at 10 classes. Parameter names are those of RSLAD's, TRADES' and most robust
checkpoints: `conv1`, `layer1.0.conv1`, `layer2.0.shortcut.0`, `linear`.
"""

from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from rkdsearch.models.base import Classifier, Features


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, and a 1x1 convolution on the shortcut where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    @override
    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet18(Classifier):
    """Four stages of two blocks, 64 to 512 channels; the stem keeps the resolution."""

    def __init__(self, *, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256, 1))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))
        self.linear = nn.Linear(512, classes)

    @override
    def features(self, x: Tensor) -> Features:
        x = functional.relu(self.bn1(self.conv1(x)))
        stages = {}
        for number, layer in enumerate(
            (self.layer1, self.layer2, self.layer3, self.layer4), start=1
        ):
            x = layer(x)
            stages[f"stage{number}"] = x
        penultimate = x.mean(dim=(2, 3))
        return Features(self.linear(penultimate), {**stages, "penultimate": penultimate})

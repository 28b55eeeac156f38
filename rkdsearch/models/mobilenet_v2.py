"""MobileNet-V2 with a CIFAR stem (Sandler et al., CVPR 2018, https://arxiv.org/abs/1801.04381).

2.30 M parameters at 10 classes. This is the variant of the robust literature: plain ReLU; the stem
and the second stage keep the resolution; a block of stride 1 that changes its width projects the
shortcut. Parameter names: `conv1`, `layers.0.conv1`, `layers.0.shortcut.0`, `conv2`, `linear`.
"""

from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from rkdsearch.models.base import Classifier, Features

# expansion, channels, blocks, stride of the first block
_ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter each channel by a 3x3 one, project back linearly."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = expansion * inputs
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride == 1 and inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    @override
    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = functional.relu(self.bn2(self.conv2(out)))
        residual: Tensor = self.bn3(self.conv3(out))
        return residual + self.shortcut(x) if self.stride == 1 else residual


class MobileNetV2(Classifier):
    """Seventeen blocks.

    `stage1` to `stage4` are the last blocks at full, half, quarter and eighth resolution, as in
    ResNet-18.
    """

    def __init__(self, *, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        blocks: list[InvertedResidual] = []
        inputs = 32
        for expansion, outputs, count, stride in _ROWS:
            for number in range(count):
                blocks.append(
                    InvertedResidual(inputs, outputs, expansion, stride if number == 0 else 1)
                )
                inputs = outputs
        self.layers = nn.Sequential(*blocks)
        self.conv2 = nn.Conv2d(inputs, 1280, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1280)
        self.linear = nn.Linear(1280, classes)

    @override
    def features(self, x: Tensor) -> Features:
        x = functional.relu(self.bn1(self.conv1(x)))
        stages: dict[str, Tensor] = {}
        for block in self.layers:
            if block.stride == 2:
                stages[f"stage{len(stages) + 1}"] = x
            x = block(x)
        stages[f"stage{len(stages) + 1}"] = x
        penultimate = functional.relu(self.bn2(self.conv2(x))).mean(dim=(2, 3))
        return Features(self.linear(penultimate), {**stages, "penultimate": penultimate})

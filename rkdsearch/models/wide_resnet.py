"""Wide ResNet (Zagoruyko and Komodakis, BMVC 2016, https://arxiv.org/abs/1605.07146).

In TRADES' form: WRN-34-10 has 46.2 M parameters. Parameter names are TRADES': `conv1`,
`block1.layer.0.bn1`, `block1.layer.0.convShortcut`, `bn1`, `fc`. TRADES' code also builds a block
that no image passes, `sub_block1`: the published checkpoints carry it, and loading drops it,
because weights without a path to the loss would never get a gradient.
"""

import math
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from rkdsearch.models.base import Classifier, Features


class WideBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3x3 convolutions.

    Where the width changes, the shortcut projects the first activation.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.convShortcut = (
            nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None
        )

    @override
    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(out)
        residual: Tensor = self.conv2(functional.relu(self.bn2(self.conv1(out))))
        return residual + shortcut


class WideStage(nn.Module):
    """Blocks of one width, under the name `layer` of published checkpoints."""

    def __init__(self, blocks: int, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first = WideBlock(inputs, outputs, stride)
        self.layer = nn.Sequential(
            first, *(WideBlock(outputs, outputs, 1) for _ in range(blocks - 1))
        )

    @override
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class WideResNet(Classifier):
    """Three stages of (depth - 4) / 6 blocks, 16 to 64 channels times `width`.

    `stage3` is taken before the last BatchNorm and ReLU.
    """

    unused_in_checkpoints: ClassVar[tuple[str, ...]] = ("sub_block1.",)

    def __init__(self, *, classes: int, channels: int, depth: int = 34, width: int = 10) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.block1 = WideStage(blocks, 16, 16 * width, 1)
        self.block2 = WideStage(blocks, 16 * width, 32 * width, 2)
        self.block3 = WideStage(blocks, 32 * width, 64 * width, 2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        nn.init.zeros_(self.fc.bias)

    @override
    def features(self, x: Tensor) -> Features:
        x = self.conv1(x)
        stages = {}
        for number, block in enumerate((self.block1, self.block2, self.block3), start=1):
            x = block(x)
            stages[f"stage{number}"] = x
        penultimate = functional.relu(self.bn1(x)).mean(dim=(2, 3))
        return Features(self.fc(penultimate), {**stages, "penultimate": penultimate})

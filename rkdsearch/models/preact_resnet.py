"""PreActResNet-18 with a CIFAR stem (He et al., ECCV 2016, https://arxiv.org/abs/1603.05027).

Parameter names are those of the robust literature: `conv1`, `layer1.0.bn1`, `layer2.0.shortcut.0`,
`bn`, `linear`. Some published checkpoints come from code without the last BatchNorm: they lack
`bn.*`, and loading refuses them with that list.
"""

from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from rkdsearch.models.base import Classifier, Features


class PreActBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3x3 convolutions.

    Where the shape changes, the shortcut projects the first activation.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        changes = stride != 1 or inputs != outputs
        self.shortcut = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False)) if changes else None
        )

    @override
    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(out)
        residual: Tensor = self.conv2(functional.relu(self.bn2(self.conv1(out))))
        return residual + shortcut


class PreActResNet18(Classifier):
    """Four stages of two blocks, 64 to 512 channels.

    `stage4` is taken before the last BatchNorm and ReLU, `penultimate` after them.
    """

    def __init__(self, *, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.layer1 = nn.Sequential(PreActBlock(64, 64, 1), PreActBlock(64, 64, 1))
        self.layer2 = nn.Sequential(PreActBlock(64, 128, 2), PreActBlock(128, 128, 1))
        self.layer3 = nn.Sequential(PreActBlock(128, 256, 2), PreActBlock(256, 256, 1))
        self.layer4 = nn.Sequential(PreActBlock(256, 512, 2), PreActBlock(512, 512, 1))
        self.bn = nn.BatchNorm2d(512)
        self.linear = nn.Linear(512, classes)

    @override
    def features(self, x: Tensor) -> Features:
        x = self.conv1(x)
        stages = {}
        for number, layer in enumerate(
            (self.layer1, self.layer2, self.layer3, self.layer4), start=1
        ):
            x = layer(x)
            stages[f"stage{number}"] = x
        penultimate = functional.relu(self.bn(x)).mean(dim=(2, 3))
        return Features(self.linear(penultimate), {**stages, "penultimate": penultimate})

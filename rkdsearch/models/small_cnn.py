"""A small CNN without BatchNorm, for images from 8x8 (digits) to 32x32 (CIFAR).

Convolutions have strides in place of pooling: on one CPU thread a max-pool costs as much as the
convolution before it.
"""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from rkdsearch.models.base import Classifier, Features
from rkdsearch.task import ImageTask


class SmallCNN(Classifier):
    """3x3 convolutions, each of twice the width of the last, and one linear layer.

    Their strides are 2, 1 where height or width is below 16 pixels, and 2, 2, 2 from there.
    """

    independent: ClassVar[bool] = True

    def __init__(self, task: ImageTask, *, width: int = 16) -> None:
        super().__init__()
        channels, height, across = task.shape
        strides = (2, 1) if min(height, across) < 16 else (2, 2, 2)
        convolutions = []
        for stride in strides:
            convolutions.append(nn.Conv2d(channels, width, 3, stride, padding=1))
            channels, width = width, 2 * width
            height, across = (height - 1) // stride + 1, (across - 1) // stride + 1
        self.convolutions = nn.ModuleList(convolutions)
        self.linear = nn.Linear(channels * height * across, task.classes)

    @override
    def features(self, x: Tensor) -> Features:
        stages = {}
        for number, convolution in enumerate(self.convolutions, start=1):
            x = functional.relu(convolution(x))
            stages[f"stage{number}"] = x
        penultimate = x.flatten(1)
        return Features(self.linear(penultimate), {**stages, "penultimate": penultimate})

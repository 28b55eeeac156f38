"""A multilayer perceptron: the cheapest student, and the one for tests of methods."""

import math
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from rkdsearch.models.base import Classifier, Features
from rkdsearch.task import ImageTask


class MLP(Classifier):
    """Two hidden layers over the flattened image. It has no spatial stage."""

    independent: ClassVar[bool] = True

    def __init__(self, task: ImageTask, *, width: int = 128) -> None:
        super().__init__()
        self.linear1 = nn.Linear(math.prod(task.shape), width)
        self.linear2 = nn.Linear(width, width)
        self.linear = nn.Linear(width, task.classes)

    @override
    def features(self, x: Tensor) -> Features:
        hidden = functional.relu(self.linear1(x.flatten(1)))
        penultimate = functional.relu(self.linear2(hidden))
        return Features(self.linear(penultimate), {"penultimate": penultimate})

"""A method without a default of its own."""

from typing_extensions import override

from rkdsearch.losses import cross_entropy
from rkdsearch.methods import Loss, Method, Step


class Weighted(Method):
    """Cross-entropy, times a weight that must be given."""

    weight: float

    @override
    def loss(self, step: Step) -> Loss:
        return Loss.weighted(label=(self.weight, cross_entropy(step.student(step.x), step.y)))

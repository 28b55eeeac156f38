"""A third party's method that breaks one law: it couples the batch without `step.all_gather`."""

import torch
from typing_extensions import override

from rkdsearch.losses import cross_entropy
from rkdsearch.methods import Loss, Method, Step


class Uncoupled(Method):
    """Cross-entropy, weighted by how each sample's compares with the batch's worst."""

    @override
    def loss(self, step: Step) -> Loss:
        values = cross_entropy(step.student(step.x), step.y)
        with torch.no_grad():
            share = values / values.max()
        return Loss.weighted(label=(1.0, share * values))

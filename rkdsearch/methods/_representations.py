"""Inner representations, for CRDND and ARDIR: widths, projectors between them, precision."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rkdsearch import models


def measure(network: nn.Module, image: Tensor) -> models.Features:
    """Logits and stages of one image (1, C, H, W).

    In eval mode: BatchNorm cannot normalise one sample, and must not learn from it.
    """
    modes = {module: module.training for module in network.modules()}
    try:
        network.eval()
        with torch.no_grad():
            return models.features(network, image)
    finally:
        for module, training in modes.items():
            module.training = training


def vector(activations: Tensor) -> Tensor:
    """(N, d) in at least single precision: maps (N, d, H, W) are averaged over their pixels."""
    if activations.dtype in (torch.float16, torch.bfloat16):
        activations = activations.float()
    return activations if activations.dim() == 2 else activations.flatten(2).mean(dim=2)


def projector(student: Tensor, teacher: Tensor) -> nn.Linear | None:
    """A linear map from the student's width to the teacher's; None where they agree."""
    d, wanted = vector(student).shape[1], vector(teacher).shape[1]
    return None if d == wanted else nn.Linear(d, wanted, device=student.device)


def projected(features: Tensor, through: Callable[[Tensor], Tensor] | None) -> Tensor:
    """The student's vectors (N, d), in the teacher's width."""
    return vector(features) if through is None else through(vector(features))

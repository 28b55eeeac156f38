"""The interface of networks: logits, and the named representations behind them.

Pixels of [0, 1] outside, normalisation inside.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from rkdsearch.errors import ConfigError

_MEAN, _STD = "pixel_mean", "pixel_std"


@dataclass(frozen=True)
class Features:
    """Result of a forward pass: logits (N, K) and named representations.

    `stages` is in the order of computation: `stage1`, `stage2`, ... (N, C, H, W), then
    `penultimate` (N, d), which is taken after the last activation and pooling. A network that is
    not a `Classifier` gives `penultimate` alone.
    """

    logits: Tensor
    stages: dict[str, Tensor]

    @property
    def penultimate(self) -> Tensor:
        """(N, d): the input of the last linear layer."""
        return self.stages["penultimate"]


class Classifier(nn.Module, ABC):
    """Images (N, C, H, W), pixels of [0, 1], in; logits (N, K) out."""

    independent: ClassVar[bool] = (
        # True: each image is processed alone, and in training as in eval mode: no BatchNorm, no
        # dropout
        False
    )
    # prefixes of parameters that published checkpoints carry and no image passes
    unused_in_checkpoints: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def features(self, x: Tensor) -> Features:
        """Forward pass of normalised images, with all named representations."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).logits


def normalise_inside(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
    """Make `network` normalise its input: (pixel - mean) / std, one number per channel.

    The numbers are buffers outside the state dict, and a hook applies them: parameters keep the
    names that published checkpoints use.
    """
    first = next(network.parameters())
    for name, values in ((_MEAN, mean), (_STD, std)):
        buffer = torch.tensor(values, dtype=first.dtype, device=first.device).reshape(1, -1, 1, 1)
        network.register_buffer(name, buffer, persistent=False)
    if _normalise not in network._forward_pre_hooks.values():  # noqa: SLF001 - torch lists a module's hooks nowhere else
        network.register_forward_pre_hook(_normalise)


def normalisation(network: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std that `normalise_inside` set, one number per channel; None where it did not."""
    buffers = dict(network.named_buffers(recurse=False))
    if _MEAN not in buffers:
        return None
    return tuple(buffers[_MEAN].flatten().tolist()), tuple(buffers[_STD].flatten().tolist())


def _normalise(network: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    mean, std = cast(Tensor, network.pixel_mean), cast(Tensor, network.pixel_std)
    return ((inputs[0] - mean) / std,)


def features(network: nn.Module, x: Tensor) -> Features:
    """Logits and named representations of images (N, C, H, W), pixels of [0, 1].

    A foreign network's `penultimate` is the input of the linear layer that makes the logits. Raises
    ConfigError where no linear layer does.
    """
    if isinstance(network, Classifier):
        return network.features(*_normalise(network, (x,)) if hasattr(network, _MEAN) else (x,))
    calls: list[tuple[Tensor, Tensor]] = []

    def remember(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        calls.append((inputs[0], output))

    hooks = [
        module.register_forward_hook(remember)
        for module in network.modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        logits: Tensor = network(x)
    finally:
        for hook in hooks:
            hook.remove()
    if not calls or calls[-1][1] is not logits or logits.dim() != 2:
        raise ConfigError(
            f"{type(network).__name__} has no penultimate features: its logits are not made by a"
            " linear layer over vectors (N, d). Choose a method that needs none, end the network"
            " in nn.Linear, or derive it from rkdsearch.models.Classifier"
        )
    return Features(logits, {"penultimate": calls[-1][0]})

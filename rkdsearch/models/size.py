"""Inference cost of a network, known before it is trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from typing_extensions import override

from rkdsearch.task import ImageTask


@dataclass(frozen=True)
class Size:
    """Parameters, and multiply-adds of one image's forward pass.

    BatchNorm's scales and shifts are parameters, its statistics are not. Multiply-adds are counted
    as in the literature: of convolutions and matrix products, without normalisation, activations
    and sums.
    """

    parameters: int
    multiply_adds: int


def count(network: nn.Module, task: ImageTask) -> Size:
    """Size of a network on the CPU; the network keeps its mode."""
    training, fast = network.training, torch.backends.mha.get_fastpath_enabled()
    # fused attention has no formula
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), _Counting() as counting:  # type: ignore[no-untyped-call]  # torch types neither
            network.eval()(torch.zeros(1, *task.shape))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    network.train(training)
    return Size(sum(p.numel() for p in network.parameters()), counting.operations // 2)


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations by torch's own formulas.

    torch's own counter would import the compiler: five seconds in every worker.
    """

    operations = 0

    @override
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would import the compiler to make it skip this

    @override
    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.operations += formula(*args, **(kwargs or {}), out_val=out)
        return out

"""What a network costs whoever runs it, known before it is trained."""

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
    """Weights and biases, BatchNorm's scales and shifts among them, its statistics not; and the multiply-adds of one image's forward pass.

    Multiply-adds are those of convolutions and matrix products, as the field counts them:
    normalisation, activations and sums are left out.
    """

    parameters: int
    multiply_adds: int


def count(network: nn.Module, task: ImageTask) -> Size:
    """The size of a network on the CPU. The network keeps its mode."""
    training, fast = network.training, torch.backends.mha.get_fastpath_enabled()
    # attention fused into one operation has no formula
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), _Counting() as counting:  # type: ignore[no-untyped-call]  # torch types neither
            network.eval()(torch.zeros(1, *task.shape))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    network.train(training)
    return Size(sum(p.numel() for p in network.parameters()), counting.operations // 2)


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Torch's own formulas, without its own counter: that one imports the compiler, five seconds in every worker."""

    operations = 0

    @override
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to tell the compiler to skip this, torch would import it

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

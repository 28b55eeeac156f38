"""All-gather of a batch over the processes of a run, for losses that couple its images."""

from typing import Any, cast

import torch
from torch import Tensor, distributed
from torch.autograd.function import FunctionCtx
from typing_extensions import override


def gather_rows(tensor: Tensor) -> Tensor:
    """The rows (N, ...) of all P processes as (P * N, ...), in rank order; N is the same on each.

    One process gets `tensor` itself. The gradient is summed over processes. A loss that every
    process computes from all rows therefore gives P times its gradient, and the mean over
    processes, which DDP takes, is the gradient of the joined batch. So a method needs no factor.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return tensor
    return cast("Tensor", _GatherRows.apply(tensor))


class _GatherRows(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        parts = [
            torch.empty_like(tensor, memory_format=torch.contiguous_format)
            for _ in range(distributed.get_world_size())
        ]
        distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    @override
    def backward(ctx: FunctionCtx, *gradients: Any) -> Tensor:
        # A copy: all_reduce writes in place, and autograd may hold the same tensor elsewhere.
        whole = gradients[0].contiguous().clone()
        distributed.all_reduce(whole)
        n, rank = len(whole) // distributed.get_world_size(), distributed.get_rank()
        return cast("Tensor", whole[n * rank : n * (rank + 1)])


def reset_group() -> None:
    """Leave the process group of an earlier run, so that the next run can form another one."""
    from accelerate.state import AcceleratorState

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    # Accelerate has no public way to form a second group.
    AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001

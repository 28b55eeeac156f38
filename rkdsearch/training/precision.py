"""Numeric precision of a run: the weights' dtype, and the context of a forward pass."""

from contextlib import nullcontext

import torch

from rkdsearch.methods import Precision

# Half precision is autocast's, and TF32 a way to multiply: the weights stay float32.
WEIGHT_DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.float32,
    "fp64": torch.float64,
}


def forward_context(precision: str, device: torch.device) -> Precision:
    """The context of every forward pass: autocast for bf16, else none.

    Weights are not cached: a forward pass without gradients would leave copies without gradients
    (pytorch#112583).
    """
    if precision != "bf16":
        return nullcontext
    return lambda: torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)

"""Per-sample losses: logits (N, K) in, (N,) nats out, unreduced. The caller reduces, once.

One convention everywhere: a divergence is summed over the K classes and never multiplied by
temperature**2. A method that repeats another convention of a paper or script (element means,
factors of 10, a 1e-5 inside the logarithm) writes it out. Half precision is computed in float32;
float64 stays float64.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override


def log_probabilities(logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """log softmax(logits / temperature), (N, K) nats; `temperature` is a number or (N, 1)."""
    logits = _softened(logits, temperature)
    return logits.t().log_softmax(dim=0).t() if _are_few(logits) else logits.log_softmax(dim=1)


def probabilities(logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """softmax(logits / temperature), (N, K)."""
    logits = _softened(logits, temperature)
    return logits.t().softmax(dim=0).t() if _are_few(logits) else logits.softmax(dim=1)


def cross_entropy(logits: Tensor, y: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """-log p(y). Logits (N, K), labels (N,) integers; returns (N,) nats."""
    return functional.cross_entropy(
        _softened(logits, 1), y, reduction="none", label_smoothing=label_smoothing
    )


def soft_cross_entropy(prediction: Tensor, *, target: Tensor, temperature: float = 1.0) -> Tensor:
    """-sum_k p_target log p_prediction: the divergence plus the target's entropy.

    Logits (N, K) both; returns (N,) nats.
    """
    return -(probabilities(target, temperature) * log_probabilities(prediction, temperature)).sum(
        dim=1
    )


def kl_divergence(
    prediction: Tensor,
    *,
    target: Tensor,
    temperature: float = 1.0,
    target_temperature: float | Tensor | None = None,
    offset: float = 0.0,
) -> Tensor:
    """KL(target || prediction), summed over classes.

    Logits (N, K) both; returns (N,) nats, not multiplied by temperature**2. Gradient flows into
    `target` where it carries one (TRADES, IAD); for a constant target the caller uses `detach` or
    `no_grad`. `target_temperature`, a number or (N, 1), softens the target alone; by default both
    sides share `temperature`. `offset` is added to the target's probability inside the logarithm,
    as some released scripts do (1e-5): it moves the value, not the gradient.
    """
    log_target = log_probabilities(
        target, temperature if target_temperature is None else target_temperature
    )
    p = log_target.exp()
    if offset:
        log_target = (p + offset).log()
    if p.requires_grad:
        return (p * (log_target - log_probabilities(prediction, temperature))).sum(dim=1)
    divergence: Tensor = _KLToConstant.apply(_softened(prediction, temperature), p, log_target)
    return divergence


class _KLToConstant(torch.autograd.Function):
    """sum_k p (log p - log softmax(logits)) for a constant p (N, K).

    Its gradient is one subtraction, where autograd takes ten operations.
    """

    @override
    @staticmethod
    def forward(ctx: Any, logits: Tensor, p: Tensor, log_p: Tensor) -> Tensor:
        ctx.save_for_backward(logits, p)
        return (p * (log_p - log_probabilities(logits))).sum(dim=1)

    @override
    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        logits, p = ctx.saved_tensors
        return (probabilities(logits) - p) * slope[:, None], None, None


def kl_to_probabilities(prediction: Tensor, *, target: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(target || prediction), (N,) nats, for target probabilities (N, K), zeros allowed."""
    divergence: Tensor = torch.special.xlogy(target, target) - target * log_probabilities(
        prediction, temperature
    )
    return divergence.sum(dim=1)


def entropy(logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """-sum_k p log p of softmax(logits / temperature), (N,) nats."""
    log_p = log_probabilities(logits, temperature)
    return -(log_p.exp() * log_p).sum(dim=1)


def _are_few(logits: Tensor) -> bool:
    """True where softmax is faster over columns.

    On a CPU, torch takes four times as long over rows shorter than a vector register.
    """
    return logits.is_cpu and logits.shape[1] <= 16


def _softened(logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Logits / temperature, in at least single precision."""
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return (
        logits
        if isinstance(temperature, float | int) and temperature == 1
        else logits / temperature
    )

"""Per-sample losses: logits (N, K) in, (N,) nats out, unreduced. The caller reduces, once.

One convention everywhere: a divergence is summed over the K classes and never multiplied by
temperature**2. A method that repeats another convention of a paper or script (element means,
factors of 10, a 1e-5 inside the logarithm) writes it out. Half precision is computed in float32;
float64 stays float64.

At a high temperature two softened distributions differ by 1 / temperature, their divergence by its
square. In float32 the sum of p (log p - log q) is then rounding noise, which tau^2 magnifies. From
`HIGH_TEMPERATURE` on it is computed from differences of logits instead (`_Differences`).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

# Below it, rounding is under 1e-3 of tau^2 KL and 1e-5 of its gradient, and the short way is three
# times as fast.
HIGH_TEMPERATURE = 50.0


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
    if _need_differences(prediction, target, temperature):  # the gradient is the divergence's
        return kl_divergence(prediction, target=target, temperature=temperature) + entropy(
            target, temperature
        )
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
    if (
        (target_temperature is None or target_temperature is temperature)
        and not offset
        and _need_differences(prediction, target, temperature)
    ):
        return _softened_divergence(prediction, target, temperature)
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


def divergence_slope(prediction: Tensor, *, target: Tensor, temperature: float = 1.0) -> Tensor:
    """softmax(prediction / temperature) - softmax(target / temperature), (N, K), without graph.

    Divided by the temperature it is the gradient of `kl_divergence` for a constant target.
    """
    plain = probabilities(prediction, temperature).sub_(probabilities(target, temperature))
    if not _need_differences(prediction, target, temperature):
        return plain
    found = _differences(prediction, target, temperature)
    down = torch.expm1(-found.u)
    rest = (found.p * down).sum(dim=1, keepdim=True)
    return torch.where(found.small, found.p * (down - rest) / (1 + rest), plain)


def _need_differences(prediction: Tensor, target: Tensor, temperature: float) -> bool:
    """True where rounding would drown the divergence of two softened distributions."""
    return temperature >= HIGH_TEMPERATURE and torch.float64 not in (prediction.dtype, target.dtype)


@dataclass(frozen=True)
class _Differences:
    """Two softened distributions p and q by their differences: q_k / p_k = exp(-u_k) / S.

    p (N, K); u (N, K), of mean 0 under p; `small`, (N, 1), True where every |u_k| is below 1/2:
    elsewhere u is 0, and the usual formulas are exact enough.
    """

    p: Tensor
    u: Tensor
    small: Tensor


def _differences(prediction: Tensor, target: Tensor, temperature: float) -> _Differences:
    p = probabilities(target, temperature)
    # differences before quotients and sums: a common offset of the logits costs no digits
    gap = _softened(target, 1) - _softened(prediction, 1)
    gap = (gap - gap.mean(dim=1, keepdim=True)) / temperature
    u = gap - (p * gap).sum(dim=1, keepdim=True)
    small = u.detach().abs().amax(dim=1, keepdim=True) < 0.5
    return _Differences(p, torch.where(small, u, 0.0), small)


def _softened_divergence(prediction: Tensor, target: Tensor, temperature: float) -> Tensor:
    """KL(target || prediction) = log sum_k p_k exp(-u_k), (N,) nats, where u has mean 0 under p.

    exp(-u) - 1 + u is a sum of powers from u^2 / 2 on: no term cancels another, in the value or in
    its derivatives.
    """
    found = _differences(prediction, target, temperature)
    u = found.u
    # u^2 / 2! - u^3 / 3! + ... - u^9 / 9! by Horner's rule, exact to float32 below 1/2
    series = 1 - u / 9
    for n in range(8, 2, -1):
        series = 1 - u / n * series
    powers = u * u / 2 * series
    divergence = torch.log1p((found.p * powers).sum(dim=1))
    if found.small.is_cpu and bool(found.small.all()):  # a GPU would have to wait for the answer
        return divergence
    log_target = log_probabilities(target, temperature)
    plain = (log_target.exp() * (log_target - log_probabilities(prediction, temperature))).sum(
        dim=1
    )
    return torch.where(found.small[:, 0], divergence, plain)


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

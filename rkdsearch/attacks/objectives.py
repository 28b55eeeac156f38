"""Attack objectives: functions of images that x' maximises, and their gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rkdsearch.models import Gradient, Slope

# Images (N, C, H, W) to (N,). The next attack step overwrites the images: clone what is kept.
AttackObjective = Callable[[Tensor], Tensor]


class Network(Protocol):
    """Images (N, C, H, W) with pixels of [0, 1] in, logits (N, K) out, for an attack."""

    def __call__(self, x: Tensor) -> Tensor:
        """Logits."""
        ...

    def closed_form_gradient(self, slope: Slope, x: Tensor) -> Gradient | None:
        """x' to dJ/dx' for images shaped like `x`, or None where only autograd knows it.

        `slope` turns logits into dJ/dlogits.
        """
        ...


@dataclass(frozen=True)
class LogitLoss:
    """A per-sample loss of logits whose gradient is known in closed form.

    `value` maps logits (N, K) to (N,), `gradient` to (N, K): the gradient of the values' sum.
    `value` may carry no graph.
    """

    value: Callable[[Tensor], Tensor]
    gradient: Callable[[Tensor], Tensor]

    def __call__(self, logits: Tensor) -> Tensor:
        """The loss, (N,)."""
        return self.value(logits)

    def of(self, network: Network) -> "LogitObjective":
        """The attack objective J(x') = loss(network(x'))."""
        return LogitObjective(network, self)


@dataclass(frozen=True)
class LogitObjective:
    """J(x') = loss(network(x')). An attack step costs the network's forward and backward alone."""

    network: Network
    loss: LogitLoss

    def __call__(self, x: Tensor) -> Tensor:
        """J, (N,)."""
        return self.loss(self.network(x))


def gradient_of(objective: AttackObjective, x: Tensor) -> Gradient:
    """x' to d(sum of objective)/dx', for images shaped like `x`.

    Computes no parameter's gradient and fires no DDP hook.
    """
    if not isinstance(objective, LogitObjective):
        return lambda x_adv: _by_autograd(objective, torch.ones_like, x_adv)
    network, slope = objective.network, objective.loss.gradient
    return network.closed_form_gradient(slope, x) or (
        lambda x_adv: _by_autograd(network, slope, x_adv)
    )


def finite_gradient_of(objective: AttackObjective, x: Tensor) -> Gradient:
    """`gradient_of` with 0 for what is not a number and the largest number for infinity.

    A network may have no derivative somewhere (the root of a black pixel); the other pixels have.
    """
    gradient = gradient_of(objective, x)
    return lambda x_adv: gradient(x_adv).nan_to_num()


def input_gradient(objective: AttackObjective, x: Tensor) -> Tensor:
    """d(sum of objective)/dx, of x's shape."""
    return gradient_of(objective, x)(x)


def _by_autograd(function: Callable[[Tensor], Tensor], slope: Slope, x: Tensor) -> Tensor:
    """dJ/dx, of x's shape, where `slope` turns the function's output into dJ/doutput.

    0 where the output does not depend on x by any derivative.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        output = function(x)
    if not output.requires_grad:
        return torch.zeros_like(x)
    factor = slope(output.detach()).to(output.dtype)
    # A factor and not `grad_outputs`: for those torch imports sympy, half a second in every worker.
    # The gradient is the same to the last bit.
    with torch.enable_grad():
        inner = (output * factor).sum()
    # zeros where x takes no part in the graph: this is not the network's only input
    (gradient,) = torch.autograd.grad(inner, x, materialize_grads=True)
    return gradient

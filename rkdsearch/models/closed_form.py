"""Closed-form input gradients of small networks: the cost of every attack step.

Autograd differentiates any network. A chain, matrices with ReLUs between them, may be so small that
autograd and module calls cost as much as its arithmetic. The gradient of a frozen chain is
therefore computed directly, by a few matrix products. On a CPU, a convolution of a few small maps
is computed as a matrix, too: its gradient to the images then costs a tenth of oneDNN's, which is
made for large maps.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from typing_extensions import override

Slope = Callable[[Tensor], Tensor]  # logits (N, K) to dJ/dlogits
Gradient = Callable[[Tensor], Tensor]  # images to dJ/dx
Matrix = tuple[Tensor, Tensor, torch.Size]


# Up to this size the matrix is faster than the convolution, at batch 128 on one thread.
MATRIX_NUMBERS = 2**15


class MatrixConvolution(nn.Conv2d):
    """A frozen convolution, computed as a matrix product wherever its matrix is small."""

    matrices: dict[torch.Size, Matrix | None]  # by the shape of an image (C, H, W)
    # Unit images: the convolution's outputs for them are its matrix, whatever its stride, padding
    # and groups.
    units: dict[torch.Size, Tensor]

    @override
    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or (found := self.matrix(x.shape[1:])) is None:
            return super().forward(x)
        matrix, bias, into = found
        return functional.linear(x.flatten(1), matrix, bias).view(-1, *into)

    def matrix(self, shape: torch.Size) -> Matrix | None:
        """The convolution as a matrix (outputs, C H W), its biases, and the shape of its output.

        None where the convolution is faster. New weights are written into the same tensors.
        """
        if shape not in self.matrices:
            small = self.weight.device.type == "cpu" and (
                shape.numel() * self._outputs(shape) <= MATRIX_NUMBERS
            )
            if small:
                self.units[shape] = torch.eye(shape.numel(), dtype=self.weight.dtype).view(
                    -1, *shape
                )
            self.matrices[shape] = self._unrolled(shape) if small else None
        return self.matrices[shape]

    @torch.no_grad()
    def _outputs(self, shape: torch.Size) -> int:
        """Numbers that the convolution computes from one image of this shape.

        One blank image is convolved for it: on `meta` tensors, torch would import sympy, half a
        second in every worker.
        """
        blank = self.weight.new_zeros((1, *shape))
        return int(self._conv_forward(blank, self.weight, None).numel())

    def refresh(self) -> None:
        """Recompute the matrices, in place, from the current weights."""
        for shape in self.units:
            for old, new in zip(
                cast(Matrix, self.matrices[shape])[:2], self._unrolled(shape)[:2], strict=True
            ):
                old.copy_(new)

    # the first call may be in inference mode, and later ones need gradients
    @torch.inference_mode(False)
    @torch.no_grad()
    def _unrolled(self, shape: torch.Size) -> Matrix:
        with torch.autocast("cpu", enabled=False):
            outputs = self._conv_forward(self.units[shape], self.weight, None)
        matrix, into = outputs.flatten(1).t(), outputs.shape[1:]
        bias = (
            matrix.new_zeros(into.numel())
            if self.bias is None
            else self.bias.repeat_interleave(into[1:].numel())
        )
        return matrix, bias, into


@dataclass(frozen=True)
class Chain:
    """relu(... relu(x W1' + b1) ...) Wn' + bn over flattened images."""

    layers: tuple[nn.Linear | MatrixConvolution, ...]
    # by shape, type and device of a batch
    prepared: dict[tuple[torch.Size, torch.dtype, torch.device], "Prepared | None"] = field(
        default_factory=dict
    )

    # the first call may be in inference mode, and later calls write outside it
    @torch.inference_mode(False)
    def prepare(self, x: Tensor) -> "Prepared | None":
        """Weights and buffers for the gradient of batches like `x`, made once.

        None where a layer is not a small matrix for these images.
        """
        key = x.shape, x.dtype, x.device
        if key not in self.prepared:
            weights = self._weights(x.shape[1:])
            self.prepared[key] = None if weights is None else Prepared(weights, x)
        return self.prepared[key]

    def _weights(self, into: torch.Size) -> list[tuple[Tensor, Tensor]] | None:
        """Every W and b for images of this shape; None where one is not a small matrix."""
        found: list[tuple[Tensor, Tensor]] = []
        for layer in self.layers:
            matrix = (
                (layer.weight, layer.bias, into)
                if isinstance(layer, nn.Linear)
                else layer.matrix(into)
            )
            if matrix is None:
                return None
            found.append(matrix[:2])
            into = matrix[2]
        return found


class Prepared:
    """Weights of a chain, and reused buffers between its layers.

    The weights stay the same tensors; every gradient overwrites the buffers. Buffers of the last
    batch are still in cache and new memory is not: reuse saves a tenth of a small network's attack.
    """

    def __init__(self, weights: list[tuple[Tensor, Tensor]], x: Tensor) -> None:
        *self.hidden, (self.last, self.last_bias) = weights
        self.between = [
            (x.new_empty(len(x), len(matrix)), x.new_empty(len(x), len(matrix)))
            for matrix, _ in self.hidden
        ]
        self.transposed_logits = x.new_empty(len(self.last), len(x))

    def gradient(self, slope: Slope) -> Gradient:
        """The function x to dJ/dx. All views are made here, once for all steps of an attack."""
        forward = [
            (matrix.t(), bias, h)
            for (matrix, bias), (h, _) in zip(self.hidden, self.between, strict=True)
        ]
        backward = [
            (into, h, matrix)
            for (matrix, _), (h, into) in zip(self.hidden, self.between, strict=True)
        ][::-1]
        last, last_bias = self.last, self.last_bias[:, None]
        transposed, logits = self.transposed_logits, self.transposed_logits.t()
        threshold = torch.ops.aten.threshold_backward.grad_input
        ends = self.between[-1][0].t() if self.between else None

        def of(x: Tensor) -> Tensor:
            h = x.detach().flatten(1)
            for matrix, bias, into in forward:
                h = torch.addmm(bias, h, matrix, out=into).relu_()
            # MKL takes half the time for a product with few rows, W h', that it takes for one with
            # few columns, h W'.
            torch.addmm(last_bias, last, h.t() if ends is None else ends, out=transposed)
            slopes, above = slope(logits), last
            if slopes.dtype != logits.dtype:
                slopes = slopes.to(logits.dtype)
            for into, h, matrix in backward:
                slopes = threshold(torch.mm(slopes, above, out=into), h, 0, grad_input=into)
                above = matrix
            return torch.mm(slopes, above).view_as(x)

        return of


def closed_form_gradient(network: object, slope: Slope, x: Tensor) -> Gradient | None:
    """Closed-form input gradient of a chain, for batches shaped like `x`, or None.

    None where `network` is no chain, or computes in half precision. `slope` turns logits (N, K)
    into dJ/dlogits. It must not keep them, nor ask this network for another gradient. Images and
    returned gradients are never overwritten here.
    """
    chain = _chains.get(network) if isinstance(network, nn.Module) else None
    if (
        chain is None
        or torch.is_autocast_enabled(x.device.type)
        or (prepared := chain.prepare(x)) is None
    ):
        return None
    return prepared.gradient(slope)


def register(network: nn.Module, graph: fx.Graph) -> None:
    """Register a frozen network for `closed_form_gradient`, where its graph is a chain."""
    modules = dict(network.named_modules(remove_duplicate=False))
    nodes = list(graph.nodes)
    follows = all(node.args[:1] == (before,) for before, node in pairwise(nodes))
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in modules.values())  # noqa: SLF001 - torch lists a module's hooks nowhere else
    steps = [_step(node, modules.get(str(node.target))) for node in nodes[1:-1]]
    layers = tuple(step for step in steps if isinstance(step, nn.Module))
    # Matrices and ReLUs in turn, and one flattening before the first linear layer.
    words = "".join(
        step if isinstance(step, str) else "linear " if isinstance(step, nn.Linear) else "map "
        for step in steps
    )
    if (
        follows
        and not hooked
        and re.fullmatch(r"(map relu )*flatten (linear relu )*linear ", words)
    ):
        _chains[network] = Chain(layers)


def _step(node: fx.Node, module: nn.Module | None) -> nn.Linear | MatrixConvolution | str:
    """A matrix layer, or a word for the operation between two of them."""
    if node.op == "call_module":
        match module:
            case MatrixConvolution():
                return module
            # not a subclass: a parametrised layer computes its weight at every access
            case nn.Linear(bias=Tensor()) if type(module) is nn.Linear:
                return module
            case nn.ReLU():
                return "relu "
            case nn.Flatten(start_dim=1, end_dim=-1):
                return "flatten "
            case nn.Identity():
                return ""
    if node.target in (functional.relu, torch.relu, "relu"):
        return "relu "
    if node.target in (torch.flatten, "flatten") and node.args[1:] == (1,) and not node.kwargs:
        return "flatten "
    return "other "


_chains: WeakKeyDictionary[nn.Module, Chain] = WeakKeyDictionary()

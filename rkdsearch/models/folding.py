"""Inference copies for attacks: eval mode, no parameter gradients, BatchNorm folded.

In eval mode BatchNorm multiplies and adds constants, and so does the convolution or linear layer
before it:

    scale = gamma / sqrt(var + eps)        W' = scale W        b' = scale (b - mean) + beta

An attack of ten steps then saves ten passes over every activation, forward and backward. Small
convolutions are unrolled into matrices (`closed_form.py`).

Exact in real numbers. In float64 the results agree to 1e-12; in float32 sums are rounded
differently.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, fx, nn

from rkdsearch.models import closed_form
from rkdsearch.models.closed_form import MatrixConvolution

_FOLLOWERS: dict[type[nn.Module], tuple[type[nn.Module], ...]] = {
    nn.Conv1d: (nn.BatchNorm1d, nn.SyncBatchNorm),
    nn.Conv2d: (nn.BatchNorm2d, nn.SyncBatchNorm),
    nn.Conv3d: (nn.BatchNorm3d, nn.SyncBatchNorm),
    nn.Linear: (nn.BatchNorm1d, nn.SyncBatchNorm),
}


@dataclass(frozen=True)
class _Pair:
    """A layer and the BatchNorm after it, both of the live network, and their folded layer.

    The folded layer belongs to the inference copy.
    """

    layer: nn.Conv2d | nn.Linear
    norm: nn.BatchNorm2d
    folded: nn.Conv2d | nn.Linear

    def refresh(self) -> None:
        """Recompute the folded weights from the live network."""
        norm, weight = self.norm, self.layer.weight
        mean, var = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        scale = (var + norm.eps).rsqrt()
        if norm.affine:
            scale = scale * norm.weight
        shift = -mean if self.layer.bias is None else self.layer.bias - mean
        shift = shift * scale
        if norm.affine:
            shift = shift + norm.bias
        # copy_ keeps the memory format of the folded weight, which is the live one's.
        self.folded.weight.copy_(weight * scale.reshape(-1, *[1] * (weight.dim() - 1)))
        cast(Tensor, self.folded.bias).copy_(shift)


def inference_copy(network: nn.Module, *, compiled: bool = False) -> Callable[[], nn.Module]:
    """A function that returns the network's inference copy, with up-to-date folded weights.

    The copy shares the network's parameters and statistics. A call costs a few small operations for
    each BatchNorm and each unrolled convolution, and no host synchronisation. Where parameters were
    moved or cast, the copy is built anew. Gradients flow to the images, never to a parameter. A
    network that torch.fx cannot trace, or a BatchNorm that does not directly follow a convolution
    or linear layer, stays unfolded: slower, with the same result. With `compiled`, calls go through
    torch's compiler; compiled once, because the folded tensors stay in place.
    """
    where: list[tuple[int, torch.dtype]] = []
    built: list[tuple[nn.Module, list[_Pair | MatrixConvolution]]] = []

    @torch.no_grad()
    def current() -> nn.Module:
        now = [
            (tensor.data_ptr(), tensor.dtype)
            for tensor in (*network.parameters(), *network.buffers())
        ]
        if now != where:
            where[:] = now
            built[:] = [_build(network)]
            if compiled:
                built[0][0].compile()  # in place: `closed_form` knows this very module
        ((copied, parts),) = built
        for part in parts:
            part.refresh()
        return copied

    return current


def fold(network: nn.Module) -> nn.Module:
    """A frozen eval-mode copy with BatchNorm folded, for a network that is no longer trained.

    Gradients still flow to its input.
    """
    return inference_copy(network)()


def _build(network: nn.Module) -> tuple[nn.Module, list[_Pair | MatrixConvolution]]:
    """The inference copy, and its parts to refresh, in order."""
    copied = _copy_over_storage(network)
    parts: list[_Pair | MatrixConvolution] = []
    graph = _graph(copied)
    for layer_name, norm_name in [] if graph is None else _foldable(copied, graph):
        folded = cast(nn.Conv2d, copied.get_submodule(layer_name))
        layer = cast(nn.Conv2d, network.get_submodule(layer_name))
        parts.append(_Pair(layer, cast(nn.BatchNorm2d, network.get_submodule(norm_name)), folded))
        folded.weight = nn.Parameter(torch.empty_like(layer.weight), requires_grad=False)
        folded.bias = nn.Parameter(layer.weight.new_empty(len(layer.weight)), requires_grad=False)
        parent, _, child = norm_name.rpartition(".")
        copied.get_submodule(parent).register_module(child, nn.Identity())
    for module in copied.modules():
        if type(module) is nn.Conv2d:
            # in place in our copy: names, weights and hooks stay
            module.__class__ = MatrixConvolution
            unrolled = cast(MatrixConvolution, module)
            unrolled.matrices, unrolled.units = {}, {}
            parts.append(unrolled)
    if graph is not None:
        closed_form.register(copied, graph)
    return copied, parts


def _copy_over_storage(network: nn.Module) -> nn.Module:
    """A copy of the modules over the same storage, in eval mode, without parameter gradients."""
    shared: dict[int, object] = {
        id(p): nn.Parameter(p.detach(), requires_grad=False) for p in network.parameters()
    }
    shared |= {id(b): b for b in network.buffers()}
    return copy.deepcopy(network, shared).eval()


def _graph(network: nn.Module) -> fx.Graph | None:
    """The traced operations in order; None where they depend on the images."""
    try:
        return fx.Tracer().trace(network)
    except Exception:  # noqa: BLE001 - tracing runs the user's forward on symbols, which may fail in any way; unfolded works too
        return None


def _foldable(network: nn.Module, graph: fx.Graph) -> list[tuple[str, str]]:
    """Names of the (layer, BatchNorm) pairs that can be folded.

    Only the BatchNorm reads the layer's output, and each is called once.
    """
    modules = dict(network.named_modules(remove_duplicate=False))
    calls = [modules[str(node.target)] for node in graph.nodes if node.op == "call_module"]
    read_directly = {
        str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"
    }
    pairs = []
    for node in graph.nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        layer, norm = modules[str(source.target)], modules[str(node.target)]
        once = (
            calls.count(layer) == 1
            and calls.count(norm) == 1
            and not {source.target, node.target} & read_directly
        )
        if (
            once
            and type(norm) in _FOLLOWERS.get(type(layer), ())
            and _is_constant(norm)
            and not (_hooked(layer) or _hooked(norm))
        ):
            pairs.append((str(source.target), str(node.target)))
    return pairs


def _is_constant(norm: nn.Module) -> bool:
    """True with running statistics. Without them, BatchNorm uses the batch in eval mode too."""
    return (
        isinstance(norm, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001 - torch names no public parent
        and norm.running_mean is not None
        and norm.running_var is not None
    )


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)  # noqa: SLF001 - torch lists a module's hooks nowhere else

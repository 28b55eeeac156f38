"""The optimizers of a run: the student's, and those of companions with their own."""

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import nn

from rkdsearch.config import OptimizerConfig
from rkdsearch.methods import Companion


def build_optimizers(
    config: OptimizerConfig, student: nn.Module, companions: Mapping[str, Companion]
) -> list[torch.optim.Optimizer]:
    """The student's optimizer, then one for each companion that has its own.

    The first has a parameter group for each companion that shares it. The parameters must be on the
    device and in the memory layout in which they are trained.
    """

    def build(groups: list[dict[str, Any]], settings: Mapping[str, float]) -> torch.optim.Optimizer:
        values: dict[str, Any] = {
            "lr": config.lr,
            "momentum": config.momentum,
            "weight_decay": config.weight_decay,
            **settings,
        }
        if all(_is_plain(p) for group in groups for p in group["params"]):
            values["fused"] = True
        if config.name == "adamw":
            momentum = values.pop("momentum")
            return without_compiler(torch.optim.AdamW)(groups, betas=(momentum, 0.999), **values)
        sgd = without_compiler(torch.optim.SGD)(groups, nesterov=config.nesterov, **values)
        for group in sgd.param_groups:
            # torch would take the first gradient as the buffer; 0.9 * 0 + g is the same. The fused
            # kernel needs all buffers or none, though a parameter may get its first gradient late.
            sgd.state.update(
                {
                    p: {"momentum_buffer": torch.zeros_like(p)}
                    for p in group["params"]
                    if group["momentum"]
                }
            )
        return sgd

    shared: list[dict[str, Any]] = [{"params": list(student.parameters())}]
    shared += [
        {"params": list(c.module.parameters()), **c.settings}
        for c in companions.values()
        if not c.own_optimizer
    ]
    own = [
        build([{"params": list(c.module.parameters())}], c.settings)
        for c in companions.values()
        if c.own_optimizer
    ]
    optimizers = [build(shared, {}), *own]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        optimizer.register_step_post_hook(_count_step)
    return optimizers


@cache
def without_compiler(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """The optimizer, which does not import torch's compiler: two seconds of every process.

    torch's own imports it to exempt its methods from being compiled, whether or not anything is.
    Of a run that compiles, the student alone is compiled.
    """
    for method in vars(torch.optim.Optimizer).values():
        if exempt := getattr(method, "__wrapped__", None):
            # where `torch._disable_dynamo` looks before it imports
            exempt.__dynamo_disable = exempt  # noqa: SLF001 - torch has no public switch
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), {"step": step})


def _count_step(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Count the step as a change of the weights, which torch's fused step omits.

    So autograd refuses a backward pass through an older graph.
    """
    torch.autograd.graph.increment_version(
        [p for group in optimizer.param_groups for p in group["params"]]
    )


def _is_plain(parameter: nn.Parameter) -> bool:
    """True where torch's fused CPU kernel is safe for this parameter.

    The fused step is one call for all parameters, the plain step four to ten for each. The kernel
    walks a parameter, its gradient and its moments through memory together and ignores their
    layouts. Autograd gives the gradient the layout of the parameter only where that has neither
    gaps nor overlaps. A gradient that is assigned by hand must have that layout, too.
    """
    channels_last = parameter.dim() == 4 and parameter.is_contiguous(
        memory_format=torch.channels_last
    )
    return (
        parameter.is_cpu
        and parameter.is_floating_point()
        and (parameter.is_contiguous() or channels_last)
    )

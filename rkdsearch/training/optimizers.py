"""The optimizers of a run: the student's, and those of companions that train beside it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rkdsearch.config import OptimizerConfig
from rkdsearch.methods import Companion


def build_optimizers(
    config: OptimizerConfig, student: nn.Module, companions: Mapping[str, Companion]
) -> list[torch.optim.Optimizer]:
    """The student's, with a group for each companion that shares it; then one for each companion that has its own.

    The parameters must be where, and laid out as, they will be trained.
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
            return torch.optim.AdamW(groups, betas=(momentum, 0.999), **values)
        sgd = torch.optim.SGD(groups, nesterov=config.nesterov, **values)
        for group in sgd.param_groups:
            # Where torch would begin with the first gradient: 0.9 * 0 + g is the same, and the
            # fused kernel asks for all buffers or none, though a parameter may get its first
            # gradient late.
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
        optimizer.register_step_post_hook(_count)
    return optimizers


def _count(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Torch's fused step does not count as a change of weights: a method that went backward through an older graph would not be refused."""
    torch.autograd.graph.increment_version(
        [p for group in optimizer.param_groups for p in group["params"]]
    )


def _is_plain(parameter: nn.Parameter) -> bool:
    """Whether torch's fused CPU kernel may have it: one call for all parameters, where the plain step takes four or ten for each.

    The kernel walks a parameter, its gradient and its averages side by side through memory and does
    not look at their layouts. Autograd lays the gradient out like a parameter without gaps or
    overlaps, and like no other; one that is assigned by hand must be laid out so.
    """
    channels_last = parameter.dim() == 4 and parameter.is_contiguous(
        memory_format=torch.channels_last
    )
    return (
        parameter.is_cpu
        and parameter.is_floating_point()
        and (parameter.is_contiguous() or channels_last)
    )

"""The optimizers of a run: the student's, and those of companions that train beside it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rkdsearch.config import OptimizerConfig
from rkdsearch.methods import Companion


def build_optimizers(config: OptimizerConfig, student: nn.Module, companions: Mapping[str, Companion]) -> list[torch.optim.Optimizer]:
    """The student's, with a group for each companion that shares it; then one for each companion that has its own."""

    def build(groups: list[dict[str, Any]], settings: Mapping[str, float]) -> torch.optim.Optimizer:
        values: dict[str, Any] = {"lr": config.lr, "momentum": config.momentum, "weight_decay": config.weight_decay, **settings}
        if config.name == "adamw":
            momentum = values.pop("momentum")
            return torch.optim.AdamW(groups, betas=(momentum, 0.999), **values)
        return torch.optim.SGD(groups, nesterov=config.nesterov, **values)

    shared: list[dict[str, Any]] = [{"params": list(student.parameters())}]
    shared += [{"params": list(c.module.parameters()), **c.settings} for c in companions.values() if not c.own_optimizer]
    own = [build([{"params": list(c.module.parameters())}], c.settings) for c in companions.values() if c.own_optimizer]
    optimizers = [build(shared, {}), *own]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers

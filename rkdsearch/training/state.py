"""What training changes in a run, as named tensors: all that a checkpoint must hold for the run to go on as if it had never stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rkdsearch.training.averaging import Average
from rkdsearch.training.objective import TrainingObjective


@dataclass(frozen=True)
class State:
    """The student with its companions and the method's memory, the optimizers, and the average where there is one."""

    objective: TrainingObjective
    optimizers: Sequence[torch.optim.Optimizer]
    average: Average | None

    def tensors(self) -> dict[str, Tensor]:
        """By dotted name: `objective.student.conv1.weight`, `memory.weights`, `optimizer0.3.momentum_buffer`, `average.conv1.weight`."""
        found = _below("objective", self.objective.state_dict()) | _below(
            "memory", self.objective.memory
        )
        for number, optimizer in enumerate(self.optimizers):
            found |= _below(f"optimizer{number}", _optimizer_tensors(optimizer))
        if self.average is not None:
            found |= _below("average", self.average.network.state_dict())
        return found

    def restore(self, tensors: Mapping[str, Tensor], *, averaged: int) -> None:
        """Put back what `tensors` took; `averaged` is how many weights the average is of."""
        self.objective.load_state_dict(_part(tensors, "objective"))
        device = next(self.objective.parameters()).device
        self.objective.memory.update(
            {name: tensor.to(device) for name, tensor in _part(tensors, "memory").items()}
        )
        for number, optimizer in enumerate(self.optimizers):
            _restore_optimizer(optimizer, _part(tensors, f"optimizer{number}"))
        if self.average is not None:
            self.average.network.load_state_dict(_part(tensors, "average"))
            self.average.count = averaged


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below `prefix.`, without it."""
    return {
        name[len(prefix) + 1 :]: tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix + ".")
    }


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors below `prefix.`."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as `0.momentum_buffer`, `1.exp_avg`, ...; numbers are tensors of no dimension."""
    state = optimizer.state_dict()["state"]
    return {
        f"{i}.{k}": torch.as_tensor(v)
        for i, values in state.items()
        for k, v in values.items()
        if v is not None
    }


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `_optimizer_tensors` took; what it did not find stays as it is, and memory layouts follow the parameters'."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {
        i: dict(values) for i, values in optimizer.state_dict()["state"].items()
    }
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        like = parameters[int(index)]
        # A step count stays on the CPU in its own type; a parameter may have no dimension either.
        state.setdefault(int(index), {})[key] = (
            tensor if key == "step" else torch.empty_like(like).copy_(tensor)
        )
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )

"""The state that training changes, as named tensors: a checkpoint resumes a run from these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rkdsearch.training.averaging import Average
from rkdsearch.training.objective import TrainingObjective


@dataclass(frozen=True)
class State:
    """Objective (student, companions, the method's memory), optimizers, and average, if any."""

    objective: TrainingObjective
    optimizers: Sequence[torch.optim.Optimizer]
    average: Average | None

    @property
    def averaged(self) -> int:
        """Number of weights that the average is of; 0 without an average."""
        return 0 if self.average is None else self.average.count

    def tensors(self) -> dict[str, Tensor]:
        """Tensors by dotted name.

        For example `objective.student.conv1.weight`, `memory.weights`,
        `optimizer0.3.momentum_buffer`, `average.conv1.weight`.
        """
        found = _prefixed("objective", self.objective.state_dict()) | _prefixed(
            "memory", self.objective.memory
        )
        for number, optimizer in enumerate(self.optimizers):
            found |= _prefixed(f"optimizer{number}", _optimizer_tensors(optimizer))
        if self.average is not None:
            found |= _prefixed("average", self.average.network.state_dict())
        return found

    def restore(self, tensors: Mapping[str, Tensor], *, averaged: int) -> None:
        """Restore what `tensors` and `averaged` returned."""
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
    """The tensors whose names begin with `prefix.`, by the rest of their names."""
    return {
        name[len(prefix) + 1 :]: tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix + ".")
    }


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, with `prefix.` before their names."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as `0.momentum_buffer`, `1.exp_avg`, ...; numbers as 0-d tensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"{i}.{k}": torch.as_tensor(v)
        for i, values in state.items()
        for k, v in values.items()
        if v is not None
    }


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore what `_optimizer_tensors` returned, in the memory layouts of the parameters.

    State that the checkpoint does not name stays as it is.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {
        i: dict(values) for i, values in optimizer.state_dict()["state"].items()
    }
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        like = parameters[int(index)]
        # A step count stays on the CPU in its own dtype. Its shape does not tell it apart: a
        # parameter may be 0-d, too.
        state.setdefault(int(index), {})[key] = (
            tensor if key == "step" else torch.empty_like(like).copy_(tensor)
        )
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )

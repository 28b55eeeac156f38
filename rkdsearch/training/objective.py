"""What Accelerate wraps: the student and its companions, with one forward a step that is the method's whole loss.

Inside it the student may be called as often as the paper likes; DistributedDataParallel sees one
forward and one backward. Teachers are held outside the module tree: their buffers must not be
broadcast, nor their parameters looked for.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from typing_extensions import override

from rkdsearch import models
from rkdsearch.attacks import Attack, Noise
from rkdsearch.config import TrainConfig
from rkdsearch.data import Batch
from rkdsearch.methods import Method, Precision, Step, Student, Teacher, inner
from rkdsearch.teacher import Role
from rkdsearch.training.all_gather import gather_rows


class TrainingObjective(nn.Module):
    """(batch, moment) -> (total, detached terms)."""

    def __init__(
        self,
        config: TrainConfig,
        student: nn.Module,
        companions: Mapping[str, nn.Module],
        teachers: Mapping[Role, nn.Module],
        processes: int,
    ) -> None:
        super().__init__()
        self.student = student
        # the student is already; parameters stay the same ones
        if processes > 1 and config.training.batchnorm_across == "synchronised":
            synchronised = nn.SyncBatchNorm.convert_sync_batchnorm
            companions = {name: synchronised(module) for name, module in companions.items()}  # type: ignore[no-untyped-call]
        self.companions = nn.ModuleDict(companions)
        self.memory: dict[str, Tensor] = {}
        self._config = config
        self._method: Method = config.method
        # the trainer puts a weaker one here for an early stage of a search
        self.attack: Attack = config.attack.build()
        problem = config.attack.objective
        self._inner_problem = None if problem is None else inner.PROBLEMS[problem]
        self._gather: Callable[[Tensor], Tensor] | None = gather_rows if processes > 1 else None
        precision = precision_of(config.training.precision, next(student.parameters()).device)
        compiled = config.training.compile
        if compiled:
            # it keeps eight versions of a function a process, and runs before this one may have
            # used them up
            torch.compiler.reset()
        # Built once the parameters are where they stay: the twin shares their storage.
        self._view = Student(
            student, models.inference_copy(student, compiled=compiled), precision, compiled=compiled
        )
        self._teachers: dict[str, Teacher] = {
            role: Teacher(network, precision) for role, network in teachers.items()
        }

    @override
    def forward(
        self,
        batch: Batch,
        noise: Noise,
        *,
        epoch: int,
        lr_factor: float,
        answers: Mapping[str, Tensor],
        share: float = 1.0,
        last_part: bool = True,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one batch, or of a part with its `share` of the images; `answers` are teachers' known logits for it, by role."""
        for role, logits in answers.items():
            self._teachers[role].remember(batch.x, logits)
        training = self._config.training
        step = Step(
            x=batch.x,
            y=batch.y,
            student=self._view,
            teachers=self._teachers,
            companions=dict(self.companions.items()),
            attack=self.attack,
            noise=noise,
            epoch=epoch,
            epochs=training.epochs,
            lr_factor=lr_factor,
            batch_size=training.batch_size,
            memory=self.memory,
            batchnorm=self._config.attack.batchnorm or "eval",
            inner_problem=self._inner_problem,
            gather=self._gather,
            label_smoothing=training.label_smoothing,
            share=share,
            last_part=last_part,
        )
        loss = self._method.loss(step)
        # A plain tuple: DDP walks dataclasses, and would take a term that is still attached for an
        # output.
        return loss.total, loss.terms


def precision_of(name: str, device: torch.device) -> Precision:
    """The context of every forward. Weights are not cached: a forward without gradients would leave copies without gradients (pytorch#112583)."""
    if name != "bf16":
        return nullcontext
    return lambda: torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)

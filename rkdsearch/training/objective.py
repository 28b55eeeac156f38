"""The module that Accelerate wraps: student and companions; its forward is the method's loss.

The method may call the student several times inside; DistributedDataParallel sees one forward and
one backward a step. Teachers stay outside the module tree: DistributedDataParallel must neither
broadcast their buffers nor search for their parameters.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from typing_extensions import override

from rkdsearch import models
from rkdsearch.attacks import Attack, Noise
from rkdsearch.config import TrainConfig
from rkdsearch.data import Batch
from rkdsearch.errors import ConfigError
from rkdsearch.methods import Loss, Method, Step, Student, Teacher, inner, name_of
from rkdsearch.teacher import Role
from rkdsearch.training.all_gather import gather_rows
from rkdsearch.training.precision import forward_context


class TrainingObjective(nn.Module):
    """The training loss of one batch: its total (0-d) and its detached terms (0-d each) by name.

    `attack` may be replaced between epochs: an early fidelity of a search trains with fewer steps.
    """

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
        # The student is converted already. Conversion keeps the parameters that optimizers hold.
        if processes > 1 and config.training.batchnorm_across == "synchronised":
            synchronised = nn.SyncBatchNorm.convert_sync_batchnorm
            companions = {
                name: synchronised(module)  # type: ignore[no-untyped-call]
                for name, module in companions.items()
            }
        self.companions = nn.ModuleDict(companions)
        self.memory: dict[str, Tensor] = {}
        self._config = config
        self._method: Method = config.method
        self.attack: Attack = config.attack.build()
        problem = config.attack.objective
        self._inner_problem = None if problem is None else inner.PROBLEMS[problem]
        self._gather: Callable[[Tensor], Tensor] | None = gather_rows if processes > 1 else None
        precision = forward_context(config.training.precision, next(student.parameters()).device)
        compiled = config.training.compile
        if compiled:
            # The compiler keeps eight versions of a function for each process: earlier runs may
            # have used them up.
            torch.compiler.reset()
        # Built after the parameters have been placed: the inference copy shares their storage.
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
        teacher_logits: Mapping[Role, Tensor],
        share: float = 1.0,
        last_part: bool = True,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one batch, or of a part with its `share` of the images.

        `teacher_logits` are known logits (N, K) for x, by the teacher's role; other teachers are
        called. `last_part` is True for the last part of a batch.
        """
        for role, logits in teacher_logits.items():
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
        if not isinstance(loss, Loss):
            raise ConfigError(
                f"method.name: {name_of(self._method)}: loss must return a Loss, such as"
                f" Loss.weighted(label=(1.0, values)), got {type(loss).__name__}"
            )
        # A plain tuple: DDP walks dataclasses, and would take an attached term for an output.
        return loss.total, loss.terms

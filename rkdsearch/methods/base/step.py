"""One batch of training, and all that a method may look at while it computes its loss."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from rkdsearch import models
from rkdsearch.attacks import Attack, AttackObjective, Noise
from rkdsearch.losses import cross_entropy
from rkdsearch.methods.base.networks import BatchNormMode, Student, Teacher


class InnerProblem(Protocol):
    """A named inner problem, such as `inner.label`: from a step to its attack objective."""

    __name__: str

    def __call__(self, step: "Step", /) -> AttackObjective:
        """Images to (N,) nats."""
        ...


@dataclass(frozen=True)
class Step:
    """One batch with the networks and the attack. Methods see nothing else of a run.

    x (N, C, H, W) pixels of [0, 1]; y (N,) labels; `epoch` counts from 0 and `epochs` is the run's
    length; `lr_factor` is the current learning rate, as a fraction of its initial value;
    `batch_size` is the configured one, over all processes. `inner_problem` replaces the method's
    own (`attack.objective` in the config). Where `training.microbatches` cuts a batch in parts,
    this is one part with its `share` of the images; all parts meet the same weights.
    """

    x: Tensor
    y: Tensor
    student: Student
    teachers: Mapping[str, Teacher]
    companions: Mapping[str, nn.Module]
    attack: Attack
    noise: Noise
    epoch: int
    epochs: int
    lr_factor: float
    batch_size: int
    memory: dict[str, Tensor]
    batchnorm: BatchNormMode = "eval"
    inner_problem: InnerProblem | None = None
    gather: Callable[[Tensor], Tensor] | None = None
    label_smoothing: float = 0.0
    share: float = 1.0
    last_part: bool = True

    @property
    def teacher(self) -> Teacher:
        """The robust teacher."""
        return self.teachers["robust"]

    def companion(self, name: str) -> Student:
        """The companion of that name, called like the student and in the student's precision."""
        return Student(self.companions[name], precision=self.student.precision)

    def label_loss(self, logits: Tensor) -> Tensor:
        """-log p(y), (N,) nats, with the run's label smoothing.

        The hard-label term of an outer problem; attacks use the labels without smoothing.
        """
        return cross_entropy(logits, self.y, label_smoothing=self.label_smoothing)

    def maximize(self, objective: AttackObjective) -> Tensor:
        """x' = argmax of `objective` over the run's ball, (N, C, H, W), detached.

        `objective` maps images to (N,); the config's `attack.objective` replaces it.
        """
        if self.inner_problem is not None:
            objective = self.inner_problem(self)
        with self.attacking():
            return self.attack.maximize(objective, self.x, self.noise)

    def attacking(self) -> AbstractContextManager[None]:
        """Context for an attack of the method's own, built from the parts of `step.attack`.

        Inside, the student is its inference copy, or in the mode that `attack.batchnorm` names.
        """
        return self.student.under_attack(self.batchnorm)

    def features(self, network: Student | Teacher | nn.Module, x: Tensor) -> models.Features:
        """Logits and named representations: `penultimate` always, stages of a `Classifier` too."""
        if isinstance(network, Student):
            return network.features(x)
        if isinstance(network, Teacher):
            with network.precision():
                return models.features(network.network, x)
        return models.features(network, x)

    def all_gather(self, rows: Tensor) -> Tensor:
        """The rows of every process, in rank order, with gradient.

        A loss that couples the images of a batch is computed whole on each process.
        """
        return rows if self.gather is None else self.gather(rows)

    def batch_mean(self, name: str, rows: Tensor) -> Tensor | None:
        """Mean of `rows` (N, ...) over the whole batch: all processes and all parts. Detached.

        None until the last part of the batch; the parts' sum is kept in `memory[name]`.
        """
        part = self.all_gather(rows.detach()).mean(dim=0)
        total = self.memory.pop(name, torch.zeros_like(part)) + self.share * part
        if self.last_part:
            return total
        self.memory[name] = total
        return None

    def started(self, warm_up: float) -> bool:
        """True once the first `warm_up`, a fraction of 1, of the run is over.

        60 of 200 epochs is 0.3: epoch 59 is warm-up, epoch 60 is not.
        """
        return self.epoch >= round(warm_up * self.epochs)

"""A method: one frozen class whose fields are its hyperparameters and whose `loss` is the paper."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import ClassVar

from torch import Tensor, nn

from rkdsearch.attacks import Start
from rkdsearch.methods.base.networks import BatchNormMode
from rkdsearch.methods.base.step import Step
from rkdsearch.section import Section
from rkdsearch.teacher import Role

_LABEL_WEIGHTS = ("label_weight", "peer_label_weight")


@dataclass(frozen=True)
class AttackDefaults:
    """The start and BatchNorm mode of the paper's attack, used where the config names none."""

    start: Start = "gaussian"
    batchnorm: BatchNormMode = "eval"


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise, and the detached terms that it is made of."""

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def weighted(**terms: tuple[float | Tensor, Tensor]) -> "Loss":
        """Sum over terms of weight * mean(term).

        Each term is (N,) or a scalar, each weight a number or a scalar tensor. A term of weight 0
        stays in the graph: DDP must not take a companion that only this term reaches for unused.
        """
        means = {name: term.mean() for name, (_, term) in terms.items()}
        total = reduce(add, (weight * means[name] for name, (weight, _) in terms.items()))
        return Loss(total, {name: mean.detach() for name, mean in means.items()})


@dataclass(frozen=True)
class Companion:
    """A network that trains beside the student and is dropped when training ends.

    `settings` overrides settings of the student's optimizer (`{"weight_decay": 0.0}`). The
    companion is a parameter group of that optimizer, or has its own with `own_optimizer`;
    `schedule(epoch, epochs)` is then the factor on its learning rate.
    """

    module: nn.Module
    settings: Mapping[str, float] = field(default_factory=dict)
    own_optimizer: bool = False
    schedule: Callable[[int, int], float] | None = None


class Method(Section, ABC):
    """A way to train a student. Fields are hyperparameters; subclasses are final."""

    attack_defaults: ClassVar[AttackDefaults] = AttackDefaults()
    # the reason why results are not the authors', where neither full text nor code is public
    reconstructed: ClassVar[str | None] = None
    # False: the loss's weights move, so the loss need not fall on a fixed batch
    stationary_loss: ClassVar[bool] = True
    # True: the inner problem compares the student at x' with itself at x, so that its gradient at x
    # is 0 and `attack.start: none` is refused; `training/attack_start.py` finds it undeclared too
    flat_at_x: ClassVar[bool] = False
    # True: some steps leave a trained parameter without gradient (DDP must look)
    may_skip_parameters: ClassVar[bool] = False

    # False: its images are not attacked
    attacks: ClassVar[bool] = True
    # False: no term of the outer problem is `step.label_loss`
    hard_labels: ClassVar[bool] = True

    @property
    def reads_labels(self) -> bool:
        """True where a hard-label term has a weight, so that `training.label_smoothing` acts."""
        fields = type(self).model_fields
        # None: a field that these settings do not use
        weights = [getattr(self, name) or 0.0 for name in _LABEL_WEIGHTS if name in fields]
        if "soft_label_weight" in fields:
            soft = self.model_dump()["soft_label_weight"]
            weights.append(0.0 if soft is None else 1 - soft)
        return self.hard_labels and (not weights or any(weights))

    @abstractmethod
    def loss(self, step: Step) -> Loss:
        """The loss of one batch: inner maximisation first, then the outer problem's value."""

    def teachers(self) -> tuple[Role, ...]:
        """The teachers that these hyperparameters need: `robust`, `natural`, both, or none."""
        return ("robust",)

    def companions(
        self,
        student: nn.Module,  # noqa: ARG002 - for overriders
        teachers: Mapping[str, nn.Module],  # noqa: ARG002
        image: Tensor,  # noqa: ARG002
    ) -> dict[str, Companion]:
        """Networks to train beside the student, by name. `image` (1, C, H, W) measures shapes.

        These teachers still have their BatchNorm, which `step.teachers` may have folded: a copy can
        be trained further. Parameters are drawn from the global generator, which the trainer has
        seeded.
        """
        return {}

    def end_epoch(
        self, memory: dict[str, Tensor], *, epoch: int, epochs: int, lr_factor: float
    ) -> None:
        """Update `memory` after an epoch's last batch, on every process from the same memory."""

    def check_student(self, student: nn.Module) -> None:
        """Raises ConfigError where this method cannot train this student."""

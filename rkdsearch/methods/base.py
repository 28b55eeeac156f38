"""What a method is, what it may look at, and what it gives back.

A method is one frozen class whose fields are its hyperparameters and whose one verb, `loss(step)`,
is the paper's min-max. It sees the batch, the networks and the attack through `Step`, other
processes through `step.across`, and its own state through `step.memory`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Annotated, ClassVar, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from rkdsearch import models
from rkdsearch.attacks import Attack, Noise, Objective, Start
from rkdsearch.losses import cross_entropy
from rkdsearch.methods import inner
from rkdsearch.teacher import Role

# The fields that many methods share: one name, one law, one meaning.
Weight = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(ge=0)]
Temperature = Annotated[float, Field(gt=0, le=1000, description="softening of both distributions")]
KLScale = Annotated[
    float,
    Field(
        gt=0,
        description=(
            "factor on every KL term: 1 = sum over classes; released scripts use 1/K and 10/K"
        ),
    ),
]
WarmUp = Annotated[
    float, Field(ge=0, lt=1, description="fraction of the run before the method proper begins")
]
Parity = Annotated[
    Literal["paper", "official"],
    Field(
        description="where they differ: the paper's equation, or the released script's arithmetic"
    ),
]
BatchNormMode = Literal["eval", "train"]


@dataclass(frozen=True)
class AttackDefaults:
    """The attack of the method's own paper, where the run's config does not say otherwise."""

    start: Start = "gaussian"
    batchnorm: BatchNormMode = "eval"


@dataclass(frozen=True)
class Loss:
    """A scalar to descend, and the detached terms that it is made of."""

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def weighted(**terms: tuple[float | Tensor, Tensor]) -> "Loss":
        """sum over terms of weight * mean(term): each term is (N,) or a scalar, each weight a number or a scalar tensor.

        A term of weight 0 stays in the graph: a companion that only it reaches must not look unused
        to DDP.
        """
        means = {name: term.mean() for name, (_, term) in terms.items()}
        total = reduce(add, (weight * means[name] for name, (weight, _) in terms.items()))
        return Loss(total, {name: mean.detach() for name, mean in means.items()})


@dataclass(frozen=True)
class Companion:
    """A network that trains beside the student and is dropped when training ends.

    `settings` overrides the student's optimizer (`{"weight_decay": 0.0}`); `own_optimizer` gives it
    an optimizer of its own with these settings instead of a parameter group in the student's.
    `schedule(epoch, epochs)` is then its learning rate's factor.
    """

    module: nn.Module
    settings: Mapping[str, float] = field(default_factory=dict)
    own_optimizer: bool = False
    schedule: Callable[[int, int], float] | None = None


class Network(Protocol):
    """Images (N, C, H, W) with pixels of [0, 1] in, logits (N, K) out."""

    def __call__(self, x: Tensor) -> Tensor:  # noqa: D102 - the class says it
        ...


Precision = Callable[[], AbstractContextManager[None]]


class Teacher:
    """A frozen network as a method sees it. Its answer to the clean batch may be known from an earlier epoch."""

    def __init__(self, network: nn.Module, precision: Precision = nullcontext) -> None:
        self.network = network
        self.precision = precision
        self._known: tuple[Tensor, Tensor] | None = None

    def remember(self, x: Tensor, logits: Tensor) -> None:
        """From now on the answer to this very tensor is `logits`."""
        self._known = (x, logits)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, K); gradients reach x where the caller asks for them, parameters never."""
        if self._known is not None and self._known[0] is x:
            return self._known[1]
        with self.precision():
            answer: Tensor = self.network(x)
        return answer


class Student:
    """The student as a method sees it: a network whose attack-time twin takes its place inside `Step.maximize`.

    `inference_copy` returns an eval-mode network of the same function (BatchNorm folded, weights shared, no
    parameter gradients). Without one, the network itself is put in eval mode for the attack and put
    back afterwards, also when the attack raises. With `compiled`, logits and features come from
    torch's compiler; the twin is its maker's to compile.
    """

    def __init__(
        self,
        network: nn.Module,
        inference_copy: Callable[[], Network] | None = None,
        precision: Precision = nullcontext,
        *,
        compiled: bool = False,
    ) -> None:
        self.network = network
        self.precision = precision
        # Said of the very class: a subclass may add BatchNorm or dropout.
        self._independent = bool(vars(type(network)).get("independent", False))
        self._inference_copy = inference_copy
        self._forward: Network = torch.compile(network) if compiled else network
        self._features = torch.compile(models.features) if compiled else models.features
        self._active: Network = self._forward

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, K), by the network or, inside `under_attack`, by its twin."""
        with self.precision():
            return self._active(x)

    def each(self, *batches: Tensor) -> Iterator[Tensor]:
        """Logits of each batch, in this order; by one forward where the network takes every image by itself."""
        if self._independent:
            yield from torch.split(self(torch.cat(batches)), [len(batch) for batch in batches])
        else:
            yield from map(self, batches)

    def each_weighted(self, *batches: tuple[float, Tensor]) -> Iterator[Tensor]:
        """`each` for (weight, images): where the weight is 0, the images pass the network all the same, and no gradient comes back."""
        followed = self.each(*(x for weight, x in batches if weight > 0))
        for weight, x in batches:
            if weight > 0:
                yield next(followed)
            else:
                with torch.no_grad():
                    logits = self(x)
                yield logits

    def features(self, x: Tensor) -> models.Features:
        """Logits and named representations, by the network."""
        with self.precision():
            return self._features(self.network, x)

    def closed_form_gradient(self, slope: models.Slope, x: Tensor) -> models.Gradient | None:
        """`models.written_out` of the network that a call would ask now."""
        with self.precision():
            return models.closed_form_gradient(self._active, slope, x)

    @contextmanager
    def under_attack(self, batchnorm: BatchNormMode) -> Iterator[None]:
        """While this lasts, calls are made for the attack: `eval` leaves BatchNorm statistics alone, `train` moves them as ARD's code does."""
        if self._inference_copy is not None and (batchnorm == "eval" or self._independent):
            self._active = self._inference_copy()
            try:
                yield
            finally:
                self._active = self._forward
            return
        modes = {module: module.training for module in self.network.modules()}
        wanted = [p for p in self.network.parameters() if p.requires_grad]
        try:
            self.network.train(batchnorm == "train")
            for p in wanted:
                p.requires_grad_(False)
            yield
        finally:
            for p in wanted:
                p.requires_grad_(True)
            for module, training in modes.items():
                module.training = training


@dataclass(frozen=True)
class Step:
    """One batch, and all that a method may look at.

    x (N, C, H, W) pixels of [0, 1]; y (N,) labels; `epoch` counts from 0 and `epochs` is the run's
    length; `lr_factor` is the learning rate now, as a fraction of its initial value; `batch_size`
    is the configured one, over all processes. Where a batch comes in parts
    (`training.microbatches`), this is one of them, with its `share` of the images; all meet the
    same weights.
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
    objective: inner.Name | None = None
    gather: Callable[[Tensor], Tensor] | None = None
    label_smoothing: float = 0.0
    share: float = 1.0
    last_part: bool = True

    @property
    def teacher(self) -> Teacher:
        """The robust teacher."""
        return self.teachers["robust"]

    def label_loss(self, logits: Tensor) -> Tensor:
        """-log p(y), (N,) nats, with the run's label smoothing: the hard-label term of an outer problem. Attacks see the labels as they are."""
        return cross_entropy(logits, self.y, label_smoothing=self.label_smoothing)

    def maximize(self, objective: Objective) -> Tensor:
        """x' = argmax of `objective` (images to (N,)) over the run's ball. The run's config may name another inner problem in its place."""
        if self.objective is not None:
            objective = inner.build(self.objective, self)
        with self.attacking():
            return self.attack.maximize(objective, self.x, self.noise)

    @contextmanager
    def attacking(self) -> Iterator[None]:
        """For attacks built from `step.attack`'s parts: the student is its twin, or in the mode that `attack.batchnorm` names."""
        with self.student.under_attack(self.batchnorm):
            yield

    def features(self, network: Student | Teacher | nn.Module, x: Tensor) -> models.Features:
        """Logits, and the named inner representations behind them (`penultimate` at least)."""
        if isinstance(network, Student):
            return network.features(x)
        if isinstance(network, Teacher):
            with network.precision():
                return models.features(network.network, x)
        return models.features(network, x)

    def across(self, tensor: Tensor) -> Tensor:
        """The rows of every process, in rank order, with gradient: a loss that couples the batch is computed whole on each process."""
        return tensor if self.gather is None else self.gather(tensor)

    def over_parts(self, name: str, mean: Tensor) -> Tensor | None:
        """The whole batch's mean, of parts' means `mean` (this part's, detached); None before the last part. `name` is its place in memory."""
        total = self.memory.pop(name, torch.zeros_like(mean)) + self.share * mean
        if self.last_part:
            return total
        self.memory[name] = total
        return None

    def started(self, warm_up: float) -> bool:
        """Whether the first `warm_up` (a fraction) of the run is over. 60 of 200 epochs is 0.3: epoch 59 is not, epoch 60 is."""
        return self.epoch >= round(warm_up * self.epochs)


class Method(BaseModel, ABC):
    """A way to train a student: its fields are hyperparameters, `loss` is the paper. Subclasses are final."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    attack_defaults: ClassVar[AttackDefaults] = AttackDefaults()
    # why these are not the authors' numbers, where no full text or code is public
    reconstructed: ClassVar[str | None] = None
    # False: the loss's own weights move, so it need not fall on a fixed batch
    stationary_loss: ClassVar[bool] = True
    # True: some steps leave a trained parameter without gradient (DDP must look)
    may_skip_parameters: ClassVar[bool] = False

    @abstractmethod
    def loss(self, step: Step) -> Loss:
        """The outer minimisation's value on one batch, after the inner maximisation."""

    def teachers(self) -> tuple[Role, ...]:
        """The teachers that this setting of the method asks: `robust`, `natural`, both, or none."""
        return ("robust",)

    def companions(
        self,
        student: nn.Module,  # noqa: ARG002 - for overriders
        teachers: Mapping[str, nn.Module],  # noqa: ARG002
        image: Tensor,  # noqa: ARG002
    ) -> dict[str, Companion]:
        """Networks to train beside the student, built from its and the teachers' shapes; `image` (1, C, H, W) is one to measure with.

        These teachers have their BatchNorm, which `step.teachers` may have folded away: a copy of
        one can be trained further. Parameters are drawn from the global generator, which the
        trainer has seeded.
        """
        return {}

    def end_epoch(
        self, memory: dict[str, Tensor], *, epoch: int, epochs: int, lr_factor: float
    ) -> None:
        """Update `memory` after the last batch of an epoch. Called on every process with the same memory."""

    def check_student(self, student: nn.Module) -> None:
        """Raise ConfigError where this student cannot be trained by this method."""


def name_of(method: type[Method] | Method) -> str:
    """`rslad` for rkdsearch/methods/rslad.py; the whole dotted path for a method outside the package."""
    module = (method if isinstance(method, type) else type(method)).__module__
    return module.removeprefix("rkdsearch.methods.")

"""Cyclic Iterative Adversarial Robustness Distillation (Lu et al., ICCV 2025).

https://arxiv.org/abs/2509.12633

outer   student  min  KL(T(x') || S(x')) + KL(N(x) || S(x))
                      - s mean of KL(N(x') || S(x') / 5) over the samples whose x' N gets wrong
        teacher  min  CE(T(x'), y), from a sixth of the run on
inner   x' = argmax CE(S(x'), y)

MTARD's two teachers, and a push away from the natural teacher's mistakes; meanwhile the robust
teacher keeps learning from the student's adversarial examples. s is the power of ten that brings
the push to the order of magnitude of the smaller of the other two losses. The learning teacher is a
copy in train mode, and the loaded one stays as it was. Before the copy learns, only its BatchNorm
statistics move.

Where the released code departs (`parity: official`): it adds 1e-5 to the teachers' probabilities
inside the logarithm. It also averages the KL over classes: `kl_scale` = 1/K. It computes B-MTARD's
weights and temperatures; the release confirmed here uses neither, another one (CIARD2025/CIARD at
ffc264c) weights the two KLs by them.

Defaults: student's temperature 5 in the push; the teacher's learning rate 1e-4 from 50 of 300
epochs on, falling by a cosine times exp(-0.01 t^2), SGD with momentum 0.1 and weight decay 2e-4;
attack from Gaussian noise in eval mode: the released script.

Confirmed: the student's step of the authors' script with `parity: official`, value and gradients.
"""

import copy
import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from rkdsearch.losses import kl_divergence
from rkdsearch.methods import (
    Companion,
    Factor,
    KLScale,
    Loss,
    Method,
    Parity,
    Role,
    Step,
    Temperature,
    WarmUp,
    inner,
)


class CIARD(Method):
    """Learn from two teachers, away from the natural one's mistakes; retrain the robust one."""

    stationary_loss: ClassVar[bool] = False
    may_skip_parameters: ClassVar[bool] = True  # the teacher's copy, until its training begins

    push_temperature: Temperature = Field(
        5.0, description="softening of the student alone, in the push"
    )
    retraining_rate: Factor = Field(1e-4, description="the robust teacher's highest learning rate")
    retraining_start: WarmUp = Field(
        1 / 6, description="fraction of the run before the robust teacher learns: 50 of 300 epochs"
    )
    kl_scale: KLScale = 1.0
    parity: Parity = "paper"

    @override
    def teachers(self) -> tuple[Role, ...]:
        return ("robust", "natural")

    @override
    def companions(
        self, student: nn.Module, teachers: Mapping[str, nn.Module], image: Tensor
    ) -> dict[str, Companion]:
        copied = copy.deepcopy(teachers["robust"]).requires_grad_(True).train()
        settings = {"lr": self.retraining_rate, "momentum": 0.1, "weight_decay": 2e-4}
        return {"robust": Companion(copied, settings, own_optimizer=True, schedule=self._rate)}

    def _rate(self, epoch: int, epochs: int) -> float:
        """The learning rate of the retrained teacher, as a fraction of its highest."""
        done = ((epoch + 1) / epochs - self.retraining_start) / (1 - self.retraining_start)
        return (
            0.0 if done < 0 else (0.5 + 0.5 * math.cos(math.pi * done)) * math.exp(-0.01 * done**2)
        )

    @override
    def loss(self, step: Step) -> Loss:
        robust, natural = step.companion("robust"), step.teachers["natural"]
        x_adv = step.maximize(inner.label(step))
        student_nat, student_adv = step.student(step.x), step.student(x_adv)
        learning = float(step.started(self.retraining_start))
        (robust_adv,) = robust.logits(x_adv, weights=[learning])
        with torch.no_grad():
            natural_nat, natural_adv = natural(step.x), natural(x_adv)
        wrong = natural_adv.argmax(dim=1) != step.y

        # The push is a mean over some samples, and s compares means: both couple the batch.
        imitation_adv, imitation_nat, push, wrong = step.all_gather(
            torch.stack(
                [
                    self._imitation(student_adv, robust_adv.detach()),
                    self._imitation(student_nat, natural_nat),
                    self._imitation(student_adv, natural_adv, self.push_temperature),
                    wrong,
                ],
                dim=1,
            )
        ).unbind(dim=1)
        adversarial_loss, natural_loss = imitation_adv.mean(), imitation_nat.mean()
        push_loss = (wrong * push).sum() / wrong.sum().clamp_min(1)
        smaller = torch.minimum(adversarial_loss, natural_loss)
        s = 10 ** (_magnitude(self.kl_scale * smaller) - _magnitude(self.kl_scale * push_loss))
        return Loss.weighted(
            adversarial=(self.kl_scale, adversarial_loss),
            natural=(self.kl_scale, natural_loss),
            push=(-self.kl_scale * s, push_loss),
            retraining=(learning, step.label_loss(robust_adv)),
        )

    def _imitation(self, logits: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
        """KL(target || logits / temperature), (N,) nats."""
        return kl_divergence(
            logits,
            target=target,
            temperature=temperature,
            target_temperature=1.0,
            offset=1e-5 if self.parity == "official" else 0.0,
        )


def _magnitude(loss: Tensor) -> Tensor:
    """floor(log10 |loss|), a constant. Losses below 1e-7 count as 1e-7, as in the official code."""
    return loss.detach().abs().clamp_min(1e-7).log10().floor()

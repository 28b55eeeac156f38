"""Knowledge Distillation (Hinton, Vinyals and Dean, NIPS workshop 2014).

https://arxiv.org/abs/1503.02531

outer   min  (1 - alpha) CE(S(x), y) + alpha tau^2 KL(T(x) || S(x); tau)
inner   none

The student imitates the teacher's softened probabilities, which show how classes resemble each
other. tau^2 keeps the gradient's size when tau changes. There is no attack: with `teacher: robust`
this measures how much robustness clean imitation alone transfers (little, but not none: the ARD
paper starts from it).

Defaults: the paper searches alpha and tau per task; re-implementations for CIFAR use 0.9 and 4.

Confirmed: a third-party implementation (mdistiller) was run on the golden numbers.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from typing_extensions import override

from rkdsearch.losses import kl_divergence
from rkdsearch.methods import AttackDefaults, KLScale, Loss, Method, Role, Step, Temperature, Weight


class KD(Method):
    """Imitate a teacher's softened probabilities on clean images."""

    attack_defaults: ClassVar[AttackDefaults] = AttackDefaults(start="none")
    attacks: ClassVar[bool] = False

    teacher: Literal["natural", "robust"] = Field(
        "natural", description="the teacher that is imitated"
    )
    soft_label_weight: Weight = Field(0.9, description="alpha")
    temperature: Temperature = 4.0
    kl_scale: KLScale = 1.0

    @override
    def teachers(self) -> tuple[Role, ...]:
        return (self.teacher,)

    @override
    def loss(self, step: Step) -> Loss:
        with torch.no_grad():
            soft_labels = step.teachers[self.teacher](step.x)
        logits = step.student(step.x)
        scale = self.kl_scale * self.temperature**2
        return Loss.weighted(
            soft_label=(
                self.soft_label_weight * scale,
                kl_divergence(logits, target=soft_labels, temperature=self.temperature),
            ),
            label=(1 - self.soft_label_weight, step.label_loss(logits)),
        )

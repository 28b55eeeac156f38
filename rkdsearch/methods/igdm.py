"""Indirect Gradient Distillation Module on AdaAD (Lee et al., ICLR 2025).

https://arxiv.org/abs/2312.03286

outer   min  KL(T(x') || S(x')) + alpha e/E KL(T(x + d) - T(x - d) || S(x + d) - S(x - d))
        d = x' - x
inner   x' = argmax KL(T(x') || S(x'))

The difference of the logits on both sides of x stands for the gradient along d, which the student
imitates beside the logits themselves. e/E is the part of the run that is over, this epoch included:
the released code has 200 for E, whatever the run's length. x - d is not clipped to
[0, 1], as there. The module fits other bases too; `attack.objective: teacher_clean` puts RSLAD's
attack under it.

Defaults: alpha = 1, attack from Gaussian noise in eval mode: the released script for CIFAR-10.

Confirmed: the authors' script, value and gradients.
"""

from typing import ClassVar

import torch
from pydantic import Field
from typing_extensions import override

from rkdsearch.losses import kl_divergence
from rkdsearch.methods import Factor, KLScale, Loss, Method, Step, inner


class IGDM(Method):
    """Imitate the teacher's logits of x', and their change from one side of x to the other."""

    hard_labels: ClassVar[bool] = False

    gradient_weight: Factor = Field(
        1.0, description="alpha at the run's end; 10 for Tiny-ImageNet, 20 for CIFAR-100"
    )
    kl_scale: KLScale = 1.0

    @override
    def loss(self, step: Step) -> Loss:
        x_adv = step.maximize(inner.teacher_adversarial(step))
        x_mirrored = 2 * step.x - x_adv
        with torch.no_grad():
            target, target_mirrored = step.teacher(x_adv), step.teacher(x_mirrored)
        student, student_mirrored = step.student.logits(x_adv, x_mirrored)
        change = kl_divergence(student - student_mirrored, target=target - target_mirrored)
        ramp = (step.epoch + 1) / step.epochs
        return Loss.weighted(
            adversarial=(self.kl_scale, kl_divergence(student, target=target)),
            gradient=(self.kl_scale * self.gradient_weight * ramp, change),
        )

"""Adaptive Adversarial Distillation, AdaAD (Huang et al., CVPR 2023).

https://github.com/boyellow/AdaAD

outer   min  alpha KL(T(x') || S(x')) + (1 - alpha) KL(T(x) || S(x))
inner   x' = argmax KL(T(x') || S(x'))

The attack looks for the image on which student and teacher disagree most. Every attack step runs
the teacher forward and backward, because its gradient reaches the image too; with a detached
teacher this is another attack.

Where the released code departs: on CIFAR-10 it averages the KL over classes (`kl_scale` = 1/K
repeats it), on CIFAR-100 it does not; its argument parser defaults to eps = 16/255, the paper's
larger radius.

Defaults: alpha = 1, attack from Gaussian noise in eval mode: the released script.

Confirmed: the authors' script on both data sets, value and gradients; its attack too.
"""

from typing import ClassVar

import torch
from pydantic import Field
from typing_extensions import override

from rkdsearch.losses import kl_divergence
from rkdsearch.methods import KLScale, Loss, Method, Step, Weight, inner


class AdaAD(Method):
    """Imitate the teacher's logits of the image on which student and teacher disagree most."""

    hard_labels: ClassVar[bool] = False

    adversarial_weight: Weight = Field(1.0, description="alpha")
    kl_scale: KLScale = 1.0

    @override
    def loss(self, step: Step) -> Loss:
        x_adv = step.maximize(inner.teacher_adversarial(step))
        with torch.no_grad():
            natural_target, adversarial_target = step.teacher(step.x), step.teacher(x_adv)
        natural_weight = 1 - self.adversarial_weight
        # Clean images first: BatchNorm sees the batches in the official order.
        natural, adversarial = step.student.logits(step.x, x_adv, weights=(natural_weight, 1.0))
        return Loss.weighted(
            natural=(self.kl_scale * natural_weight, kl_divergence(natural, target=natural_target)),
            adversarial=(
                self.kl_scale * self.adversarial_weight,
                kl_divergence(adversarial, target=adversarial_target),
            ),
        )

"""Robust Soft Label Adversarial Distillation (Zi et al., ICCV 2021).

https://arxiv.org/abs/2108.07969

outer   min  alpha KL(T(x) || S(x')) + (1 - alpha) KL(T(x) || S(x))
inner   x' = argmax KL(T(x) || S(x'))

Every label is the teacher's prediction on the clean image: the ground truth is never used.

Where the released code departs (`parity: official`): it adds 1e-5 to the teacher's probability
inside the logarithm, which moves the value and not the gradient. It also averages the KL over
classes: `kl_scale` = 1/K repeats its CIFAR-10 runs, 10/K its CIFAR-100 runs.

Defaults: alpha = 5/6, tau = 1, attack from Gaussian noise in eval mode: the released script.

Confirmed: the authors' scripts for both data sets with `parity: official`, value and gradients;
their attack too.
"""

from typing import ClassVar

import torch
from pydantic import Field
from typing_extensions import override

from rkdsearch.methods import KLScale, Loss, Method, Parity, Step, Temperature, Weight, inner


class RSLAD(Method):
    """Imitate the teacher's logits of clean images, on clean and on attacked images."""

    hard_labels: ClassVar[bool] = False

    adversarial_weight: Weight = Field(5 / 6, description="alpha")
    temperature: Temperature = 1.0
    kl_scale: KLScale = 1.0
    parity: Parity = "paper"

    @override
    def loss(self, step: Step) -> Loss:
        with torch.no_grad():
            soft_labels = step.teacher(step.x)
        imitation = inner.imitation(
            soft_labels,
            temperature=self.temperature,
            offset=1e-5 if self.parity == "official" else 0.0,
        )
        x_adv = step.maximize(imitation.of(step.student))
        adversarial, natural = step.student.logits(x_adv, step.x)
        return Loss.weighted(
            adversarial=(self.kl_scale * self.adversarial_weight, imitation(adversarial)),
            natural=(self.kl_scale * (1 - self.adversarial_weight), imitation(natural)),
        )

"""Adversarially Robust Distillation (Goldblum et al., AAAI 2020).

https://arxiv.org/abs/1905.09747

outer   min  alpha tau^2 KL(T(x) || S(x'); tau) + (1 - alpha) CE(S(x), y)
inner   x' = argmax CE(S(x'), y)

The student's prediction on an attacked image imitates the robust teacher's on the clean image. The
attack uses the student alone.

Where the released code departs: it averages the KL over classes too (`kl_scale` = 1/K repeats it),
which at tau = 30 makes its gradient about that of 1/K of a plain KL. Its second learning-rate
milestone does nothing: a matter of the schedule, not of the method. "ARD" in the IAD repository is
tau = 1, alpha = 1, summed over classes.

Defaults: alpha = 1, tau = 30, attack from uniform noise with BatchNorm in train mode: the released
script.

Confirmed: the authors' script and the IAD repository's, value and gradients.
"""

from typing import ClassVar

import torch
from pydantic import Field
from typing_extensions import override

from rkdsearch.losses import kl_divergence
from rkdsearch.methods import (
    AttackDefaults,
    KLScale,
    Loss,
    Method,
    Step,
    Temperature,
    Weight,
    inner,
)


class ARD(Method):
    """Imitate, on attacked images, the teacher's logits of the clean images."""

    attack_defaults: ClassVar[AttackDefaults] = AttackDefaults(start="uniform", batchnorm="train")

    soft_label_weight: Weight = Field(1.0, description="alpha")
    temperature: Temperature = 30.0
    kl_scale: KLScale = 1.0

    @override
    def loss(self, step: Step) -> Loss:
        with torch.no_grad():
            soft_labels = step.teacher(step.x)
        x_adv = step.maximize(inner.label(step))
        label_weight = 1 - self.soft_label_weight
        adversarial, natural = step.student.logits(x_adv, step.x, weights=(1.0, label_weight))
        imitation = kl_divergence(adversarial, target=soft_labels, temperature=self.temperature)
        return Loss.weighted(
            soft_label=(self.soft_label_weight * self.kl_scale * self.temperature**2, imitation),
            label=(label_weight, step.label_loss(natural)),
        )

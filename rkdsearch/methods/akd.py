"""AKD: adversarial training, and imitation of a robust teacher (in IAD's tables).

https://arxiv.org/abs/2106.04928

outer   min  (1 - lambda) CE(S(x'), y) + lambda tau^2 KL(T(x') || S(x'); tau)
inner   x' = argmax CE(S(x'), y)

The teacher sees the student's own attacked image, where it may be wrong: the problem that IAD
solves later. The name is from IAD's tables. There is no canonical code: this is AKD2 without its
natural teacher.

Defaults: lambda = 1/2 and tau = 1 are ours, the middle of the range in use; the attack is PGD-AT's.

Confirmed: the KL term by AKD2's released code, whose soft cross-entropy differs from it by the
teacher's entropy; the weighting is a convention.
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


class AKD(Method):
    """Learn, on attacked images, the label and the teacher's logits of the same image."""

    attack_defaults: ClassVar[AttackDefaults] = AttackDefaults(start="uniform_clipped")

    soft_label_weight: Weight = Field(0.5, description="lambda")
    temperature: Temperature = 1.0
    kl_scale: KLScale = 1.0

    @override
    def loss(self, step: Step) -> Loss:
        x_adv = step.maximize(inner.label(step))
        with torch.no_grad():
            soft_labels = step.teacher(x_adv)
        logits = step.student(x_adv)
        scale = self.kl_scale * self.temperature**2
        return Loss.weighted(
            soft_label=(
                self.soft_label_weight * scale,
                kl_divergence(logits, target=soft_labels, temperature=self.temperature),
            ),
            label=(1 - self.soft_label_weight, step.label_loss(logits)),
        )

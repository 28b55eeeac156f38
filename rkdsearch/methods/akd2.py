"""AKD2, also called KD&SWA (Chen et al., ICLR 2021).

https://openreview.net/forum?id=qZzy5urZw9

outer   min  w CE(S(x'), y) + a1 tau^2 H(T(x'), S(x'); tau) + a2 tau^2 H(N(x'), S(x'); tau)
inner   x' = argmax CE(S(x'), y)

Robust overfitting is smoothed away by two teachers of the student's own architecture, one robust
(T) and one natural (N), which both see the attacked image. The other half of the paper averages
weights: a setting of the run (`averaging`), not of the method.

H is the soft cross-entropy: the KL plus the teacher's entropy, of equal gradient. The IAD
repository's AKD2 uses the KL (`imitation: kl`) with w, a1, a2 = 0.25, 0.5, 0.25 and tau = 1. The
three weights are free, as in the released script: their sum need not be 1.

Defaults: w, a1, a2 = 0.3, 0.6, 0.1 and tau = 2, attack from clipped uniform noise with BatchNorm in
train mode: the released script.

Confirmed: the authors' script and the IAD repository's, value and gradients.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from rkdsearch.losses import kl_divergence, soft_cross_entropy
from rkdsearch.methods import (
    AttackDefaults,
    Factor,
    KLScale,
    Loss,
    Method,
    Role,
    Step,
    Temperature,
    inner,
)


class AKD2(Method):
    """Learn, on attacked images, the label and the logits of a robust and a natural teacher."""

    attack_defaults: ClassVar[AttackDefaults] = AttackDefaults(
        start="uniform_clipped", batchnorm="train"
    )

    label_weight: Factor = Field(0.3, description="w")
    robust_weight: Factor = Field(0.6, description="a1: the robust teacher's")
    natural_weight: Factor = Field(0.1, description="a2: the natural teacher's")
    temperature: Temperature = 2.0
    imitation: Literal["cross_entropy", "kl"] = Field(
        "cross_entropy", description="H, or the KL: another value, the same gradient"
    )
    kl_scale: KLScale = 1.0

    @override
    def teachers(self) -> tuple[Role, ...]:
        return ("robust", "natural")

    @override
    def loss(self, step: Step) -> Loss:
        x_adv = step.maximize(inner.label(step))
        with torch.no_grad():
            robust, natural = step.teachers["robust"](x_adv), step.teachers["natural"](x_adv)
        logits = step.student(x_adv)
        scale = self.kl_scale * self.temperature**2

        def imitate(target: Tensor) -> Tensor:
            divergence = soft_cross_entropy if self.imitation == "cross_entropy" else kl_divergence
            return divergence(logits, target=target, temperature=self.temperature)

        return Loss.weighted(
            label=(self.label_weight, step.label_loss(logits)),
            robust=(self.robust_weight * scale, imitate(robust)),
            natural=(self.natural_weight * scale, imitate(natural)),
        )

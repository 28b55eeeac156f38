"""Dynamic Guidance Adversarial Distillation (Park and Min, ECCV 2024).

https://arxiv.org/abs/2409.01627

outer   min  n/B mean over M of KL(T~(x) || S(x))
             + (B - n)/B mean over the rest of KL(T~(x') || S(x')) + beta |p_S(x') - p_S(x)|^2 / K
inner   x' = argmax KL(T(x') || S(x'))

M are the n samples whose clean image the teacher gets wrong: the student learns these samples
clean, and the others attacked. T~ is the corrected teacher: where its first choice is wrong, that
logit changes places with the true class's. The last term has gradient on both sides. B is the
configured batch size, also for a shorter last batch, as in the released code.

Where the released code departs (`parity: official`): its MobileNet-V2 branch has misplaced
brackets, 0.5 (n/B L_M + (B - n)/B) L_rest, which multiplies the two losses; its ResNet branch is
the equation above.

Defaults: beta = 1, attack from Gaussian noise in eval mode: the released script.

Confirmed: both branches of the authors' script, value and gradients.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from rkdsearch.losses import kl_divergence, probabilities
from rkdsearch.methods import Factor, KLScale, Loss, Method, Parity, Step, inner


class DGAD(Method):
    """Learn clean what the teacher gets wrong and attacked the rest, from the corrected teacher."""

    hard_labels: ClassVar[bool] = False

    consistency_weight: Factor = Field(
        1.0, description="beta: the student's predictions on x and on x' stay close"
    )
    kl_scale: KLScale = 1.0
    parity: Parity = "paper"

    @override
    def loss(self, step: Step) -> Loss:
        x_adv = step.maximize(inner.teacher_adversarial(step))
        student_nat, student_adv = step.student.logits(step.x, x_adv)
        with torch.no_grad():
            teacher_nat, teacher_adv = step.teacher(step.x), step.teacher(x_adv)
            wrong = teacher_nat.argmax(dim=1) != step.y
        natural = kl_divergence(student_nat, target=_corrected(teacher_nat, step.y))
        adversarial = kl_divergence(student_adv, target=_corrected(teacher_adv, step.y))
        distance = (probabilities(student_adv) - probabilities(student_nat)).square().mean(dim=1)

        # The shares couple the images of the batch.
        natural, adversarial, wrong = step.all_gather(
            torch.stack([natural, adversarial, wrong.to(natural.dtype)], dim=1)
        ).unbind(dim=1)
        n, others = wrong.sum(), (1 - wrong).sum()
        natural = (wrong * natural).sum() / n.clamp_min(1)
        adversarial = ((1 - wrong) * adversarial).sum() / others.clamp_min(1)
        images = step.batch_size * step.share
        natural_weight = self.kl_scale * n / images
        adversarial_weight = self.kl_scale * (images - n) / images
        if self.parity == "official":
            return Loss.weighted(
                natural=(0.0, natural),
                adversarial=(0.5 * adversarial_weight, adversarial),
                product=(0.5 * self.kl_scale * natural_weight, natural * adversarial),
                consistency=(self.consistency_weight, distance),
            )
        return Loss.weighted(
            natural=(natural_weight, natural),
            adversarial=(adversarial_weight, adversarial),
            consistency=(self.consistency_weight, distance),
        )


def _corrected(logits: Tensor, y: Tensor) -> Tensor:
    """Logits (N, K) in which the largest has changed places with the true class's."""
    pair = torch.stack([logits.argmax(dim=1), y], dim=1)
    return logits.scatter(1, pair, logits.gather(1, pair.flip(1)))

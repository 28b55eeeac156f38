"""Collaboratively Guided Adversarial Robustness Distillation (Li et al., preprint, 2026).

outer   min  (1 - alpha) KL(T(x_T) || S(x_S)) + alpha KL(T(x_S) || S(x_S))
inner   x_S, x_T = argmax D(S(x_S), T(x_T)),   D = the mean of both KLs
        both move at once, each by its own gradient, and an x_T on which the teacher's
        cross-entropy exceeds that of the clean x goes back to x

CGARD: the student is attacked, while the teacher gets an image of the same ball on which its loss
is no higher than on the clean one: its logits there are the collaborative target. One student
forward a step.

Where we had to choose: the paper does not say BatchNorm's mode in the search nor the KL's
reduction; here eval mode, and the sum over classes.

Defaults: alpha = 0.7, both starts from Gaussian noise of their own: the paper.

Confirmed: on our own numbers only, the loss and three steps of the search; no code is public.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from rkdsearch.errors import ConfigError
from rkdsearch.losses import cross_entropy, kl_divergence
from rkdsearch.methods import KLScale, Loss, Method, Step, Weight


class CGARD(Method):
    """Imitate, on the attacked image, the teacher's logits there and at its guiding image x_T."""

    hard_labels: ClassVar[bool] = False

    adversarial_weight: Weight = Field(
        0.7, description="alpha: the teacher's logits of x_S; the rest is for its logits of x_T"
    )
    kl_scale: KLScale = 1.0

    @override
    def loss(self, step: Step) -> Loss:
        x_adv, x_guide = _search(step)
        with torch.no_grad():
            guidance, target = step.teacher(x_guide), step.teacher(x_adv)
        student = step.student(x_adv)
        return Loss.weighted(
            collaborative=(
                self.kl_scale * (1 - self.adversarial_weight),
                kl_divergence(student, target=guidance),
            ),
            adversarial=(
                self.kl_scale * self.adversarial_weight,
                kl_divergence(student, target=target),
            ),
        )


def _search(step: Step) -> tuple[Tensor, Tensor]:
    """x_S and x_T, (N, C, H, W) each. Raises ConfigError where `attack.objective` is set."""
    if step.inner_problem is not None:
        raise ConfigError(
            "attack.objective: cgard searches two images with an objective of its own, got"
            f" '{step.inner_problem.__name__}'; leave it out"
        )

    def uphill(pair: Tensor) -> Tensor:
        # Each image is a leaf of its own: torch's compiler warns of other inputs with gradients.
        x_adv, x_guide = (half.detach().requires_grad_() for half in pair.chunk(2))
        with torch.enable_grad():
            student, teacher = step.student(x_adv), step.teacher(x_guide)
            there, back = (
                kl_divergence(student, target=teacher),
                kl_divergence(teacher, target=student),
            )
            disagreement = (there + back).sum() / 2
        return torch.cat(torch.autograd.grad(disagreement, (x_adv, x_guide)))

    with torch.no_grad():
        harm_on_clean = cross_entropy(step.teacher(step.x), step.y)
    project = step.attack.projection_around(torch.cat([step.x, step.x]))
    with step.attacking():
        pair = torch.cat(
            [step.attack.start(step.x, step.noise), step.attack.start(step.x, step.noise)]
        )
        for _ in range(step.attack.steps):
            pair = project(step.attack.ascend(pair, uphill(pair)))
            x_adv, x_guide = pair.chunk(2)
            with torch.no_grad():
                harmed = cross_entropy(step.teacher(x_guide), step.y) > harm_on_clean
            pair = torch.cat([x_adv, torch.where(harmed[:, None, None, None], step.x, x_guide)])
    # Each step ends inside the ball and the pixel range; a start need not lie there.
    x_adv, x_guide = (pair if step.attack.steps else project(pair)).detach().chunk(2)
    return x_adv, x_guide

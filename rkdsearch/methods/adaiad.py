"""AdaAD with introspection, AdaIAD (Huang et al., CVPR 2023).

https://github.com/boyellow/AdaAD; IAD: https://arxiv.org/abs/2106.04928

outer   min  alpha tau^2 KL(T(x') || S(x'); tau) + alpha (1 - a) KL(S(x) || S(x'))
             + (1 - alpha) CE(S(x), y)
        a = p_T(y | x')^beta, and 1 during the warm-up
inner   x' = argmax KL(T(x') || S(x'))

AdaAD's attack with the loss of IAD-I: the less the teacher believes in the label of x', the more
the student imitates its own logits of x. Unlike in IAD-I, the teacher sees x', and its term is not
weighted by a. S(x) is a target with gradient.

Where we depart: the released code forwards x twice, before and after x'; here once, with the same
loss and one BatchNorm update less.

Defaults: alpha = 1, tau = 30, beta = 0.1, warm-up 60 of 200 epochs, attack from Gaussian noise in
eval mode: the released script.

Confirmed: the authors' script, value and gradients; the warm-up on our own numbers only.
"""

import torch
from pydantic import Field
from typing_extensions import override

from rkdsearch.losses import kl_divergence, log_probabilities
from rkdsearch.methods import (
    Factor,
    KLScale,
    Loss,
    Method,
    Step,
    Temperature,
    WarmUp,
    Weight,
    inner,
)


class AdaIAD(Method):
    """AdaAD, and the student's own clean logits where the teacher is unsure."""

    soft_label_weight: Weight = Field(1.0, description="alpha")
    temperature: Temperature = Field(30.0, description="tau: softening in the teacher's term alone")
    trust_exponent: Factor = Field(0.1, description="beta: 0 trusts always")
    warm_up: WarmUp = Field(0.3, description="fraction of the run in which a = 1")
    kl_scale: KLScale = 1.0

    @override
    def loss(self, step: Step) -> Loss:
        x_adv = step.maximize(inner.teacher_adversarial(step))
        introspective, label_weight = step.started(self.warm_up), 1 - self.soft_label_weight
        # In the warm-up, 1 - a = 0 multiplies the self term.
        clean, adversarial = step.student.logits(
            step.x, x_adv, weights=(1.0 if introspective else label_weight, 1.0)
        )
        with torch.no_grad():
            robust = step.teacher(x_adv)
            log_belief = log_probabilities(robust).gather(1, step.y[:, None])[:, 0]
        trust = (
            (self.trust_exponent * log_belief).exp()
            if introspective
            else torch.ones_like(log_belief)
        )
        scale = self.kl_scale * self.soft_label_weight
        return Loss.weighted(
            robust=(
                scale * self.temperature**2,
                kl_divergence(adversarial, target=robust, temperature=self.temperature),
            ),
            oneself=(scale, (1 - trust) * kl_divergence(adversarial, target=clean)),
            label=(label_weight, step.label_loss(clean)),
            trust=(0.0, trust),
        )

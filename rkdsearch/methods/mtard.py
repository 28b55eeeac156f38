"""Multi-Teacher Adversarial Robustness Distillation (Zhao et al., ECCV 2022).

https://doi.org/10.1007/978-3-031-19772-7_34

outer   min  w_adv KL(T(x') || S(x')) + w_nat KL(N(x) || S(x))
        each step, before the loss: w_k <- w_k - rho (w_k - r_k / (r_adv + r_nat)),
        r_k = (L_k / L_k of the first batch)^b
inner   x' = argmax CE(S(x'), y)

A robust teacher T for attacked images and a natural teacher N for clean ones; the loss that lags
behind gets more weight. rho follows the learning rate, as the released code divides both by 10 at
the same milestones. The reference is the run's very first batch: the weights depend on the seed.
Under `training.microbatches` the weights are one batch late (`_balance.py`).

Where the released code departs (`parity: official`): it adds 1e-5 to the teachers' probabilities
inside the logarithm, which moves the losses and through them the weights. It also averages the KL
over classes: `kl_scale` = 1/K, on CIFAR-100 10/K; the weights do not feel it.

Defaults: rho = 0.025, b = 1, equal weights at first, attack from Gaussian noise in eval mode: the
released script.

Confirmed: two consecutive steps of the authors' script with `parity: official`: values, gradients
and weights.
"""

from typing import ClassVar

import torch
from pydantic import Field
from typing_extensions import override

from rkdsearch.losses import kl_divergence
from rkdsearch.methods import Factor, KLScale, Loss, Method, Parity, Role, Step, Weight, inner
from rkdsearch.methods._balance import balance


class MTARD(Method):
    """Learn robustness from one teacher and accuracy from another, balanced by their losses."""

    hard_labels: ClassVar[bool] = False
    stationary_loss: ClassVar[bool] = False

    balance_rate: Weight = Field(
        0.025,
        description="rho: how fast the two weights follow the losses, at the initial learning rate",
    )
    balance_exponent: Factor = Field(
        1.0, description="b: how strongly a lagging loss is favoured; 0 pulls towards equal weights"
    )
    kl_scale: KLScale = 1.0
    parity: Parity = "paper"

    @override
    def teachers(self) -> tuple[Role, ...]:
        return ("robust", "natural")

    @override
    def loss(self, step: Step) -> Loss:
        x_adv = step.maximize(inner.label(step))
        with torch.no_grad():
            robust, natural = step.teachers["robust"](x_adv), step.teachers["natural"](step.x)
        offset = 1e-5 if self.parity == "official" else 0.0
        on_adversarial, on_natural = step.student.logits(x_adv, step.x)
        adversarial_loss = kl_divergence(on_adversarial, target=robust, offset=offset)
        natural_loss = kl_divergence(on_natural, target=natural, offset=offset)

        weights = balance(
            step,
            adversarial_loss,
            natural_loss,
            rate=self.balance_rate,
            exponent=self.balance_exponent,
        )
        return Loss.weighted(
            adversarial=(self.kl_scale * weights[0], adversarial_loss),
            natural=(self.kl_scale * weights[1], natural_loss),
            adversarial_weight=(0.0, weights[0]),
        )

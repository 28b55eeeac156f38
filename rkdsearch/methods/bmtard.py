"""Balanced Multi-Teacher Adversarial Robustness Distillation (Zhao et al., TPAMI 2024).

https://arxiv.org/abs/2306.16170

outer   min  w_adv KL(T(x') / tau_adv || S(x')) + w_nat KL(N(x) / tau_nat || S(x))
        each step, before the loss: w_k <- w_k - rho (w_k - r_k / (r_adv + r_nat)),
        r_k = L_k / L_k of the first batch
        each step, after the loss: tau_adv <- clip(tau_adv - kappa sign(H_adv - H_nat), 1, 10),
        and tau_nat the other way
inner   x' = argmax CE(S(x'), y)

B-MTARD: MTARD whose teachers are brought to the same entropy H: the teacher of higher entropy is
cooled, the other is heated. Only teachers are softened, and no tau^2 multiplies. rho and kappa
follow the learning rate, as the released code divides all three by 10 at the same milestones. Under
`training.microbatches` the loss weights are one batch late (`_balance.py`), the temperatures not.

Where the released code departs (`parity: official`): it adds 1e-5 to the teachers' probabilities
inside the logarithm. It also averages the KL over classes: `kl_scale` = 1/K, on CIFAR-100 10/K. Its
offset inside the entropies, of which only the order counts, is left out.

Defaults: rho = 0.025, kappa = 0.001, temperatures from 1 up to 10, attack from Gaussian noise in
eval mode: the released script.

Confirmed: two consecutive steps of the authors' script with `parity: official`: values, gradients,
weights and temperatures.
"""

from typing import ClassVar

import torch
from pydantic import Field
from typing_extensions import override

from rkdsearch.losses import entropy, kl_divergence
from rkdsearch.methods import Factor, KLScale, Loss, Method, Parity, Role, Step, Weight, inner
from rkdsearch.methods._balance import balance


class BMTARD(Method):
    """Learn robustness from one teacher and accuracy from another, brought to equal entropy."""

    hard_labels: ClassVar[bool] = False
    stationary_loss: ClassVar[bool] = False

    balance_rate: Weight = Field(
        0.025,
        description="rho: how fast the two weights follow the losses, at the initial learning rate",
    )
    temperature_step: Factor = Field(
        0.001,
        description="kappa: the move of a temperature in a step, at the initial learning rate",
    )
    highest_temperature: float = Field(
        10.0, ge=1, le=1000, description="where heating a teacher ends; cooling ends at 1"
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
        tau = step.memory.get(
            "temperatures",
            torch.ones(
                2, dtype=torch.promote_types(robust.dtype, torch.float32), device=robust.device
            ),
        )
        offset = 1e-5 if self.parity == "official" else 0.0
        on_adversarial, on_natural = step.student.logits(x_adv, step.x)
        adversarial_loss = kl_divergence(
            on_adversarial, target=robust, target_temperature=tau[0], offset=offset
        )
        natural_loss = kl_divergence(
            on_natural, target=natural, target_temperature=tau[1], offset=offset
        )

        entropies = step.batch_mean(
            "entropies", torch.stack([entropy(robust, tau[0]), entropy(natural, tau[1])], dim=1)
        )
        if entropies is not None:
            cooling = (
                self.temperature_step * step.lr_factor * (entropies - entropies.flip(0)).sign()
            )
            step.memory["temperatures"] = (tau - cooling).clamp(1, self.highest_temperature)

        weights = balance(step, adversarial_loss, natural_loss, rate=self.balance_rate)
        return Loss.weighted(
            adversarial=(self.kl_scale * weights[0], adversarial_loss),
            natural=(self.kl_scale * weights[1], natural_loss),
            adversarial_weight=(0.0, weights[0]),
        )

"""Anti-Bias Soft Label Distillation (Zhao et al., NeurIPS 2024).

https://arxiv.org/abs/2312.05508

outer   min  alpha KL(T(x) / t_adv[y] || S(x')) + (1 - alpha) KL(T(x) / t_nat[y] || S(x))
        each epoch's end: t <- clip(t - r (G - mean G) / max |G - mean G|, 0.5, 5)
        G[k] = the sum over class k of the student's cross-entropy in that epoch,
        on x' for t_adv and on x for t_nat
inner   x' = argmax KL(T(x) / t_adv[y] || S(x'))

RSLAD whose soft labels are sharpened for the classes that the student finds hard: it aims at the
worst class, not at the average. r follows the learning rate, as the released code divides both by
10 at the same milestones.

Where the released code departs (`parity: official`): its two copies of the teacher's logits share
storage, so that both targets are divided by t_adv[y] t_nat[y]; and it adds 1e-5 to the teacher's
probability inside the logarithm. It also averages the KL over classes: `kl_scale` = 1/K.

Defaults: alpha = 5/6, r = 0.1, temperatures from 1 within [0.5, 5], attack from Gaussian noise in
eval mode: the released script.

Confirmed: the authors' script with `parity: official`, value and gradients, and its update; the
paper's equation on our own numbers only.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import one_hot
from typing_extensions import override

from rkdsearch.losses import cross_entropy, kl_divergence
from rkdsearch.methods import Factor, KLScale, Loss, Method, Parity, Step, Weight, inner


class ABSLD(Method):
    """RSLAD with sharper labels for harder classes."""

    hard_labels: ClassVar[bool] = False

    adversarial_weight: Weight = Field(5 / 6, description="alpha")
    class_temperature_step: Factor = Field(
        0.1,
        description="r: the hardest class's move at an epoch's end, at the initial learning rate",
    )
    lowest_temperature: float = Field(
        0.5, gt=0, le=1, description="the sharpest that a class's labels become"
    )
    highest_temperature: float = Field(
        5.0, ge=1, le=1000, description="the softest that a class's labels become"
    )
    kl_scale: KLScale = 1.0
    parity: Parity = "paper"

    @override
    def loss(self, step: Step) -> Loss:
        with torch.no_grad():
            soft_labels = step.teacher(step.x)
        # Rows: adversarial, natural. Columns: classes.
        start = torch.ones(
            2,
            soft_labels.shape[1],
            dtype=torch.promote_types(soft_labels.dtype, torch.float32),
            device=soft_labels.device,
        )
        adversarial_tau, natural_tau = step.memory.setdefault("temperatures", start)[
            :, step.y
        ].unsqueeze(2)
        if self.parity == "official":
            adversarial_tau = natural_tau = adversarial_tau * natural_tau
        offset = 1e-5 if self.parity == "official" else 0.0

        def imitation(logits: Tensor, tau: Tensor) -> Tensor:
            return kl_divergence(logits, target=soft_labels, target_temperature=tau, offset=offset)

        x_adv = step.maximize(inner.imitation(soft_labels / adversarial_tau).of(step.student))
        adversarial, natural = step.student.logits(x_adv, step.x)

        errors = torch.stack(
            [cross_entropy(adversarial, step.y), cross_entropy(natural, step.y)], dim=1
        ).detach()
        total = step.memory.get("class_errors", torch.zeros_like(start))
        # A product with the labels one-hot: `index_add` sums in any order on CUDA, and every
        # process must come to the same temperatures.
        members = one_hot(step.all_gather(step.y), total.shape[1]).to(total.dtype)
        step.memory["class_errors"] = total + step.all_gather(errors).T.to(total.dtype) @ members
        return Loss.weighted(
            adversarial=(
                self.kl_scale * self.adversarial_weight,
                imitation(adversarial, adversarial_tau),
            ),
            natural=(
                self.kl_scale * (1 - self.adversarial_weight),
                imitation(natural, natural_tau),
            ),
        )

    @override
    def end_epoch(
        self, memory: dict[str, Tensor], *, epoch: int, epochs: int, lr_factor: float
    ) -> None:
        errors = memory["class_errors"]
        excess = errors - errors.mean(dim=1, keepdim=True)
        largest = excess.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(errors.dtype).tiny)
        moved = memory["temperatures"] - self.class_temperature_step * lr_factor * excess / largest
        memory["temperatures"] = moved.clamp(self.lowest_temperature, self.highest_temperature)
        memory["class_errors"] = torch.zeros_like(errors)

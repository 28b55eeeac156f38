"""Introspective Adversarial Distillation (Zhu et al., ICLR 2022).

https://arxiv.org/abs/2106.04928

outer   IAD-I    min  alpha [a KL(T(x) || S(x'); tau) + (1 - a) KL(S(x) || S(x'); tau)]
                      + (1 - alpha) CE(S(x), y)
        IAD-II   min  a1 [a KL(T(x') || S(x'); tau) + (1 - a) KL(S(x) || S(x'); tau)]
                      + a2 KL(N(x') || S(x'); tau) + w CE(S(x'), y)
        a = p_T(y | x')^beta, and 1 during the warm-up, while the student knows too little
inner   x' = argmax CE(S(x'), y)

The teacher was trained on its own attacked images, not on the student's, and becomes less reliable
as the student improves. Three cases: the teacher is right on x' (trust it), right on x alone (trust
it partly, and the student's own clean logits for the rest), wrong on both (trust the student). The
paper's a is the soft form of these cases; `trust: cases` takes them literally. IAD-I is built on
ARD, IAD-II on AKD2.

Where the released code departs (`parity: official`): the self term is always at temperature 1 and
tau^2 multiplies the teachers' terms (in IAD-II the self term too); in the paper both terms of the
bracket share tau, and nothing is multiplied. The released IAD-I does not weight the teacher's term
by a (`teacher_term: unweighted`), and neither do later re-implementations: the "IAD" numbers of
other papers come from that form. S(x) is not detached there; `self_target: detached` has the same
value and another gradient. IAD-II's script ties w to 1 - a1 - a2.

Defaults: beta = 0.1, alpha = 1, a1 = 0.5, a2 = 0.25, tau = 1, warm-up 60 (IAD-I) and 40 (IAD-II) of
200 epochs, attack from uniform noise with BatchNorm in train mode: the released scripts.
`teacher_term: weighted` is the paper's equation. `partial_trust` is ours.

Confirmed: the authors' scripts with `parity: official`, warm-up included, value and gradients; the
paper's equation on our own numbers only.
"""

from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import override

from rkdsearch.losses import kl_divergence, log_probabilities
from rkdsearch.methods import (
    UNUSED,
    AttackDefaults,
    ConditionalMethod,
    Factor,
    KLScale,
    Loss,
    Parity,
    Role,
    Step,
    Temperature,
    WarmUp,
    Weight,
    When,
    inner,
)


class IAD(ConditionalMethod):
    """Trust the teacher as far as it is right on an attacked image, and the student otherwise."""

    attack_defaults: ClassVar[AttackDefaults] = AttackDefaults(start="uniform", batchnorm="train")

    form: Literal["iad1", "iad2"] = Field(
        "iad1",
        description="IAD-I on ARD, or IAD-II on AKD2 with a natural teacher beside the robust one",
    )
    soft_label_weight: Annotated[Weight, When("form", iad1=1.0), Field(description="alpha")] = (
        UNUSED
    )
    label_weight: Annotated[Factor, When("form", iad2=0.25), Field(description="w")] = UNUSED
    robust_weight: Annotated[
        Factor,
        When("form", iad2=0.5),
        Field(description="a1: the robust teacher's and the student's own"),
    ] = UNUSED
    natural_weight: Annotated[
        Factor, When("form", iad2=0.25), Field(description="a2: the natural teacher's")
    ] = UNUSED
    temperature: Temperature = 1.0
    trust: Literal["soft", "cases"] = Field(
        "soft", description="a = p_T(y | x')^beta, or the three cases literally"
    )
    trust_exponent: Annotated[Factor, When("trust", soft=0.1), Field(description="beta")] = UNUSED
    partial_trust: Annotated[
        Weight,
        When("trust", cases=0.5),
        Field(description="a where the teacher is right on x alone"),
    ] = UNUSED
    warm_up: Annotated[
        WarmUp,
        When("form", iad1=0.3, iad2=0.2),
        Field(description="fraction of the run in which a = 1"),
    ] = UNUSED
    teacher_term: Literal["weighted", "unweighted"] = Field(
        "weighted", description="whether a multiplies the robust teacher's term"
    )
    self_target: Literal["gradient", "detached"] = Field(
        "gradient", description="whether S(x) as a target carries a gradient"
    )
    kl_scale: KLScale = 1.0
    parity: Parity = "paper"

    @model_validator(mode="after")
    def _weights_share_one(self) -> Self:
        if (
            self.form == "iad2"
            and (total := self.label_weight + self.robust_weight + self.natural_weight) > 1 + 1e-9
        ):
            given = f"{self.label_weight:g}, {self.robust_weight:g} and {self.natural_weight:g}"
            raise ValueError(
                f"label_weight + robust_weight + natural_weight must be <= 1, got {total:g}"
                f" ({given}); lower one of them"
            )
        return self

    @override
    def teachers(self) -> tuple[Role, ...]:
        return ("robust",) if self.form == "iad1" else ("robust", "natural")

    @override
    def loss(self, step: Step) -> Loss:
        x_adv = step.maximize(inner.label(step))
        adversarial = step.student(x_adv)
        introspective = step.started(self.warm_up)
        trust = self._trust(step, x_adv) if introspective else torch.ones_like(adversarial[:, 0])
        if self.form == "iad1":
            return self._iad1(step, adversarial, trust)
        return self._iad2(step, x_adv, adversarial, trust)

    def _iad1(self, step: Step, adversarial: Tensor, trust: Tensor) -> Loss:
        """IAD-I: ARD, and introspection."""
        with torch.no_grad():
            soft_labels = step.teacher(step.x)
        alpha = self.soft_label_weight
        # 0 in the warm-up, where 1 - a = 0, and where S(x) as a target is a constant.
        self_weight = float(step.started(self.warm_up) and self.self_target == "gradient")
        (natural,) = step.student.logits(step.x, weights=[1 - alpha + self_weight])
        return Loss.weighted(
            robust=(
                alpha * self.kl_scale * self._official_factor,
                self._teacher_share(trust) * self._imitation(adversarial, soft_labels),
            ),
            oneself=(
                alpha * self.kl_scale,
                (1 - trust) * self._introspection(adversarial, natural),
            ),
            label=(1 - alpha, step.label_loss(natural)),
            trust=(0.0, trust),
        )

    def _iad2(self, step: Step, x_adv: Tensor, adversarial: Tensor, trust: Tensor) -> Loss:
        """IAD-II: AKD2, and introspection."""
        with torch.no_grad():
            robust, natural = step.teachers["robust"](x_adv), step.teachers["natural"](x_adv)
        oneself = torch.zeros_like(trust)
        # No clean forward in the warm-up: BatchNorm must not see images that the loss ignores.
        if step.started(self.warm_up):
            oneself = (1 - trust) * self._introspection(adversarial, step.student(step.x))
        scale = self.kl_scale * self._official_factor
        return Loss.weighted(
            robust=(
                self.robust_weight * scale,
                self._teacher_share(trust) * self._imitation(adversarial, robust),
            ),
            oneself=(self.robust_weight * scale, oneself),
            natural=(self.natural_weight * scale, self._imitation(adversarial, natural)),
            label=(self.label_weight, step.label_loss(adversarial)),
            trust=(0.0, trust),
        )

    @torch.no_grad()
    def _trust(self, step: Step, x_adv: Tensor) -> Tensor:
        """a, (N,) constants of [0, 1]."""
        logits = step.teacher(x_adv)
        if self.trust == "soft":
            log_belief = log_probabilities(logits).gather(1, step.y[:, None])[:, 0]
            return (self.trust_exponent * log_belief).exp()
        right_adv = logits.argmax(dim=1) == step.y
        right_clean = step.teacher(step.x).argmax(dim=1) == step.y
        distrust = torch.zeros_like(step.y, dtype=torch.promote_types(logits.dtype, torch.float32))
        return distrust.masked_fill(right_clean, self.partial_trust).masked_fill(right_adv, 1.0)

    def _teacher_share(self, trust: Tensor) -> Tensor:
        """The factor on the robust teacher's term: a, or 1."""
        return trust if self.teacher_term == "weighted" else torch.ones_like(trust)

    def _imitation(self, adversarial: Tensor, target: Tensor) -> Tensor:
        """KL(T || S(x'); tau), (N,) nats."""
        return kl_divergence(adversarial, target=target, temperature=self.temperature)

    def _introspection(self, adversarial: Tensor, natural: Tensor) -> Tensor:
        """KL(S(x) || S(x'); tau), (N,) nats; tau = 1 in the released code."""
        target = natural.detach() if self.self_target == "detached" else natural
        temperature = 1.0 if self.parity == "official" else self.temperature
        return kl_divergence(adversarial, target=target, temperature=temperature)

    @property
    def _official_factor(self) -> float:
        """tau^2 in the released code, 1 in the paper."""
        return self.temperature**2 if self.parity == "official" else 1.0

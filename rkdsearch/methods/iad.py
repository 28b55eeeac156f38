"""Introspective Adversarial Distillation (Zhu et al., ICLR 2022, https://arxiv.org/abs/2106.04928).

outer   IAD-I    min  alpha [a KL(T(x) || S(x'); tau) + (1 - a) KL(S(x) || S(x'); tau)] + (1 - alpha) CE(S(x), y)
        IAD-II   min  a1 [a KL(T(x') || S(x'); tau) + (1 - a) KL(S(x) || S(x'); tau)] + a2 KL(N(x') || S(x'); tau) + w CE(S(x'), y)
        a = p_T(y | x')^beta, and 1 during the warm-up, where the student is not yet worth listening to
inner   x' = argmax CE(S(x'), y)

A teacher was trained on its own attacked images, not on the student's, and grows less reliable as
the student grows. Three cases: it is right on x' (trust it), right on x alone (trust it partly, and
the student's own clean answer for the rest), wrong on both (trust the student). The paper's a is
the soft form of these; `trust: cases` takes them literally. IAD-I is built on ARD, IAD-II on AKD2.

Where the released code departs (`parity: official`): the self term is always at temperature 1 and
tau^2 multiplies the teachers' terms (in IAD-II the self term too); here both sides of the bracket
share tau, and nothing is multiplied. Its IAD-I does not weight the teacher's term by a
(`teacher_term: unweighted`), nor do later re-implementations: published "IAD" numbers of other
papers are that form. S(x) is not detached there; `self_target: detached` has the same value and
another gradient. IAD-II's script ties w to 1 - a1 - a2.

Defaults: beta = 0.1, alpha = 1, a1 = 0.5, a2 = 0.25, tau = 1, warm-up 60 (IAD-I) and 40 (IAD-II) of
200 epochs, attack from uniform noise with BatchNorm in train mode: the released scripts.
`teacher_term: weighted` is the paper's equation. `partial_trust` is ours. Confirmed: the authors'
scripts with `parity: official`, warm-up included, value and gradients; the paper's equation on our
own numbers only.
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
    Step,
    Temperature,
    WarmUp,
    Weight,
    When,
    inner,
)
from rkdsearch.teacher import Role


class IAD(ConditionalMethod):
    """Trust the teacher as far as it deserves on each attacked image, and oneself for the rest."""

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
        teacher_share = trust if self.teacher_term == "weighted" else torch.ones_like(trust)
        official = self.parity == "official"
        scale = self.kl_scale * (self.temperature**2 if official else 1)

        def imitate(target: Tensor) -> Tensor:
            return kl_divergence(adversarial, target=target, temperature=self.temperature)

        def imitate_oneself(clean: Tensor) -> Tensor:
            target = clean.detach() if self.self_target == "detached" else clean
            return (1 - trust) * kl_divergence(
                adversarial, target=target, temperature=1.0 if official else self.temperature
            )

        if self.form == "iad1":
            with torch.no_grad():
                soft_labels = step.teacher(step.x)
            label_weight = 1 - self.soft_label_weight
            # While a = 1 the student's own answer to x is multiplied by an exact 0.
            with torch.set_grad_enabled(
                label_weight > 0 or (introspective and self.self_target == "gradient")
            ):
                clean = step.student(step.x)
            return Loss.weighted(
                robust=(self.soft_label_weight * scale, teacher_share * imitate(soft_labels)),
                oneself=(self.soft_label_weight * self.kl_scale, imitate_oneself(clean)),
                label=(label_weight, step.label_loss(clean)),
                trust=(0.0, trust),
            )
        with torch.no_grad():
            robust, natural = step.teachers["robust"](x_adv), step.teachers["natural"](x_adv)
        # Before the warm-up's end there is no clean forward: BatchNorm must not see images that the
        # loss does not use.
        oneself = (
            imitate_oneself(step.student(step.x)) if introspective else torch.zeros_like(trust)
        )
        return Loss.weighted(
            robust=(self.robust_weight * scale, teacher_share * imitate(robust)),
            oneself=(self.robust_weight * scale, oneself),
            natural=(self.natural_weight * scale, imitate(natural)),
            label=(self.label_weight, step.label_loss(adversarial)),
            trust=(0.0, trust),
        )

    @torch.no_grad()
    def _trust(self, step: Step, x_adv: Tensor) -> Tensor:
        """a, (N,) of [0, 1]: constants."""
        answer = step.teacher(x_adv)
        if self.trust == "soft":
            return (
                self.trust_exponent * log_probabilities(answer).gather(1, step.y[:, None])[:, 0]
            ).exp()
        right_adv, right_clean = (
            answer.argmax(dim=1) == step.y,
            step.teacher(step.x).argmax(dim=1) == step.y,
        )
        distrust = torch.zeros_like(
            answer[:, 0], dtype=torch.promote_types(answer.dtype, torch.float32)
        )
        return distrust.masked_fill(right_clean, self.partial_trust).masked_fill(right_adv, 1.0)

"""Adversarial Robust Distillation with Internal Representation (Takahashi et al., 2022).

https://arxiv.org/abs/2211.00239 RECONSTRUCTED.

outer   min  alpha tau^2 KL(T(x) || S(x'); tau) + (1 - alpha) CE(S(x'), y)
             + lambda D(h_S(x'), h_T(x))
inner   x' = argmax CE(S(x'), y)

Known, from the abstract: distillation between equal architectures improves adversarial training,
and the teacher's internal representation serves as a label beside its output. Inferred: attack on
the label; both labels come from the clean image (the alternative: `representation_input:
adversarial`). Guessed: the layer (penultimate), the distance (mean square), the weight. `layers:
stages` sums D over the last stages instead, each averaged over its pixels; a trained linear map
joins unequal widths; `natural_alignment` moves that share of D to clean images. Mean and sum of
squares differ by the width: rescale lambda with it.

Defaults: ours; the attack is PGD-AT's. The paper's attack may be RSLAD's: `attack.objective:
teacher_clean`.

Confirmed: our own numbers only. Never to be reported as the authors'.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from rkdsearch.errors import ConfigError
from rkdsearch.losses import kl_divergence
from rkdsearch.methods import (
    UNUSED,
    AttackDefaults,
    Companion,
    ConditionalMethod,
    Factor,
    KLScale,
    Loss,
    Step,
    Temperature,
    Weight,
    When,
    inner,
)
from rkdsearch.methods._representations import measure, projected, projector, vector
from rkdsearch.models import Features


class ARDIR(ConditionalMethod):
    """Imitate, on attacked images, the teacher's clean logits and its clean representation."""

    attack_defaults: ClassVar[AttackDefaults] = AttackDefaults(start="uniform_clipped")
    reconstructed: ClassVar[str | None] = "only the abstract of arXiv 2211.00239 is public"

    soft_label_weight: Weight = Field(1.0, description="alpha")
    temperature: Temperature = 1.0
    representation_weight: Factor = Field(10.0, description="lambda")
    distance: Literal["mse_mean", "l2_sum", "cosine"] = Field("mse_mean", description="D")
    layers: Literal["penultimate", "stages"] = Field("penultimate", description="h")
    last_stages: Annotated[
        int,
        Field(ge=1, le=4, description="how many stages, from the last"),
        When("layers", stages=3),
    ] = UNUSED
    representation_input: Literal["clean", "adversarial"] = Field(
        "clean", description="the image whose representation is the label"
    )
    natural_alignment: Weight = Field(
        0.0, description="share of D that is measured on clean images"
    )
    kl_scale: KLScale = 1.0

    @override
    def companions(
        self, student: nn.Module, teachers: Mapping[str, nn.Module], image: Tensor
    ) -> dict[str, Companion]:
        pairs = self._layers(measure(student, image), measure(teachers["robust"], image))
        maps = {f"projector{i}": projector(own, theirs) for i, (own, theirs) in enumerate(pairs)}
        return {name: Companion(linear) for name, linear in maps.items() if linear is not None}

    @override
    def loss(self, step: Step) -> Loss:
        with torch.no_grad():
            teacher = step.features(step.teacher, step.x)
        x_adv = step.maximize(inner.label(step))
        label = teacher
        if self.representation_input == "adversarial":
            with torch.no_grad():
                label = step.features(step.teacher, x_adv)
        student = step.features(step.student, x_adv)
        representation = (1 - self.natural_alignment) * self._distance(step, student, label)
        if self.natural_alignment:
            natural = self._distance(step, step.features(step.student, step.x), teacher)
            representation = representation + self.natural_alignment * natural
        imitation = kl_divergence(
            student.logits, target=teacher.logits, temperature=self.temperature
        )
        return Loss.weighted(
            soft_label=(self.soft_label_weight * self.kl_scale * self.temperature**2, imitation),
            label=(1 - self.soft_label_weight, step.label_loss(student.logits)),
            representation=(self.representation_weight, representation),
        )

    def _distance(self, step: Step, student: Features, teacher: Features) -> Tensor:
        """D, (N,): the sum over the chosen layers."""
        total = torch.zeros((), device=student.logits.device)
        for i, (own, theirs) in enumerate(self._layers(student, teacher)):
            h_student = projected(own, step.companions.get(f"projector{i}"))
            h_teacher = vector(theirs)
            match self.distance:
                case "mse_mean":
                    total = total + (h_student - h_teacher).square().mean(dim=1)
                case "l2_sum":
                    total = total + (h_student - h_teacher).square().sum(dim=1)
                case "cosine":
                    total = total + 1 - functional.cosine_similarity(h_student, h_teacher, dim=1)
        return total

    def _layers(self, student: Features, teacher: Features) -> list[tuple[Tensor, Tensor]]:
        """Pairs of the student's and the teacher's representations h, the deepest last.

        Raises ConfigError where a network has fewer stages than `last_stages`.
        """
        if self.layers == "penultimate":
            return [(student.penultimate, teacher.penultimate)]
        own, theirs = (
            [h for name, h in features.stages.items() if name != "penultimate"]
            for features in (student, teacher)
        )
        fewest = min(len(own), len(theirs))
        if fewest < self.last_stages:
            raise ConfigError(
                f"method.last_stages must be <= {fewest}, the stages that student and teacher both"
                f" expose, got {self.last_stages}; lower it or choose method.layers: penultimate"
            )
        return list(zip(own[-self.last_stages :], theirs[-self.last_stages :], strict=True))

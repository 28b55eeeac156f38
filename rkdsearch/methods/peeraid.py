"""PeerAiD, adversarial distillation from a specialised peer (Jung et al., CVPR 2024).

https://arxiv.org/abs/2403.06668

outer   student  min  l1 CE(S(x'), y) + l2 tau^2 KL(P(x') || S(x'); tau)
                      + l3 tau^2 KL(S(x) || S(x'); tau)
        peer     min  g1 CE(P(x'), y) + g2 tau_p^2 KL(S(x') || P(x'); tau_p)
inner   x' = argmax KL(P(x) || S(x'))

No pretrained teacher: a peer of the student's architecture trains beside it on the student's
adversarial examples, and so becomes a specialist for them. One sum is minimised. P(x') is a
constant target; S(x) and S(x') are targets with gradient, so that the peer's second term moves the
student too. The published results are of averaged weights (`averaging`, SWA from 214 of 300 epochs
on). Training starts slowly: a peer that knows nothing teaches nothing. A short run needs `kl_scale`
1 or some l1.

Where we depart: the released code forwards x' through the student twice, here once, with the same
loss and one BatchNorm update less; the peer's weights are drawn by its layers' own initialisation.

Defaults: l1, l2, l3 = 0, 1, 1, g1, g2 = 1, 0.1, tau = 5, tau_p = 1, attack from Gaussian noise in
eval mode: the released script for CIFAR-10. Its KL is averaged over classes, hence `kl_scale` =
1/10; CIFAR-100 has g2 = 1 and 1/100.

Confirmed: the authors' script for both data sets, value and gradients of student and peer; its
attack too.
"""

import copy
from collections.abc import Mapping

from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from rkdsearch.losses import kl_divergence
from rkdsearch.methods import (
    Companion,
    Factor,
    KLScale,
    Loss,
    Method,
    Role,
    Step,
    Temperature,
    inner,
)


class PeerAiD(Method):
    """Learn from a peer that is trained on this student's adversarial examples."""

    label_weight: Factor = Field(0.0, description="l1: the student's cross-entropy on x'")
    peer_weight: Factor = Field(1.0, description="l2: imitation of the peer on x'")
    consistency_weight: Factor = Field(
        1.0, description="l3: the student's predictions on x and on x' stay close"
    )
    peer_label_weight: Factor = Field(1.0, description="g1: the peer's cross-entropy on x'")
    peer_student_weight: Factor = Field(
        0.1, description="g2: the peer's imitation of the student on x'; 1 on CIFAR-100"
    )
    temperature: Temperature = Field(5.0, description="tau: softening in the student's divergences")
    peer_temperature: Temperature = Field(
        1.0, description="tau_p: softening in the peer's divergence"
    )
    kl_scale: KLScale = 0.1

    @override
    def teachers(self) -> tuple[Role, ...]:
        return ()

    @override
    def companions(
        self, student: nn.Module, teachers: Mapping[str, nn.Module], image: Tensor
    ) -> dict[str, Companion]:
        peer = copy.deepcopy(student)
        for module in peer.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        return {"peer": Companion(peer, own_optimizer=True)}

    @override
    def loss(self, step: Step) -> Loss:
        peer = step.companion("peer")
        x_adv = step.maximize(inner.imitation(peer.eval_logits(step.x)).of(step.student))
        adversarial, natural = step.student.logits(x_adv, step.x)
        peer_adversarial = peer(x_adv)

        scale, peer_scale = (
            self.kl_scale * self.temperature**2,
            self.kl_scale * self.peer_temperature**2,
        )
        return Loss.weighted(
            label=(self.label_weight, step.label_loss(adversarial)),
            peer=(
                self.peer_weight * scale,
                kl_divergence(
                    adversarial, target=peer_adversarial.detach(), temperature=self.temperature
                ),
            ),
            consistency=(
                self.consistency_weight * scale,
                kl_divergence(adversarial, target=natural, temperature=self.temperature),
            ),
            peer_label=(self.peer_label_weight, step.label_loss(peer_adversarial)),
            peer_student=(
                self.peer_student_weight * peer_scale,
                kl_divergence(
                    peer_adversarial, target=adversarial, temperature=self.peer_temperature
                ),
            ),
        )

"""TRADES (Zhang et al., ICML 2019).

https://arxiv.org/abs/1901.08573

outer   min  CE(S(x), y) + beta KL(S(x) || S(x'))
inner   x' = argmax KL(S(x) || S(x'))

Accuracy on clean images is traded against a constant prediction inside the ball; beta is the
exchange rate. The target S(x) is not constant: gradient flows through both sides. A
re-implementation that detached it, and changed the start, ended below its own PGD-AT.

Defaults: beta = 6, start 0.001 of Gaussian noise, attack in eval mode: the released script. Its
ball is 0.031 with steps of 0.007.

Confirmed: the authors' script, value and gradients.
"""

from typing import ClassVar

from pydantic import Field
from typing_extensions import override

from rkdsearch.losses import kl_divergence
from rkdsearch.methods import Factor, KLScale, Loss, Method, Role, Step, inner


class TRADES(Method):
    """Learn clean labels, and the same prediction inside the whole ball."""

    flat_at_x: ClassVar[bool] = True

    consistency_weight: Factor = Field(6.0, description="beta")
    kl_scale: KLScale = 1.0

    @override
    def teachers(self) -> tuple[Role, ...]:
        return ()

    @override
    def loss(self, step: Step) -> Loss:
        x_adv = step.maximize(inner.student_clean(step))
        clean, adversarial = step.student.logits(step.x, x_adv)
        return Loss.weighted(
            label=(1.0, step.label_loss(clean)),
            consistency=(
                self.consistency_weight * self.kl_scale,
                kl_divergence(adversarial, target=clean),
            ),
        )

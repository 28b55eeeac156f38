"""A third party's method, outside the package: `--allow-import tests.strangers`.

outer   min  CE(S(x'), (1 - s) e_y + s / K)
inner   x' = argmax CE(S(x'), y)

Adversarial training on labels that give every class the same small share: what label smoothing does
without a teacher.
"""

from typing import Annotated

from pydantic import Field
from typing_extensions import override

from rkdsearch.losses import cross_entropy
from rkdsearch.methods import Loss, Method, Role, Step


class SoftAT(Method):
    """Adversarial training on smoothed labels."""

    smoothing: Annotated[
        float,
        Field(ge=0, lt=1, description="s: the share of the label that goes to all classes alike"),
    ] = 0.1

    @override
    def teachers(self) -> tuple[Role, ...]:
        return ()

    @override
    def loss(self, step: Step) -> Loss:
        x_adv = step.maximize(lambda x: cross_entropy(step.student(x), step.y))
        logits = step.student(x_adv)
        return Loss.weighted(
            label=(1 - self.smoothing, cross_entropy(logits, step.y)),
            uniform=(self.smoothing, -logits.log_softmax(dim=1).mean(dim=1)),
        )

"""PGD adversarial training (Madry et al., ICLR 2018).

https://arxiv.org/abs/1706.06083

outer   min  CE(S(x'), y)
inner   x' = argmax CE(S(x'), y)

Robust optimisation in its plainest form: learn the label of the worst image in the ball. Robust
teachers are trained like this.

Where the released code departs: its graph keeps BatchNorm in train mode during the attack;
`attack.batchnorm: train` repeats it.

Defaults: attack from clipped uniform noise: the released code; in eval mode: later
re-implementations.

Confirmed: torch's cross-entropy, on our own numbers.
"""

from typing import ClassVar

from typing_extensions import override

from rkdsearch.methods import AttackDefaults, Loss, Method, Role, Step, inner


class PGDAT(Method):
    """Learn the labels of attacked images."""

    attack_defaults: ClassVar[AttackDefaults] = AttackDefaults(start="uniform_clipped")

    @override
    def teachers(self) -> tuple[Role, ...]:
        return ()

    @override
    def loss(self, step: Step) -> Loss:
        x_adv = step.maximize(inner.label(step))
        return Loss.weighted(label=(1.0, step.label_loss(step.student(x_adv))))

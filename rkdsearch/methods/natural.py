"""Natural training: empirical risk minimisation, the baseline of every robust method.

outer   min  CE(S(x), y)
inner   none

No attack and no teacher: the highest clean accuracy, and no robustness. Natural teachers are
trained like this.

Confirmed: torch's cross-entropy, on our own numbers.
"""

from typing import ClassVar

from typing_extensions import override

from rkdsearch.methods import AttackDefaults, Loss, Method, Role, Step


class Natural(Method):
    """Learn the labels of clean images."""

    attack_defaults: ClassVar[AttackDefaults] = AttackDefaults(start="none")
    attacks: ClassVar[bool] = False

    @override
    def teachers(self) -> tuple[Role, ...]:
        return ()

    @override
    def loss(self, step: Step) -> Loss:
        return Loss.weighted(label=(1.0, step.label_loss(step.student(step.x))))

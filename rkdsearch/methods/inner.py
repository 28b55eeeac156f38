"""The inner problems of the literature, by name: what x' maximises.

A method passes one of these (or its own function) to `step.maximize`; `attack.objective` in a run's
config puts another in its place. Each takes a step and returns a function of images that gives (N,)
nats. `classification` and `imitation` are what most of them are made of, for any network, with
their slopes in closed form.
"""

from functools import cache
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from rkdsearch.attacks import Network, Objective, OfLogits
from rkdsearch.losses import cross_entropy, kl_divergence, probabilities

if TYPE_CHECKING:
    from rkdsearch.methods.base import Step

Name = Literal["label", "teacher_clean", "teacher_adversarial", "student_clean"]


def label(step: "Step") -> Objective:
    """CE(S(x'), y): PGD-AT, ARD, IAD, MTARD."""
    return classification(step.student, step.y)


def teacher_clean(step: "Step") -> Objective:
    """KL(T(x) || S(x')): RSLAD. The teacher answers once, on clean images."""
    with torch.no_grad():
        target = step.teacher(step.x)
    return imitation(step.student, target)


def teacher_adversarial(step: "Step") -> Objective:
    """KL(T(x') || S(x')): AdaAD. The teacher answers every iterate, and the gradient flows through it to the image."""
    return lambda x_adv: kl_divergence(step.student(x_adv), target=step.teacher(x_adv))


def student_clean(step: "Step") -> Objective:
    """KL(S(x) || S(x')): TRADES. S(x) is constant, and computed in the mode of the attack at its first step."""

    @cache
    def problem() -> OfLogits:
        with torch.no_grad():
            return imitation(step.student, step.student(step.x))

    return OfLogits(
        step.student, lambda logits: problem().value(logits), lambda logits: problem().slope(logits)
    )


def classification(network: Network, y: Tensor) -> OfLogits:
    """CE(network(x'), y), whose slope is softmax(logits) - one_hot(y)."""

    @cache
    def labels(classes: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(len(y), classes, dtype=dtype, device=y.device).scatter_(1, y[:, None], 1)

    def slope(logits: Tensor) -> Tensor:
        q = probabilities(logits)
        return q.sub_(labels(q.shape[1], q.dtype))

    return OfLogits(network, lambda logits: cross_entropy(logits, y), slope)


def imitation(network: Network, target: Tensor, temperature: float = 1.0) -> OfLogits:
    """KL(target || network(x')) for constant logits (N, K), whose slope is (softmax(logits / temperature) - p) / temperature."""
    p = probabilities(target, temperature)

    def slope(logits: Tensor) -> Tensor:
        difference = probabilities(logits, temperature).sub_(p)
        return difference if temperature == 1 else difference / temperature

    return OfLogits(
        network, lambda logits: kl_divergence(logits, target=target, temperature=temperature), slope
    )


def build(name: Name, step: "Step") -> Objective:
    """The inner problem of that name."""
    problems = {
        "label": label,
        "teacher_clean": teacher_clean,
        "teacher_adversarial": teacher_adversarial,
        "student_clean": student_clean,
    }
    return problems[name](step)

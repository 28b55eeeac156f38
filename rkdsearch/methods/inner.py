"""The inner problems of the literature, by name: what x' maximises.

A method passes one of these (or its own function) to `step.maximize`; `attack.objective` in a run's config puts another in its place.
Each takes a step and returns a function of images that gives (N,) nats.
"""

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from rkdsearch.attacks import Objective
from rkdsearch.losses import cross_entropy, kl_divergence

if TYPE_CHECKING:
    from rkdsearch.methods.base import Step

Name = Literal["label", "teacher_clean", "teacher_adversarial", "student_clean"]


def label(step: "Step") -> Objective:
    """CE(S(x'), y): PGD-AT, ARD, IAD, MTARD."""
    return lambda x_adv: cross_entropy(step.student(x_adv), step.y)


def teacher_clean(step: "Step") -> Objective:
    """KL(T(x) || S(x')): RSLAD. The teacher answers once, on clean images."""
    with torch.no_grad():
        target = step.teacher(step.x)
    return lambda x_adv: kl_divergence(step.student(x_adv), target=target)


def teacher_adversarial(step: "Step") -> Objective:
    """KL(T(x') || S(x')): AdaAD. The teacher answers every iterate, and the gradient flows through it to the image."""
    return lambda x_adv: kl_divergence(step.student(x_adv), target=step.teacher(x_adv))


def student_clean(step: "Step") -> Objective:
    """KL(S(x) || S(x')): TRADES. S(x) is constant, and computed in the mode of the attack at its first step."""
    clean: list[Tensor] = []

    def objective(x_adv: Tensor) -> Tensor:
        if not clean:
            with torch.no_grad():
                clean.append(step.student(step.x))
        return kl_divergence(step.student(x_adv), target=clean[0])

    return objective


def build(name: Name, step: "Step") -> Objective:
    """The inner problem of that name."""
    problems = {"label": label, "teacher_clean": teacher_clean, "teacher_adversarial": teacher_adversarial, "student_clean": student_clean}
    return problems[name](step)

"""The inner problems of the literature, by name: the functions that x' maximises.

A method passes one of these, or a function of its own, to `step.maximize`. `attack.objective` in a
run's config replaces it. Each takes a step and returns a function from images to (N,) nats. Most
are made of `classification` or `imitation`, losses of logits whose gradient is in closed form.
"""

from functools import cache
from typing import Literal

import torch
from torch import Tensor

from rkdsearch.attacks import AttackObjective, LogitLoss
from rkdsearch.losses import (
    HIGH_TEMPERATURE,
    cross_entropy,
    divergence_slope,
    kl_divergence,
    probabilities,
)
from rkdsearch.methods.base.step import InnerProblem, Step

Name = Literal["label", "teacher_clean", "teacher_adversarial", "student_clean"]


def label(step: Step) -> AttackObjective:
    """CE(S(x'), y): PGD-AT, ARD, IAD, MTARD."""
    return classification(step.y).of(step.student)


def teacher_clean(step: Step) -> AttackObjective:
    """KL(T(x) || S(x')): RSLAD. One teacher forward, on clean images."""
    with torch.no_grad():
        target = step.teacher(step.x)
    return imitation(target).of(step.student)


def teacher_adversarial(step: Step) -> AttackObjective:
    """KL(T(x') || S(x')): AdaAD. One teacher forward a step; its gradient reaches the image too."""
    return lambda x_adv: kl_divergence(step.student(x_adv), target=step.teacher(x_adv))


def student_clean(step: Step) -> AttackObjective:
    """KL(S(x) || S(x')): TRADES.

    S(x) is constant, and computed at the attack's first step, in the attack's BatchNorm mode.
    """

    @cache
    def loss() -> LogitLoss:
        with torch.no_grad():
            return imitation(step.student(step.x))

    return LogitLoss(
        value=lambda logits: loss().value(logits), gradient=lambda logits: loss().gradient(logits)
    ).of(step.student)


def classification(y: Tensor) -> LogitLoss:
    """CE(logits, y); its gradient is softmax(logits) - one_hot(y)."""

    @cache
    def one_hot(classes: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(len(y), classes, dtype=dtype, device=y.device).scatter_(1, y[:, None], 1)

    def gradient(logits: Tensor) -> Tensor:
        q = probabilities(logits)
        return q.sub_(one_hot(q.shape[1], q.dtype))

    return LogitLoss(lambda logits: cross_entropy(logits, y), gradient)


def imitation(target: Tensor, *, temperature: float = 1.0, offset: float = 0.0) -> LogitLoss:
    """KL(target || logits), summed over classes, for constant target logits (N, K).

    Its gradient is (softmax(logits / temperature) - p) / temperature. `offset` as in
    `losses.kl_divergence`: it moves the value alone.
    """
    p = probabilities(target, temperature) if temperature < HIGH_TEMPERATURE else None

    def value(logits: Tensor) -> Tensor:
        return kl_divergence(logits, target=target, temperature=temperature, offset=offset)

    def gradient(logits: Tensor) -> Tensor:
        if p is None:
            slope = divergence_slope(logits, target=target, temperature=temperature)
            return slope / temperature
        difference = probabilities(logits, temperature).sub_(p)
        return difference if temperature == 1 else difference / temperature

    return LogitLoss(value, gradient)


PROBLEMS: dict[Name, InnerProblem] = {
    "label": label,
    "teacher_clean": teacher_clean,
    "teacher_adversarial": teacher_adversarial,
    "student_clean": student_clean,
}

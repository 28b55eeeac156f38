"""One training step as in the published scripts: the reference for speed and for losses.

Our own straightforward version of their structure, not their text: fp32 and contiguous tensors, the
live network in the attack, gradients of all parameters in every attack step (`backward`), separate
forwards, plain SGD, teachers whose parameters are not frozen. Random numbers come from a generator,
so that both sides can be given the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rkdsearch import models

Climb = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Script:
    """Inputs of a script's step. `eps`, `step_size`: pixels of [0, 1]; `climb`: d(loss)/dx'."""

    student: nn.Module
    teacher: nn.Module
    optimizer: torch.optim.Optimizer
    climb: Climb
    eps: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 10


def by_backward(loss: Tensor, x_adv: Tensor) -> Tensor:
    """Gradients of everything, of which the images' one is used."""
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    assert x_adv.grad is not None
    return x_adv.grad.detach()


def by_images_alone(loss: Tensor, x_adv: Tensor) -> Tensor:
    """The images' gradient alone: what TRADES' script and its descendants (RSLAD, AdaAD) do."""
    return torch.autograd.grad(loss, [x_adv])[0]


def rslad(script: Script, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001 - the ground truth is never used
    """5/6 KL(T(x) || S(x')) + 1/6 KL(T(x) || S(x)); the attack climbs the first in eval mode."""
    with torch.no_grad():
        teacher_logits = script.teacher(x)
    script.student.eval()
    x_adv = x.detach() + 0.001 * _normal(x, generator)
    x_adv = _attack(
        script, x, x_adv, lambda images: _kl(script.student(images), teacher_logits, "sum")
    )
    script.student.train()
    script.optimizer.zero_grad()
    adversarial = _kl(script.student(x_adv), teacher_logits, "batchmean")
    natural = _kl(script.student(x), teacher_logits, "batchmean")
    return _descend(script, 5 / 6 * adversarial + 1 / 6 * natural)


def ard(script: Script, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """30^2 KL(T(x) || S(x'); 30) and a cross-entropy of weight 0.

    The attack maximises the cross-entropy in train mode.
    """
    x_adv = _label_attack(script, x, y, generator)
    adversarial, natural = script.student(x_adv), script.student(x)
    with torch.no_grad():
        teacher_logits = script.teacher(x)
    script.optimizer.zero_grad()
    imitation = _kl(adversarial / 30, teacher_logits / 30, "batchmean")
    return _descend(script, 30**2 * imitation + 0 * functional.cross_entropy(natural, y))


def iad(script: Script, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """IAD-I after its warm-up.

    a KL(T(x) || S(x')) + (1 - a) KL(S(x) || S(x')) with a = p_T(y | x')^0.1.
    """
    x_adv = _label_attack(script, x, y, generator)
    script.optimizer.zero_grad()
    adversarial = script.student(x_adv)
    with torch.no_grad():
        trust = functional.softmax(script.teacher(x_adv), dim=1).gather(1, y[:, None])[:, 0] ** 0.1
        teacher_logits = script.teacher(x)
    natural = script.student(x)
    teaching = _kl(adversarial, teacher_logits, "none").sum(dim=1)
    introspection = _kl(adversarial, natural, "none").sum(dim=1)
    loss = (trust * teaching + (1 - trust) * introspection).mean()
    return _descend(script, loss + 0 * functional.cross_entropy(natural, y))


def adaad(script: Script, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001 - the ground truth is never used
    """KL(T(x') || S(x')) and a natural term of weight 0.

    The attack maximises the first in eval mode, through the teacher too.
    """
    script.student.eval()
    x_adv = x.detach() + 0.001 * _normal(x, generator)
    x_adv = _attack(
        script, x, x_adv, lambda images: _kl(script.student(images), script.teacher(images), "sum")
    )
    script.student.train()
    script.optimizer.zero_grad()
    with torch.no_grad():
        on_natural, on_adversarial = script.teacher(x), script.teacher(x_adv)
    natural = _kl(script.student(x), on_natural, "batchmean")
    adversarial = _kl(script.student(x_adv), on_adversarial, "batchmean")
    return _descend(script, adversarial + 0 * natural)


def crdnd(script: Script, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """RSLAD towards q, in which the true class leads by 0.05, and KL between batch similarities.

    No script of it is public: the structure is that of the others.
    """
    with torch.no_grad():
        teacher = models.features(script.teacher, x)
    script.student.eval()
    x_adv = x.detach() + 0.001 * _normal(x, generator)
    x_adv = _attack(
        script, x, x_adv, lambda images: _kl(script.student(images), teacher.logits, "sum")
    )
    script.student.train()
    script.optimizer.zero_grad()
    adversarial, natural = (models.features(script.student, images) for images in (x_adv, x))
    with torch.no_grad():
        label = functional.one_hot(y, teacher.logits.shape[1]).to(x.dtype)
        p = functional.softmax(teacher.logits, dim=1)
        own, wrong = (p * label).sum(dim=1), (p - label).amax(dim=1)
        c = ((wrong - own + 0.05) / (1 - own + wrong).clamp_min(1e-12)).clamp(0, 1)
        q = p + c[:, None] * (label - p)
        on_adversarial = models.features(script.teacher, x_adv)
        wanted = _similarities(on_adversarial.penultimate, teacher.penultimate)
    found = _similarities(adversarial.penultimate, natural.penultimate)
    loss = (
        5 / 6 * _kl_to(q, adversarial.logits)
        + 1 / 6 * _kl_to(q, natural.logits)
        + _kl(found / 0.1, wanted / 0.1, "batchmean")
    )
    return _descend(script, loss)


STEPS: Mapping[str, Callable[[Script, Tensor, Tensor, torch.Generator], Tensor]] = {
    "rslad": rslad,
    "ard": ard,
    "iad": iad,
    "adaad": adaad,
    "crdnd": crdnd,
}


def _normal(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


def _similarities(vectors: Tensor, others: Tensor) -> Tensor:
    """Cosines (N, N)."""
    return functional.normalize(vectors, dim=1) @ functional.normalize(others, dim=1).T


def _kl_to(target: Tensor, prediction: Tensor) -> Tensor:
    return functional.kl_div(
        functional.log_softmax(prediction, dim=1), target, reduction="batchmean"
    )


def _label_attack(script: Script, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """PGD on the cross-entropy in train mode, as in ARD's and IAD's scripts.

    Its ten forward passes change BatchNorm's statistics.
    """
    script.student.train()
    x_adv = x.detach() + script.eps * (
        2 * torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device) - 1
    )
    return _attack(
        script,
        x,
        x_adv,
        lambda images: functional.cross_entropy(script.student(images), y, reduction="sum"),
    )


def _attack(
    script: Script, x: Tensor, x_adv: Tensor, objective: Callable[[Tensor], Tensor]
) -> Tensor:
    for _ in range(script.steps):
        x_adv.requires_grad_()
        gradient = script.climb(objective(x_adv), x_adv)
        x_adv = x_adv.detach() + script.step_size * torch.sign(gradient)
        x_adv = torch.min(torch.max(x_adv, x - script.eps), x + script.eps)
        x_adv = torch.clamp(x_adv, 0.0, 1.0)
    return x_adv


def _kl(prediction: Tensor, target: Tensor, reduction: str) -> Tensor:
    return functional.kl_div(
        functional.log_softmax(prediction, dim=1),
        functional.softmax(target, dim=1),
        reduction=reduction,
    )


def _descend(script: Script, loss: Tensor) -> Tensor:
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    script.optimizer.step()
    return loss.detach()

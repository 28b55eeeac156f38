"""The exam: clean and robust accuracy of one network, image by image, by a protocol that no training setting can change.

The fidelity ladder is clean -> PGD-k (validation) -> PGD-20 -> AutoAttack (test). Every image keeps its own verdict, so that two networks
can be compared on the same images, and the verdicts do not depend on how many processes share the work.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rkdsearch.attacks import Attack, Linf, Noise, Norm
from rkdsearch.attacks.autoattack import auto_attack
from rkdsearch.methods import Student, inner

BATCH = 250  # images; a fixed number, because each batch's random start is seeded by its place


@dataclass(frozen=True)
class Verdict:
    """What happened to each of N images: labels (N,), right on x (N,) booleans, right on x and on every x' (N,) booleans."""

    y: Tensor
    clean: Tensor
    robust: Tensor

    @property
    def clean_accuracy(self) -> float:
        """Fraction of 1."""
        return float(self.clean.double().mean())

    @property
    def robust_accuracy(self) -> float:
        """Fraction of 1."""
        return float(self.robust.double().mean())

    @property
    def worst_class_accuracy(self) -> float:
        """The smallest robust accuracy of any class that has images, a fraction of 1."""
        classes = int(self.y.max()) + 1
        images = torch.bincount(self.y, minlength=classes)
        robust = torch.bincount(self.y[self.robust], minlength=classes)
        return float((robust[images > 0].double() / images[images > 0]).min())


@dataclass(frozen=True)
class Reliability:
    """How far the teacher can be trusted where the student is attacked: IAD's three cases, as shares of the images."""

    right_on_adversarial: float
    right_on_clean_only: float
    wrong_on_both: float


def pgd(network: nn.Module, attack: Attack, x: Tensor, y: Tensor, *, seed: int) -> Tensor:
    """x' that maximises the cross-entropy of `network` (eval mode, frozen), from a start drawn with `seed`."""
    generator = torch.Generator(device=x.device).manual_seed(seed)
    return attack.maximize(inner.classification(Student(network), y), x, Noise(generator))


def judge(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: Attack,
    *,
    restarts: int = 1,
    seed: int = 0,
    teacher: Callable[[Tensor], Tensor] | None = None,
    rank: int = 0,
    processes: int = 1,
    total: Callable[[Tensor], Tensor] = lambda counts: counts,
) -> tuple[Verdict, Reliability | None]:
    """Clean and PGD verdicts on x (N, C, H, W), y (N,); with a `teacher`, its reliability on the student's first x'.

    `network` is in eval mode. Several processes take every P-th batch each; `total` then adds their tensors up.
    """
    clean, robust = torch.zeros(2, len(x), dtype=torch.int64, device=x.device)
    cases = torch.zeros(3, dtype=torch.int64, device=x.device)
    for place in range(rank * BATCH, len(x), processes * BATCH):
        rows = slice(place, place + BATCH)
        xs, ys = x[rows], y[rows]
        with torch.no_grad():
            clean[rows] = robust[rows] = network(xs).argmax(dim=1) == ys
        for restart in range(restarts):
            x_adv = pgd(network, attack, xs, ys, seed=_seed(seed, place, restart))
            with torch.no_grad():
                robust[rows] *= network(x_adv).argmax(dim=1) == ys
                if teacher is not None and restart == 0:
                    on_clean, on_adversarial = teacher(xs).argmax(dim=1) == ys, teacher(x_adv).argmax(dim=1) == ys
                    cases += torch.stack([on_adversarial.sum(), (on_clean & ~on_adversarial).sum(), (~on_clean & ~on_adversarial).sum()])
    verdict = Verdict(y.cpu(), total(clean).bool().cpu(), total(robust).bool().cpu())
    if teacher is None:
        return verdict, None
    return verdict, Reliability(*(total(cases).double() / len(x)).tolist())


def judge_by_autoattack(network: nn.Module, x: Tensor, y: Tensor, *, attack: Attack, seed: int = 0) -> tuple[Verdict, list[str]]:
    """The verdicts of AutoAttack, standard, in `attack`'s ball; and what the package's own checks complain of."""
    norm: Norm = "linf" if isinstance(attack.ball, Linf) else "l2"
    with torch.no_grad():
        clean = torch.cat([network(xs).argmax(dim=1) for xs in torch.split(x, BATCH)]) == y
    robust, flags = auto_attack(network, x, y, norm=norm, eps=attack.ball.eps, seed=seed)
    return Verdict(y.cpu(), clean.cpu(), robust.cpu()), flags


def _seed(*parts: int) -> int:
    """One seed from several numbers, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")

"""The attacks of the test evaluation, by name: what each does, in full, and its parts.

    clean        none
    pgd20, 100   PGD on the cross-entropy, as papers report it; steps of eps / 4
    margin       100 steps of the margin attack, which the scale of the logits cannot weaken; in a
                 Linf ball it is the attack of Carlini and Wagner's loss ("CW-Linf")
    targeted     the margin to each of the min(9, K - 1) strongest other classes in turn, 50 steps
                 each (Gowal et al. 2019, https://arxiv.org/abs/1910.09338)
    square       Square, 5000 queries, no gradients
    autoattack   AutoAttack, standard
    transfer     x' of the margin attack on other networks: teachers and members of the front

An attack is a sequence of parts. Each part attacks the images that are still right; an image is
robust when it survives all of them. Parts are recorded one by one, so that a killed evaluation goes
on. An image's random numbers follow from its pixels and the attack's seed, whatever its batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from rkdsearch.attacks import Attack, Ball, LogitLoss, MarginAttack, Norm, build_ball
from rkdsearch.attacks import autoattack as aa
from rkdsearch.attacks.image_noise import ImageNoise
from rkdsearch.attacks.objectives import finite_gradient_of
from rkdsearch.methods import Student, inner
from rkdsearch.results.states import EvaluationAttack

PGD_STEPS: Mapping[str, int] = {"pgd20": 20, "pgd100": 100}
MARGIN_STEPS, TARGETED_STEPS = 100, 50

# Source networks of `transfer` by name, loaded when they are asked for.
Sources = Mapping[str, Callable[[], nn.Module]]


@dataclass(frozen=True)
class PlannedAttack:
    """An attack in a ball, with what the run's config says of it. `clean` has no ball."""

    name: EvaluationAttack
    norm: Norm | None = None
    eps: float = 0.0
    restarts: int = 1  # random starts of pgd20, pgd100 and margin
    relative_step_size: float = 0.25  # of pgd20 and pgd100, of eps
    sources: tuple[str, ...] = ()  # of transfer: trial_id and first digits of the weights' sha256

    @property
    def steps(self) -> int | None:
        """Number of steps where the attack has one."""
        return {**PGD_STEPS, "margin": MARGIN_STEPS, "targeted": TARGETED_STEPS}.get(self.name)

    @property
    def title(self) -> str:
        """`margin, linf 0.0314`, for people."""
        return self.name if self.norm is None else f"{self.name}, {self.norm} {self.eps:.4g}"

    def settings(self, classes: int) -> dict[str, Any]:
        """The attack in full, as rows have it."""
        targets = min(aa.MOST_TARGETS, classes - 1)
        match self.name:
            case "clean":
                return {}
            case "pgd20" | "pgd100":
                return {
                    "loss": "cross-entropy",
                    "steps": self.steps,
                    "step_size": self.relative_step_size * self.eps,
                    "start": "uniform in the ball",
                    "restarts": self.restarts,
                }
            case "margin":
                return {
                    "loss": "soft margin, then margin",
                    "steps": MARGIN_STEPS,
                    "step_size": "cosine from eps to 0",
                    "start": "uniform in the ball",
                    "restarts": self.restarts,
                }
            case "targeted":
                return {
                    "loss": "margin to a target",
                    "targets": targets,
                    "steps": TARGETED_STEPS,
                    "step_size": "cosine from eps to 0",
                    "start": "uniform in the ball",
                }
            case "square":
                return {"queries": aa.QUERIES, "package": _package()}
            case "autoattack":
                return {
                    "version": "standard",
                    "steps": aa.STEPS,
                    "targets": targets,
                    "loss of apgd-t": aa.targeted_loss(classes),
                    "queries": aa.QUERIES,
                    "package": _package(),
                }
            case "transfer":
                return {
                    "made on": list(self.sources),
                    "attack": f"margin, {MARGIN_STEPS} steps from a uniform start in the ball",
                }
            case _:
                assert_never(self.name)

    def parts(
        self, network: nn.Module, classes: int, seed: int, sources: Sources
    ) -> list["AttackPart"]:
        """The attack's parts in their order, on a `network` with so many logits."""
        if self.name == "clean":
            return []
        assert self.norm is not None
        ball = build_ball(self.norm, self.eps)
        match self.name:
            case "pgd20" | "pgd100":
                pgd = Attack(ball, PGD_STEPS[self.name], self.relative_step_size * self.eps)
                return [
                    AttackPart(
                        f"start {r}", partial(pgd_attack, pgd, network, (seed, self.name, r))
                    )
                    for r in range(1, self.restarts + 1)
                ]
            case "margin":
                return [
                    AttackPart(f"start {r}", partial(margin_attack, ball, lambda: network, seed, r))
                    for r in range(1, self.restarts + 1)
                ]
            case "targeted":
                return [
                    AttackPart(
                        f"target {rank}", partial(targeted_attack, ball, network, seed, rank)
                    )
                    for rank in range(1, min(aa.MOST_TARGETS, classes - 1) + 1)
                ]
            case "square" | "autoattack":
                attack = aa.AutoAttack(ball, seed)
                chosen: Sequence[aa.Part] = (
                    aa.parts(classes) if self.name == "autoattack" else (aa.Part("square"),)
                )
                return [
                    AttackPart(
                        part.attack if part.target is None else f"{part.attack} {part.target}",
                        partial(attack.attacked, network, part),
                        part.attack,
                    )
                    for part in chosen
                ]
            case "transfer":
                return [
                    AttackPart(
                        f"made on {name}", partial(margin_attack, ball, sources[name], seed, 1)
                    )
                    for name in self.sources
                ]
            case _:
                assert_never(self.name)


@dataclass(frozen=True)
class AttackPart:
    """A part of an attack: images x (N, C, H, W) and labels y (N,) to x'.

    Parts of one `group` are counted together in `survivors`; by default each for itself.
    """

    name: str
    attacked: Callable[[Tensor, Tensor], Tensor]
    group: str = ""

    @property
    def counted_as(self) -> str:
        """Key of `survivors`."""
        return self.group or self.name


def uniform_start(ball: Ball, x: Tensor, names: tuple[str | int, ...]) -> Tensor:
    """Uniform in the ball around each image, within [0, 1]; `names` tell the draws apart."""
    return (x + ball.random_perturbation(ImageNoise(names).uniform(x))).clamp(0, 1)


def pgd_attack(
    attack: Attack, network: nn.Module, names: tuple[str | int, ...], x: Tensor, y: Tensor
) -> Tensor:
    """x' of PGD on the cross-entropy."""
    objective = inner.classification(y).of(Student(network))
    start = uniform_start(attack.ball, x, names)
    return attack.climb(objective, x, start, gradient_of=finite_gradient_of)


def margin_attack(
    ball: Ball, network: Callable[[], nn.Module], seed: int, restart: int, x: Tensor, y: Tensor
) -> Tensor:
    """x' of the margin attack."""
    start = uniform_start(ball, x, (seed, "margin", restart))
    return MarginAttack(ball, MARGIN_STEPS).climb(Student(network()), y, x, start)


def targeted_attack(
    ball: Ball, network: nn.Module, seed: int, rank: int, x: Tensor, y: Tensor
) -> Tensor:
    """x' that raises the other class of this rank on x, from 1, above the label."""
    with torch.no_grad():
        others = network(x).scatter(1, y[:, None], -torch.inf)
    target = others.argsort(dim=1, descending=True)[:, rank - 1]
    rows = torch.arange(len(x), device=x.device)

    def slope(z: Tensor) -> Tensor:
        found = torch.zeros_like(z)
        found[rows, target], found[rows, y] = 1, -1
        return found

    loss = LogitLoss(lambda z: z[rows, target] - z[rows, y], slope)
    gradient = finite_gradient_of(loss.of(Student(network)), x)
    project, falling = ball.projection_around(x), MarginAttack(ball, TARGETED_STEPS)
    x_adv = uniform_start(ball, x, (seed, "targeted", rank))
    for step in range(TARGETED_STEPS):
        length = falling.step_size(step)
        x_adv = project(x_adv.add_(ball.direction(gradient(x_adv)), alpha=length))
    return x_adv.detach()


def _package() -> str:
    return f"pyautoattack {version('pyautoattack')}"

"""The attacks of eight families of papers from one loop, against literal images.

The images are in tests/golden/attacks.json.

Each was confirmed by running the authors' own attack: Goldblum, IAD, RSLAD (two), ABSLD, MTARD,
TRADES, AdaAD (two), PeerAiD, SAAD (two). The networks are two-layer perceptrons; the noise is
literal too.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from rkdsearch.attacks import Linf, Noise, Start
from rkdsearch.losses import kl_divergence
from rkdsearch.methods import Step, Student, Teacher, inner, load
from tests.methods.laws import Recording
from tests.methods.oracle import GOLDEN

ORACLE: dict[str, Any] = json.loads((GOLDEN / "attacks.json").read_text())


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Perceptron(nn.Module):
    def __init__(self, weights: dict[str, Any]) -> None:
        super().__init__()
        self.w1, self.b1, self.w2, self.b2 = (
            nn.Parameter(tensor(weights[key])) for key in ("W1", "b1", "W2", "b2")
        )

    @override
    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.w1.T + self.b1).tanh() @ self.w2.T + self.b2


@dataclass(frozen=True)
class LiteralNoise(Noise):
    @override
    def uniform(self, like: Tensor) -> Tensor:
        return tensor(ORACLE["uniform_unit"])

    @override
    def normal(self, like: Tensor) -> Tensor:
        return tensor(ORACLE["gauss_unit"])


def step(start: Start) -> tuple[Step, Recording]:
    config = ORACLE["config"]
    attack = Recording(Linf(config["eps"]), config["steps"], config["step_size"], start)
    teacher = Teacher(Perceptron(ORACLE["nets"]["teacher"]).requires_grad_(False))
    return (
        Step(
            x=tensor(ORACLE["x"]),
            y=torch.tensor(ORACLE["y"]),
            student=Student(Perceptron(ORACLE["nets"]["student"])),
            teachers={"robust": teacher, "natural": teacher},
            companions={},
            attack=attack,
            noise=LiteralNoise(torch.Generator()),
            epoch=0,
            epochs=1,
            lr_factor=1.0,
            batch_size=3,
            memory={},
        ),
        attack,
    )


def expected(variant: str) -> Tensor:
    return tensor(ORACLE["x_adv"][variant])


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("ard", "pgd_ce_uniform_init_unclipped"),
        ("iad", "pgd_ce_uniform_init_unclipped"),
        ("pgd_at", "pgd_ce_uniform_init_clipped"),
        ("akd2", "pgd_ce_uniform_init_clipped"),
        ("mtard", "pgd_ce_gauss_init_unclipped"),
        ("trades", "trades_kl"),
        ("rslad", "rslad_kl_fixed_teacher"),
        ("absld", "rslad_kl_fixed_teacher"),  # its temperatures are 1 in the first epoch
        ("adaad", "adaad_kl_moving_teacher"),
        ("saad", "saad_linearised_teacher"),
    ],
)
def test_a_method_attacks_as_its_authors_do(name: str, variant: str) -> None:
    method = load(name)()
    assert method.attack_defaults.start.startswith(
        "gaussian" if "uniform" not in variant else "uniform"
    )
    at, attack = step(method.attack_defaults.start)
    method.loss(at)
    assert len(attack.seen) == 3
    assert (attack.seen[-1][0] - expected(variant)).abs().max() < 1e-12


def test_clipping_a_gaussian_start_changes_nothing_here() -> None:
    """AdaAD's PGD-AT clips it; ours does not: 0.001 of noise changes no sign of a gradient here."""
    at, _ = step("gaussian")
    assert (
        at.maximize(inner.label(at)) - expected("pgd_ce_gauss_init_clipped")
    ).abs().max() < 1e-12


def test_a_teacher_without_a_gradient_in_the_loop_is_another_attack_than_adaads() -> None:
    at, _ = step("gaussian")
    detached = at.maximize(lambda x: kl_divergence(at.student(x), target=at.teacher(x).detach()))
    assert (detached - expected("trap_adaad_teacher_detached")).abs().max() < 1e-12
    assert (detached - expected("adaad_kl_moving_teacher")).abs().max() > 0.05


@pytest.mark.parametrize(
    ("objective", "variant"),
    [
        ("label", "pgd_ce_gauss_init_unclipped"),
        ("student_clean", "trades_kl"),
        ("teacher_clean", "rslad_kl_fixed_teacher"),
        ("teacher_adversarial", "adaad_kl_moving_teacher"),
    ],
)
def test_a_named_inner_problem_takes_the_place_of_the_methods_own(
    objective: inner.Name, variant: str
) -> None:
    at, _ = step("gaussian")

    def never(x: Tensor) -> Tensor:
        raise AssertionError("the method's own problem was asked")

    assert (
        replace(at, inner_problem=inner.PROBLEMS[objective]).maximize(never) - expected(variant)
    ).abs().max() < 1e-12

import logging
from typing import ClassVar

import pytest
import torch
from torch import nn

from rkdsearch.attacks.autoattack import auto_attack
from rkdsearch.attacks.balls import L2, Ball, Linf
from rkdsearch.errors import ConfigError


def linear() -> nn.Module:
    """Ten classes of 64 pixels. Class 1 leads class 0 by the mean pixel - 0.5; the rest trail."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.copy_(torch.tensor([0.0, -0.5, *[-10.0] * 8]))
        network[1].weight[1] = 1 / 64
    return network.requires_grad_(requires_grad=False)


def grey(*pixels: float) -> torch.Tensor:
    return torch.stack([torch.full((1, 8, 8), pixel) for pixel in pixels])


# The margin is the distance of the mean pixel from a half: an Linf ball of eps moves the mean by
# eps, an L2 ball by eps / 8.
@pytest.mark.parametrize(
    "ball", [Linf(0.1), pytest.param(L2(0.8), marks=pytest.mark.long)], ids=["linf", "l2"]
)
def test_a_linear_network_is_robust_exactly_as_far_as_its_margin_reaches(ball: Ball) -> None:
    y = torch.tensor([1, 1, 0, 0, 1])
    robust, _ = auto_attack(linear(), grey(0.61, 0.59, 0.39, 0.41, 0.3), y, ball=ball)
    assert robust.tolist() == [True, False, True, False, False]


def test_the_attack_leaves_the_global_random_numbers_and_the_logger_as_they_were() -> None:
    network = linear()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    auto_attack(network, grey(0.59), torch.tensor([1]), ball=Linf(0.1))
    assert torch.equal(torch.rand(2), expected)
    assert logging.getLogger("auto-attack").handlers == []


@pytest.mark.long
def test_the_same_seed_finds_the_same() -> None:
    x, y = (
        torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)),
        torch.tensor([1, 0, 1, 0, 1, 0]),
    )
    runs = [auto_attack(linear(), x, y, ball=Linf(0.01), seed=4) for _ in range(2)]
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


def test_a_ball_that_autoattack_does_not_have_is_refused() -> None:
    class Square(Linf):
        title: ClassVar[str] = "Square"
        autoattack: ClassVar[str | None] = None

    with pytest.raises(
        ConfigError, match=r"validation\.attack\.norm: AutoAttack has no Square ball"
    ):
        auto_attack(linear(), grey(0.59), torch.tensor([1]), ball=Square(0.1))

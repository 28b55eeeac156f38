import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from rkdsearch.attacks import Attack, Linf
from rkdsearch.evaluation import BATCH, Verdict, judge, judge_by_autoattack, pgd


class Threshold(nn.Module):
    """Class 1 where the pixel is above a half: an image is robust where it is further from a half than eps."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        pixel = x.flatten(1).mean(dim=1)
        return torch.stack([0.5 - pixel, pixel - 0.5], dim=1) * 10


def images(*pixels: float) -> Tensor:
    return torch.tensor(pixels).reshape(-1, 1, 1, 1)


ATTACK = Attack(Linf(0.1), steps=10, step_size=0.025)


def test_every_image_keeps_its_own_verdict() -> None:
    x, y = images(0.9, 0.55, 0.45, 0.1, 0.9), torch.tensor([1, 1, 0, 0, 0])
    verdict, reliability = judge(Threshold(), x, y, ATTACK)
    assert verdict.clean.tolist() == [True, True, True, True, False]
    assert verdict.robust.tolist() == [True, False, False, True, False]
    assert (verdict.clean_accuracy, verdict.robust_accuracy) == pytest.approx((0.8, 0.4))
    assert reliability is None


def test_the_worst_class_is_the_lowest_robust_share_of_any_class_that_has_images() -> None:
    y = torch.tensor([0, 0, 0, 0, 2, 2, 5])  # classes 1, 3 and 4 have none
    robust = torch.tensor([True, True, True, False, True, False, True])
    assert Verdict(y, torch.ones(7, dtype=torch.bool), robust).worst_class_accuracy == 0.5


def test_a_teacher_is_right_on_x_adv_or_on_x_alone_or_on_neither_and_rarely_on_x_adv_alone() -> None:
    x, y = images(0.9, 0.55, 0.9, 0.2), torch.tensor([1, 1, 1, 0])
    answers = iter([torch.tensor([1, 1, 0, 1]), torch.tensor([1, 0, 0, 0])])  # on x, then on x'
    _, reliability = judge(Threshold(), x, y, ATTACK, teacher=lambda _: nn.functional.one_hot(next(answers), 2))
    assert reliability is not None
    assert (reliability.right_on_adversarial, reliability.right_on_clean_only, reliability.wrong_on_both) == (0.5, 0.25, 0.25)


def test_the_verdict_does_not_depend_on_how_many_share_the_work() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    x, y = torch.rand(2 * BATCH + 77, 1, 2, 2), torch.randint(3, (2 * BATCH + 77,))
    attack = Attack(Linf(0.05), steps=2, step_size=0.02)
    whole, shares = judge(network, x, y, attack, restarts=2, seed=3, teacher=network)
    kept: list[list[Tensor]] = []
    for rank in range(2):
        counts: list[Tensor] = []
        judge(
            network, x, y, attack, restarts=2, seed=3, teacher=network, rank=rank, processes=2, total=lambda c, to=counts: to.append(c) or c
        )
        kept.append(counts)
    clean, robust, cases = (a + b for a, b in zip(*kept, strict=True))
    assert torch.equal(clean.bool(), whole.clean)
    assert torch.equal(robust.bool(), whole.robust)
    assert shares is not None
    assert (cases.double() / len(x)).tolist() == [shares.right_on_adversarial, shares.right_on_clean_only, shares.wrong_on_both]
    assert 0 < whole.robust_accuracy < whole.clean_accuracy < 1


def test_another_restart_can_only_break_more_images() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    x, y = torch.rand(BATCH, 1, 2, 2), torch.randint(3, (BATCH,))
    attack = Attack(Linf(0.1), steps=1, step_size=0.02)
    one, _ = judge(network, x, y, attack, seed=1)
    five, _ = judge(network, x, y, attack, restarts=5, seed=1)
    assert not (five.robust & ~one.robust).any()
    assert five.robust.sum() < one.robust.sum()


def test_the_same_seed_is_the_same_attack_and_another_seed_another() -> None:
    x, y = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 0, 1])
    attack = Attack(Linf(0.1), steps=0, step_size=0.0)
    first, second, third = (pgd(Threshold(), attack, x, y, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_autoattack_judges_in_the_exams_ball() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.zero_()
        network[1].weight[1] = 1 / 64  # class 1: the mean pixel, less a half
        network[1].bias[1] = -0.5
        network[1].bias[2:] = -10.0
    x = torch.cat([torch.full((1, 1, 8, 8), pixel) for pixel in (0.55, 0.45, 0.8)])
    verdict, _ = judge_by_autoattack(network, x, torch.tensor([1, 0, 0]), attack=ATTACK)
    assert verdict.clean.tolist() == [True, True, False]
    assert verdict.robust.tolist() == [False, False, False]

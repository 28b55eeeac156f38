import math

import pytest
import torch
from torch import Tensor, nn

from rkdsearch.attacks import Linf, MarginAttack, Noise, build_ball
from rkdsearch.attacks.margin import margin, soft_margin
from rkdsearch.methods import Student

LOGITS = torch.tensor([[2.0, 1.0, 0.5, -1.0], [0.0, 3.0, 2.5, 2.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 3])


def test_the_margin_is_the_lead_of_the_strongest_other_class() -> None:
    assert margin(LABELS)(LOGITS).tolist() == [-1.0, 1.0]
    assert margin(LABELS).gradient(LOGITS).tolist() == [[-1, 1, 0, 0], [0, 1, 0, -1]]


def test_the_soft_margin_weighs_the_others_by_their_distance_from_the_strongest() -> None:
    # First row: others 1, 0.5, -1; median 0.5, so s = (1 - 0.5) / 6 and z / s is 0, -6, -24.
    total = 1 + math.exp(-6) + math.exp(-24)
    assert soft_margin(LABELS)(LOGITS)[0].item() == pytest.approx(math.log(total) / 12 + 1 - 2)
    assert soft_margin(LABELS).gradient(LOGITS)[0].tolist() == pytest.approx(
        [-1, 1 / total, math.exp(-6) / total, math.exp(-24) / total]
    )


@pytest.mark.parametrize("loss", [margin, soft_margin])
def test_with_two_classes_both_are_the_margin(loss: type) -> None:
    z, y = torch.tensor([[1.0, 4.0], [0.5, 0.0]]), torch.tensor([0, 0])
    assert loss(y)(z).tolist() == [3.0, -0.5]
    assert loss(y).gradient(z).tolist() == [[-1, 1], [-1, 1]]


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 10, 100])
@pytest.mark.parametrize("loss", [margin, soft_margin])
def test_the_gradient_is_the_derivative_of_the_value_for_a_constant_spread(
    loss: type, classes: int
) -> None:
    torch.manual_seed(0)
    z, y = torch.randn(6, classes, dtype=torch.float64), torch.randint(classes, (6,))
    step, found = 1e-7, loss(y).gradient(z)
    own = torch.zeros_like(z).scatter_(1, y[:, None], step)
    # Along the label's logit, which the spread does not see.
    assert (loss(y)(z + own) - loss(y)(z)).tolist() == pytest.approx([-step] * 6, rel=1e-5)
    assert found.sum(dim=1).tolist() == pytest.approx([0.0] * 6, abs=1e-12)
    assert found.gather(1, y[:, None]).flatten().tolist() == [-1.0] * 6


@pytest.mark.parametrize("scale", [1e-30, 1e-4, 1.0, 1e3, 1e6, 1e30])
@pytest.mark.parametrize("loss", [margin, soft_margin])
def test_scale_offset_and_winning_logit_change_no_gradient(loss: type, scale: float) -> None:
    torch.manual_seed(0)
    z, y = torch.randn(50, 10), torch.randint(10, (50,))
    plain = loss(y).gradient(z)
    assert torch.allclose(loss(y).gradient(z * scale), plain, atol=1e-4)
    raised = z.scatter_add(1, y[:, None], torch.full((50, 1), 1000.0))
    assert torch.equal(loss(y).gradient(raised), plain)


def test_equal_logits_leave_a_gradient() -> None:
    z, y = torch.zeros(1, 5), torch.tensor([2])
    assert soft_margin(y).gradient(z).tolist() == [[0.25, 0.25, -1, 0.25, 0.25]]


def test_steps_fall_from_eps_along_a_cosine() -> None:
    attack = MarginAttack(Linf(0.1), steps=4)
    assert [attack.step_size(k) for k in range(4)] == pytest.approx(
        [0.1, 0.085355, 0.05, 0.014645], abs=1e-6
    )


class Loud(nn.Module):
    """A linear network of two classes whose logits are multiplied by `gain`."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        brightness = self.gain * (x.mean(dim=(1, 2, 3)) - 0.5)
        return torch.stack([-brightness, brightness], dim=1)


@pytest.mark.parametrize("gain", [1e-6, 1.0, 1e6, 1e20])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_linear_network_loses_exactly_the_images_within_reach_at_any_gain(
    norm: str, gain: float
) -> None:
    # Brightness 0.5 + d: linf moves the mean by eps, l2 by eps / sqrt(pixels) = eps / 4.
    leads = torch.tensor([0.01, 0.04, 0.06, 0.09])
    x = (0.5 + leads)[:, None, None, None].expand(4, 1, 4, 4).contiguous()
    ball = build_ball(norm, 0.05 if norm == "linf" else 0.2)
    attack, network = MarginAttack(ball, steps=10), Loud(gain)
    start = attack.start(x, Noise(torch.Generator().manual_seed(0)))
    x_adv = attack.climb(Student(network), torch.ones(4, dtype=torch.int64), x, start)
    assert network(x_adv).argmax(dim=1).tolist() == [0, 0, 1, 1]
    assert float((x_adv - x).abs().max()) <= 0.2 + 1e-6


def test_no_image_leaves_the_ball_or_the_pixel_range_and_nothing_given_is_overwritten() -> None:
    torch.manual_seed(0)
    x, y = torch.rand(8, 1, 4, 4), torch.randint(10, (8,))
    attack = MarginAttack(Linf(0.3), steps=5)
    start = attack.start(x, Noise(torch.Generator().manual_seed(0)))
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 10)).requires_grad_(False)
    before, begun = x.clone(), start.clone()
    x_adv = attack.climb(Student(network), y, x, start)
    assert torch.equal(x, before)
    assert torch.equal(start, begun)
    assert float((x_adv - x).abs().max()) <= 0.3 + 1e-6
    assert (float(x_adv.min()), float(x_adv.max())) >= (0.0, 0.0)
    assert float(x_adv.max()) <= 1.0
    assert not x_adv.requires_grad

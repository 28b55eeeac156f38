"""The objectives of the compared validation attacks.

Slopes along their gradients, at any scale of the logits.
"""

import pytest
import torch
from torch import Tensor

from rkdsearch.attacks.margin import margin, soft_margin
from tests.analysis.scripts import script

objectives = script("attack_objectives")
CANDIDATES = objectives.objectives()
INVARIANT = [name for name in CANDIDATES if name != "cross-entropy"]
DETACHED = [name for name in CANDIDATES if name.startswith("soft") and "attached" not in name]
# The losses of the package's margin attack, by their names among the candidates.
CHOSEN = {"margin": margin, "soft others 6": soft_margin}


def batch(classes: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(64, classes, generator=generator, dtype=dtype)
    return z, torch.randint(classes, (64,), generator=generator)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    a, b = (v / v.norm(dim=1, keepdim=True).clamp_min(1e-300) for v in (a, b))
    return (a * b).sum(dim=1)


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
@pytest.mark.parametrize("name", ["cross-entropy", "margin", "dlr", "own logit"])
def test_a_slope_points_along_the_gradient_of_its_value(name: str, classes: int) -> None:
    z, y = batch(classes)
    z.requires_grad_()
    (gradient,) = torch.autograd.grad(CANDIDATES[name].value(z, y).sum(), z)
    slope = CANDIDATES[name].slope(z.detach(), y)
    moving = gradient.norm(dim=1) > 1e-12  # dlr has no slope where the label is third or last
    assert moving.any()
    assert float(cosine(slope, gradient)[moving].min()) > 1 - 1e-9
    assert float(slope[~moving].abs().sum()) < 1e-9


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("spread", ["range", "deviation", "first_third", "margin", "others"])
def test_the_soft_margin_has_the_direction_of_the_cross_entropy_of_scaled_logits(
    spread: str, classes: int
) -> None:
    z, y = batch(classes)
    z.requires_grad_()
    # K = 2 and others: no spread, and two logits have one direction at every scale.
    scale = (objectives._spread(z, y, spread).detach() / 4).clamp_min(0.1)[:, None]
    (gradient,) = torch.autograd.grad(objectives.cross_entropy(z / scale, y).sum(), z)
    slope = objectives.soft_margin_slope(z.detach(), y, spread=spread, sharpness=4)
    moving = (gradient.norm(dim=1) > 1e-6) & (scale[:, 0] > 0.1)
    if classes > 2:
        assert moving.any()
    assert bool((cosine(slope, gradient)[moving] > 1 - 1e-6).all())


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("name", CHOSEN)
def test_the_chosen_ones_are_those_of_the_package(name: str, factor: float, classes: int) -> None:
    z, y = batch(classes, torch.float32)
    z = z * factor
    ours, measured = CHOSEN[name](y), CANDIDATES[name].loss(y)
    torch.testing.assert_close(measured(z), ours(z), rtol=1e-5, atol=0.0)
    torch.testing.assert_close(measured.gradient(z), ours.gradient(z))


@pytest.mark.parametrize("name", INVARIANT)
@pytest.mark.parametrize("factor", [1e-30, 1e-6, 1e3, 1e6, 1e30])
def test_scaled_logits_have_the_same_slope_in_single_precision(name: str, factor: float) -> None:
    z, y = batch(10, torch.float32)
    expected, found = (CANDIDATES[name].slope(v, y) for v in (z, z * factor))
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", DETACHED)
def test_two_classes_leave_the_margin(name: str) -> None:
    z, y = batch(2)
    assert torch.equal(CANDIDATES[name].slope(z, y), objectives.margin_slope(z, y))


@pytest.mark.parametrize("name", DETACHED)
def test_equal_logits_still_have_a_slope(name: str) -> None:
    slope = CANDIDATES[name].slope(torch.zeros(1, 3), torch.tensor([0]))
    assert torch.equal(slope, torch.tensor([[-1.0, 0.5, 0.5]]))


def test_a_saturated_network_has_no_slope_of_cross_entropy() -> None:
    z = torch.tensor([[200.0, 0.0, -5.0]])
    y = torch.tensor([0])
    assert not objectives.cross_entropy_slope(z, y).any()
    assert torch.equal(objectives.margin_slope(z, y), torch.tensor([[-1.0, 1.0, 0.0]]))

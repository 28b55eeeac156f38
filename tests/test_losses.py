"""The equations, with literal numbers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rkdsearch import losses


def logits(*rows: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(rows, dtype=dtype)


TWO = logits([0.0, math.log(3.0)])  # probabilities 1/4 and 3/4
EVEN = logits([0.0, 0.0])


def test_kl_of_three_quarters_to_a_coin() -> None:
    expected = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert losses.kl_divergence(EVEN, target=TWO).item() == pytest.approx(expected, abs=1e-15)
    assert expected == pytest.approx(0.130812, abs=1e-6)


def test_kl_is_not_symmetric_and_the_target_stands_first() -> None:
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert losses.kl_divergence(TWO, target=EVEN).item() == pytest.approx(expected, abs=1e-15)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=2, max_size=6), st.floats(0.1, 30))
def test_kl_of_a_distribution_to_itself_is_zero_at_any_temperature(
    row: list[float], temperature: float
) -> None:
    z = logits(row)
    assert losses.kl_divergence(z, target=z + 3.0, temperature=temperature).item() == pytest.approx(
        0.0, abs=1e-12
    )


def test_temperature_softens_both_sides_and_multiplies_nothing() -> None:
    p, q = [1 / (1 + math.sqrt(3)), math.sqrt(3) / (1 + math.sqrt(3))], 0.5
    expected = sum(pi * math.log(pi / q) for pi in p)
    assert losses.kl_divergence(EVEN, target=TWO, temperature=2.0).item() == pytest.approx(
        expected, abs=1e-15
    )


def test_a_targets_own_temperature_may_differ_by_sample() -> None:
    both = torch.cat([TWO, TWO])
    found = losses.kl_divergence(
        torch.cat([EVEN, EVEN]), target=both, target_temperature=torch.tensor([[1.0], [1e6]])
    )
    assert found[0].item() == pytest.approx(0.130812, abs=1e-6)
    assert found[1].item() == pytest.approx(0.0, abs=1e-9)


def test_the_offset_moves_the_value_and_not_the_gradient() -> None:
    prediction = EVEN.clone().requires_grad_()
    plain, moved = (
        losses.kl_divergence(prediction, target=TWO, offset=offset).sum() for offset in (0.0, 1e-5)
    )
    expected = 0.25 * math.log(0.25001) + 0.75 * math.log(0.75001) - math.log(0.5)
    assert moved.item() == pytest.approx(expected, abs=1e-15)
    gradients = [
        torch.autograd.grad(value, prediction, retain_graph=True)[0] for value in (plain, moved)
    ]
    assert torch.equal(gradients[0], gradients[1])


def test_a_divergence_has_derivatives_of_its_derivatives() -> None:
    x = torch.tensor([[0.3, -1.2, 0.7], [2.0, 0.1, -0.4]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 2.0]], dtype=torch.float64)
    assert torch.autograd.gradgradcheck(
        lambda z: losses.kl_divergence(z, target=target, temperature=2.0), x
    )


def test_a_target_that_carries_a_gradient_gets_one() -> None:
    target = TWO.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(losses.kl_divergence(EVEN, target=target).sum(), target)
    # d KL(p || q) / dz_k = p_k (log p_k / q_k - KL)
    assert gradient[0, 0].item() == pytest.approx(0.25 * (math.log(0.5) - 0.130812), abs=1e-6)


def test_kl_to_probabilities_takes_a_hard_label_for_cross_entropy() -> None:
    hard = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    assert losses.kl_to_probabilities(TWO, target=hard).item() == pytest.approx(
        -math.log(0.75), abs=1e-15
    )
    assert losses.kl_to_probabilities(
        EVEN, target=losses.probabilities(TWO)
    ).item() == pytest.approx(0.130812, abs=1e-6)


def test_soft_cross_entropy_is_the_divergence_plus_the_targets_entropy() -> None:
    z, t = logits([0.3, -1.0, 2.0]), logits([1.0, 0.0, 0.5])
    whole = losses.soft_cross_entropy(z, target=t, temperature=2.0)
    assert whole.item() == pytest.approx(
        (losses.kl_divergence(z, target=t, temperature=2.0) + losses.entropy(t, 2.0)).item(),
        abs=1e-14,
    )


def test_entropy_of_a_coin_is_log_two() -> None:
    assert losses.entropy(EVEN).item() == pytest.approx(math.log(2), abs=1e-15)


def test_cross_entropy_of_three_quarters() -> None:
    assert losses.cross_entropy(TWO, torch.tensor([1])).item() == pytest.approx(
        -math.log(0.75), abs=1e-15
    )
    smoothed = -0.9 * math.log(0.75) - 0.05 * (math.log(0.75) + math.log(0.25))
    assert losses.cross_entropy(
        TWO, torch.tensor([1]), label_smoothing=0.1
    ).item() == pytest.approx(smoothed, abs=1e-15)


def test_every_loss_is_one_number_a_sample() -> None:
    z, y = torch.zeros(5, 3), torch.zeros(5, dtype=torch.long)
    for values in (
        losses.kl_divergence(z, target=z),
        losses.kl_to_probabilities(z, target=z.softmax(dim=1)),
        losses.soft_cross_entropy(z, target=z),
        losses.cross_entropy(z, y),
        losses.entropy(z),
    ):
        assert values.shape == (5,)


@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_is_lifted_and_double_is_kept(
    stored: torch.dtype, computed: torch.dtype
) -> None:
    z, y = torch.zeros(2, 3, dtype=stored), torch.zeros(2, dtype=torch.long)
    assert losses.kl_divergence(z, target=z).dtype == computed
    assert losses.cross_entropy(z, y).dtype == computed
    assert losses.entropy(z).dtype == computed


def test_losses_of_certain_logits_stay_finite() -> None:
    sure, other = (
        logits([1000.0, 0.0], dtype=torch.float32),
        logits([0.0, 1000.0], dtype=torch.float32),
    )
    assert losses.kl_divergence(other, target=sure).item() == pytest.approx(1000.0)
    assert losses.entropy(sure).item() == 0.0


# Logits of two networks that nearly agree; float64 by the plain sum is the reference.
ONE = torch.randn(64, 10, generator=torch.Generator().manual_seed(0)) * 2
OTHER = ONE + 0.03 * torch.randn(64, 10, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("temperature", [50.0, 100.0, 1e3, 1e4])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_a_softened_divergence_is_no_rounding_noise_in_value_or_gradients(
    temperature: float, scale: float
) -> None:
    def measured(dtype: torch.dtype) -> list[Tensor]:
        prediction, target = ((scale * z).to(dtype).requires_grad_() for z in (ONE, OTHER))
        values = [
            temperature**2 * losses.kl_divergence(prediction, target=one, temperature=temperature)
            for one in (target, target.detach())
        ]
        gradients = torch.autograd.grad(values[0].sum(), (prediction, target))
        to_constant = torch.autograd.grad(values[1].sum(), prediction)
        return [found.detach().double() for found in (*values, *gradients, *to_constant)]

    exact = measured(torch.float64)
    assert float(exact[0].mean()) > 1e-4
    for found, reference in zip(measured(torch.float32), exact, strict=True):
        error = (found - reference).norm() / reference.norm()
        assert float(error) < (3e-4 if temperature == 1e4 else 1e-5)  # 1e4: float64's own noise


def test_rows_that_differ_much_keep_the_plain_formula_beside_rows_that_do_not() -> None:
    prediction = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1e6, -1e6]], requires_grad=True)
    target = torch.tensor([[0.1, 1.0, 2.0], [1e6, 0.0, 0.0]])
    value = losses.kl_divergence(prediction, target=target, temperature=100.0)
    assert value.tolist() == pytest.approx([1.1058e-07, 1e4], rel=1e-3)
    (gradient,) = torch.autograd.grad(value.sum(), prediction)
    assert gradient[1].tolist() == pytest.approx([-0.01, 0.01, 0.0])
    assert bool(torch.isfinite(gradient).all())


def test_an_offset_of_the_logits_changes_no_softened_divergence() -> None:
    prediction, target = torch.tensor([[0.0, 1.0, 3.0]]), torch.tensor([[0.5, 1.0, 2.0]])
    plain, moved = (
        losses.kl_divergence(prediction + offset, target=target, temperature=1e3)
        for offset in (0.0, 4096.0)
    )
    assert moved.item() == pytest.approx(plain.item(), rel=1e-6)


@pytest.mark.parametrize("temperature", [50.0, 1e4])
def test_the_slope_and_the_soft_cross_entropy_have_the_same_gradient(temperature: float) -> None:
    prediction = ONE.clone().requires_grad_()
    slope = losses.divergence_slope(ONE, target=OTHER, temperature=temperature)
    entropic = losses.soft_cross_entropy(prediction, target=OTHER, temperature=temperature)
    exact = losses.divergence_slope(ONE.double(), target=OTHER.double(), temperature=temperature)
    assert float((slope - exact).norm() / exact.norm()) < 1e-5
    (gradient,) = torch.autograd.grad(entropic.sum(), prediction)
    assert float((gradient * temperature - exact).norm() / exact.norm()) < 1e-5
    assert entropic.mean().item() == pytest.approx(
        losses.entropy(OTHER.double(), temperature).mean().item(), rel=1e-4
    )

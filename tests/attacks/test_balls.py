"""The balls and the loop: x' stays inside, each step climbs, two processes draw what one draws."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rkdsearch.attacks import L2, Attack, Linf, Noise, Norm, Start, build_ball, input_gradient

EPS = 8 / 255
NORMS: tuple[Norm, ...] = get_args(Norm)


def noise(seed: int = 0, rank: int = 0, processes: int = 1) -> Noise:
    return Noise(torch.Generator().manual_seed(seed), rank, processes)


def images(seed: int, n: int = 3) -> Tensor:
    return torch.rand(
        n, 2, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def length(delta: Tensor, norm: Norm = "l2") -> Tensor:
    order = float(norm.removeprefix("l"))
    return delta.flatten(1).norm(p=order, dim=1)


def test_linf_projects_to_the_nearest_image_of_the_box_and_then_of_the_pixel_range() -> None:
    x = torch.tensor([0.05, 0.5, 0.98]).view(1, 1, 1, 3)
    x_adv = torch.tensor([-0.3, 0.62, 1.2]).view(1, 1, 1, 3)
    assert Linf(0.1).projection_around(x)(x_adv).flatten().tolist() == pytest.approx(
        [0.0, 0.6, 1.0]
    )


@settings(max_examples=40, deadline=None)
@given(eps=st.floats(0, 2), seed=st.integers(0, 99), beyond=st.floats(0, 1))
def test_one_box_is_the_ball_and_the_pixel_range_also_for_images_that_leave_it(
    eps: float, seed: int, beyond: float
) -> None:
    x, x_adv = (1 + 2 * beyond) * images(seed) - beyond, 5 * images(seed + 100) - 2
    assert torch.equal(
        Linf(eps).projection_around(x)(x_adv), x_adv.clamp(x - eps, x + eps).clamp(0, 1)
    )


def test_l2_shortens_a_perturbation_without_turning_it() -> None:
    x = torch.full((1, 1, 1, 2), 0.5)
    x_adv = x + torch.tensor([0.3, 0.4]).view(1, 1, 1, 2)
    assert L2(0.25).projection_around(x)(x_adv).flatten().tolist() == pytest.approx([0.65, 0.7])
    assert L2(0.6).projection_around(x)(x_adv).flatten().tolist() == pytest.approx([0.8, 0.9])


def test_an_l2_step_has_unit_length_and_a_vanished_gradient_moves_nothing() -> None:
    gradient = torch.tensor([[3.0, 4.0], [0.0, 0.0]]).view(2, 1, 1, 2)
    assert L2(1.0).direction(gradient).flatten().tolist() == pytest.approx([0.6, 0.8, 0.0, 0.0])
    # a saturated network's
    assert L2(1.0).direction(1e-30 * gradient).flatten().tolist() == pytest.approx(
        [0.6, 0.8, 0.0, 0.0]
    )


@settings(max_examples=40, deadline=None)
@given(
    norm=st.sampled_from(NORMS),
    eps=st.floats(0, 2),
    seed=st.integers(0, 99),
    reach=st.floats(0, 5),
)
def test_what_is_projected_is_inside_and_stays_where_it_is(
    norm: Norm, eps: float, seed: int, reach: float
) -> None:
    ball, x = build_ball(norm, eps), images(seed)
    x_adv = ball.projection_around(x)(x + reach * (images(seed + 100) - 0.5))
    assert (length(x_adv - x, norm) <= eps + 1e-9).all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert torch.allclose(ball.projection_around(x)(x_adv), x_adv, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("initial", ["uniform", "uniform_clipped", "gaussian", "none"])
def test_an_attack_stays_in_the_ball_from_every_start(norm: Norm, initial: Start) -> None:
    x = images(1)
    x_adv = Attack(build_ball(norm, EPS), steps=5, step_size=EPS / 2, initial=initial).maximize(
        lambda z: z.flatten(1).sum(1), x, noise()
    )
    assert (length(x_adv - x, norm) <= EPS + 1e-9).all()
    assert 0 <= x_adv.min() <= x_adv.max() <= 1
    assert not x_adv.requires_grad


def test_ten_steps_of_two_pixels_find_the_corner_of_a_linear_objective() -> None:
    x = torch.full((1, 1, 2, 2), 0.5)
    slope = torch.tensor([1.0, -2.0, 0.5, -0.1]).view(1, 1, 2, 2)
    attack = Attack(Linf(EPS), steps=10, step_size=2 / 255, initial="gaussian")
    found = attack.maximize(lambda z: (z * slope).flatten(1).sum(1), x, noise())
    assert (found - x).flatten().tolist() == pytest.approx([EPS, -EPS, EPS, -EPS], abs=1e-7)


def test_an_unclipped_uniform_start_may_leave_the_pixel_range_and_a_clipped_one_may_not() -> None:
    x = torch.zeros(2, 1, 8, 8)
    starts = {
        name: Attack(Linf(0.1), 1, 0.1, name).start(x, noise())
        for name in ("uniform", "uniform_clipped")
    }
    assert -0.1 <= starts["uniform"].min() < -0.05
    assert starts["uniform_clipped"].min() == 0


def test_a_gaussian_start_is_a_thousandth_of_a_normal_number_away() -> None:
    x = torch.full((4, 3, 32, 32), 0.5)
    delta = Attack(Linf(EPS), 1, 0.1, "gaussian").start(x, noise()) - x
    assert delta.std().item() == pytest.approx(0.001, rel=0.02)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2), (1, 4, 4), (3, 8, 8), (3, 32, 32)])
def test_an_l2_start_is_uniform_in_the_ball(shape: tuple[int, int, int]) -> None:
    pixels, eps = torch.zeros(shape).numel(), 0.5
    delta = L2(eps).random_perturbation(noise().uniform(torch.zeros(4000, *shape)))
    lengths = length(delta).flatten().double()
    assert lengths.max() <= eps * (1 + 1e-6)
    # In d dimensions the mean length is eps d / (d + 1), and (length / eps)^d is uniform.
    assert lengths.mean().item() == pytest.approx(eps * pixels / (pixels + 1), rel=0.02)
    shares = (lengths / eps) ** pixels
    assert shares.mean().item() == pytest.approx(0.5, abs=0.02)
    assert shares.var().item() == pytest.approx(1 / 12, abs=0.01)
    # No pixel is preferred: each has the variance eps^2 / (d + 2) and mean 0.
    variance = delta.flatten(1).double().var(dim=0)
    assert variance.mean().item() == pytest.approx(eps**2 / (pixels + 2), rel=0.03)
    assert (variance / variance.mean()).max() < 1.25
    assert delta.flatten(1).mean(dim=0).abs().max() < 0.08 * eps


def test_a_noise_of_zeros_is_no_perturbation() -> None:
    assert L2(0.5).random_perturbation(torch.zeros(2, 1, 2, 2)).abs().max() == 0


@pytest.mark.parametrize("norm", get_args(Norm))
@pytest.mark.parametrize("start", get_args(Start))
def test_an_attack_without_steps_stays_in_the_ball_and_in_the_pixel_range(
    norm: Norm, start: Start
) -> None:
    torch.manual_seed(0)
    x = torch.rand(50, 1, 4, 4).round()  # black and white: every start would leave the range
    for eps in (0.3, 1e-4):
        attack = Attack(build_ball(norm, eps), steps=0, step_size=0.1, initial=start)
        delta = attack.maximize(lambda z: z.flatten(1).sum(1), x, noise()) - x
        assert (x + delta).min() >= 0
        assert (x + delta).max() <= 1
        size = length(delta).max() if norm == "l2" else delta.abs().max()
        assert size <= eps * (1 + 1e-3)


@pytest.mark.parametrize("draw", ["uniform", "normal"])
def test_two_processes_draw_the_halves_of_what_one_draws(draw: str) -> None:
    like = torch.zeros(6, 1, 2, 2)
    whole = getattr(noise(7), draw)(like)
    halves = [getattr(noise(7, rank, 2), draw)(like[:3]) for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), whole)


def test_the_gradient_with_respect_to_images_leaves_weights_alone_even_under_no_grad() -> None:
    layer = torch.nn.Linear(4, 1)
    x = torch.ones(2, 4)
    with torch.no_grad():
        gradient = input_gradient(lambda z: layer(z)[:, 0] ** 2, x)
    assert torch.allclose(gradient, 2 * layer(x) * layer.weight)
    assert layer.weight.grad is None
    assert not x.requires_grad


def test_no_steps_return_the_start_and_none_at_all_returns_the_image() -> None:
    x = images(2)
    assert torch.equal(
        Attack(Linf(0.1), steps=0, step_size=0.1, initial="none").maximize(
            lambda z: z.flatten(1).sum(1), x, noise()
        ),
        x,
    )

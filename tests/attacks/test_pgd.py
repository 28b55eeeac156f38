import pytest
import torch
from torch import Tensor

from rkdsearch.attacks import Attack, Linf, Noise, Start, input_gradient


def noise() -> Noise:
    return Noise(torch.Generator().manual_seed(0))


def test_each_step_climbs_by_its_size_until_the_ball_ends() -> None:
    x, seen = torch.full((1, 1, 1, 2), 0.5), []

    def objective(x_adv: Tensor) -> Tensor:
        seen.append(x_adv.detach().flatten().tolist())
        return (x_adv * torch.tensor([3.0, -0.01])).flatten(1).sum(dim=1)

    found = Attack(Linf(0.1), steps=4, step_size=0.03, initial="none").maximize(
        objective, x, noise()
    )
    assert [round(pixels[0], 6) for pixels in seen] == [0.5, 0.53, 0.56, 0.59]
    assert found.flatten().tolist() == pytest.approx([0.6, 0.4])


@pytest.mark.parametrize("start", ["none", "uniform_clipped"])
def test_what_is_found_carries_no_graph_and_neither_the_images_nor_the_start_are_changed(
    start: Start,
) -> None:
    x = torch.rand(2, 1, 2, 2)
    attack = Attack(Linf(0.1), steps=2, step_size=0.05, initial=start)
    begin = attack.start(x, noise())
    assert begin.data_ptr() != x.data_ptr()
    before, begun = x.clone(), begin.clone()
    found = attack.climb(lambda x_adv: x_adv.flatten(1).sum(dim=1), x, begin)
    assert not found.requires_grad
    assert torch.equal(x, before)
    assert torch.equal(begin, begun)


def test_images_are_attacked_one_by_one_however_large_their_neighbours_objective() -> None:
    x = torch.full((2, 1, 1, 1), 0.5)
    scale = torch.tensor([1e6, -1e-6])
    found = Attack(Linf(0.1), steps=3, step_size=0.05, initial="none").maximize(
        lambda a: a.flatten() * scale, x, noise()
    )
    assert found.flatten().tolist() == pytest.approx([0.6, 0.4])


def test_the_gradient_is_taken_at_images_that_carry_a_graph_of_their_own() -> None:
    weight = torch.tensor(2.0, requires_grad=True)
    x = torch.ones(1, 1, 1, 1) * weight
    assert input_gradient(lambda a: (a**2).flatten(), x).item() == pytest.approx(4.0)
    assert weight.grad is None

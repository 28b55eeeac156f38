import logging
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pyautoattack.checks import check_zero_gradients
from torch import Tensor, nn

from rkdsearch.attacks.autoattack import (
    AutoAttack,
    Part,
    auto_attack,
    parts,
    square_covers,
    targeted_loss,
)
from rkdsearch.attacks.balls import L2, Ball, Linf
from rkdsearch.attacks.image_noise import ImageNoise
from rkdsearch.errors import ConfigError
from tests.attacks import plain_autoattack as plain


def linear() -> nn.Module:
    """Ten classes of 64 pixels. Class 1 leads class 0 by the mean pixel - 0.5; the rest trail."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.copy_(torch.tensor([0.0, -0.5, *[-10.0] * 8]))
        network[1].weight[1] = 1 / 64
    return network.requires_grad_(requires_grad=False)


def grey(*pixels: float) -> Tensor:
    return torch.stack([torch.full((1, 8, 8), pixel) for pixel in pixels])


def network_of(classes: int) -> tuple[nn.Module, plain.Network]:
    """A random network of 36 pixels, 12 hidden units, in torch and in NumPy."""
    random = np.random.default_rng(classes)
    weights = (
        random.normal(0, 1 / 3, (12, 36)),
        random.normal(0, 0.3, 12),
        random.normal(0, 1, (classes, 12)),
        random.normal(0, 0.1, classes),
    )
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.Tanh(), nn.Linear(12, classes))
    with torch.no_grad():
        for parameter, values in zip(network.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(values))
    return network.eval().requires_grad_(requires_grad=False), plain.Network(*weights)


def images(network: nn.Module, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random images of 6 x 6 pixels, labelled by the network itself."""
    x = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    return x, network(x).argmax(dim=1)


def hold_to_the_plain_one(classes: int, eps: float, *, count: int, steps: int, queries: int) -> int:
    """Assert that both have the same verdict on every image; returns the number of errors found."""
    network, same = network_of(classes)
    x, y = images(network, count)
    attack, found = AutoAttack(Linf(eps), 3, steps, queries), 0
    for part in parts(classes):
        x_adv = attack.attacked(network, part, x, y)
        assert float((x_adv - x).abs().max()) <= eps * (1 + 1e-5)
        assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1
        noise = ImageNoise((3, part.attack, part.target or 0)).uniform(x).flatten(1)
        start = x.flatten(1) + eps * noise / noise.abs().amax(dim=1, keepdim=True)
        expected = [
            plain.fooled(
                same, part, image.double().numpy().ravel(), int(label), eps, (1, 6, 6),
                begin.double().numpy(), seed=3, steps=steps, queries=queries,
            )
            for image, label, begin in zip(x, y, start, strict=True)
        ]  # fmt: skip
        assert (network(x_adv).argmax(dim=1) != y).tolist() == expected, part
        found += sum(expected)
    return found


@pytest.mark.parametrize("classes", [*range(2, 13), 100])
def test_every_part_agrees_with_an_independent_implementation_image_by_image(classes: int) -> None:
    assert hold_to_the_plain_one(classes, 0.03, count=2, steps=6, queries=25) < 2 * len(
        parts(classes)
    )
    assert hold_to_the_plain_one(classes, 0.1, count=2, steps=6, queries=25) > 0


@pytest.mark.long
@pytest.mark.parametrize("classes", [3, 4, 100])
def test_every_part_agrees_at_the_standards_steps(classes: int) -> None:
    hold_to_the_plain_one(classes, 0.03, count=3, steps=100, queries=2500)


def test_targets_are_the_other_classes_and_at_most_nine() -> None:
    counts = {k: sum(part.attack == "apgd-t" for part in parts(k)) for k in (2, 3, 4, 10, 11, 100)}
    assert counts == {2: 1, 3: 2, 4: 3, 10: 9, 11: 9, 100: 9}
    assert parts(2) == (
        Part("apgd-ce"),
        Part("apgd-t", 1),
        Part("fab-t", 1),
        Part("square"),
    )
    assert targeted_loss(3) == "margin, because DLR needs 4 classes"
    assert targeted_loss(4) == "DLR"


@pytest.mark.parametrize(("classes", "eps"), [(2, 0.04), (3, 0.1)])
def test_the_margin_in_place_of_dlr_does_not_see_the_scale_of_the_logits(
    classes: int, eps: float
) -> None:
    network, _ = network_of(classes)
    large = nn.Sequential(network, _Times(1024.0)).eval()
    x, y = images(network, 16)
    attack, part = AutoAttack(Linf(eps), steps=20), Part("apgd-t", 1)
    fooled = [(n(attack.attacked(n, part, x, y)).argmax(dim=1) != y) for n in (network, large)]
    assert torch.equal(*fooled)
    assert 0 < int(fooled[0].sum()) < 16


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, z: Tensor) -> Tensor:
        return z * self.factor


@pytest.mark.parametrize("ball", [Linf(0.04), L2(0.2)], ids=["linf", "l2"])
def test_an_images_attack_does_not_depend_on_its_batch(ball: Ball) -> None:
    network, _ = network_of(5)
    x, y = images(network, 7)
    attack = AutoAttack(ball, seed=1, steps=5, queries=20)
    for part in parts(5):
        together = attack.attacked(network, part, x, y)
        some = torch.tensor([5, 2])
        apart = attack.attacked(network, part, x[some], y[some])
        torch.testing.assert_close(apart, together[some], atol=1e-5, rtol=0, msg=str(part))


# The margin is the distance of the mean pixel from a half: an Linf ball of eps moves the mean by
# eps, an L2 ball by eps / 8.
@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.8)], ids=["linf", "l2"])
def test_a_linear_network_is_robust_exactly_as_far_as_its_margin_reaches(ball: Ball) -> None:
    y = torch.tensor([1, 1, 0, 0, 1])
    robust, _ = auto_attack(
        linear(), grey(0.61, 0.59, 0.39, 0.41, 0.3), y, ball=ball, steps=20, queries=200
    )
    assert robust.tolist() == [True, False, True, False, False]


def test_the_attack_leaves_the_global_random_numbers_and_the_logger_as_they_were() -> None:
    network = linear()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    auto_attack(network, grey(0.59), torch.tensor([1]), ball=Linf(0.1), steps=5, queries=20)
    assert torch.equal(torch.rand(2), expected)
    assert logging.getLogger("auto-attack").handlers == []


def test_outputs_that_are_probabilities_are_flagged() -> None:
    network = nn.Sequential(linear(), nn.Softmax(dim=1)).eval()
    _, flags = auto_attack(
        network, grey(0.59), torch.tensor([1]), ball=Linf(0.1), steps=5, queries=20
    )
    assert any("probability distribution" in flag for flag in flags)


def test_a_ball_or_pixels_that_autoattack_does_not_have_are_refused() -> None:
    class Square(Linf):
        title: ClassVar[str] = "Square"
        autoattack: ClassVar[str | None] = None

    with pytest.raises(ConfigError, match=r"AutoAttack has no Square ball; choose other attacks"):
        auto_attack(linear(), grey(0.59), torch.tensor([1]), ball=Square(0.1))
    tiny = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
    with pytest.raises(ConfigError, match="needs images of 5 pixels a side, got 4 x 4"):
        AutoAttack(L2(0.1)).attacked(
            tiny, Part("square"), torch.zeros(1, 1, 4, 4), torch.tensor([0])
        )


@pytest.mark.parametrize(("height", "width"), [(24, 24), (24, 40), (12, 12)])
def test_images_that_squares_tiles_overrun_are_refused_before_any_part_in_l2_alone(
    height: int, width: int
) -> None:
    x, y = torch.zeros(1, 1, height, width), torch.tensor([0])
    with pytest.raises(ConfigError, match=f"cannot tile images of {height} x {width} pixels"):
        AutoAttack(L2(0.5)).attacked(linear(), Part("apgd-ce"), x, y)


@pytest.mark.parametrize(
    ("height", "width"), [(8, 8), (28, 28), (32, 32), (40, 24), (64, 128), (96, 96), (224, 224)]
)
def test_images_of_usual_sizes_are_tiled(height: int, width: int) -> None:
    assert square_covers(height, width)


def test_images_need_not_be_square_for_linf() -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(8), *linear()).eval()
    x = torch.cat([torch.full((1, 1, 16, 24), pixel) for pixel in (0.61, 0.59)])
    ones = torch.tensor([1, 1])
    robust, _ = auto_attack(network, x, ones, ball=Linf(0.1), steps=5, queries=20)
    assert robust.tolist() == [True, False]


class Detached(nn.Module):
    """Ten classes: class 1 above a mean pixel of 1/2, class 0 below, and no derivative."""

    def forward(self, x: Tensor) -> Tensor:
        lead = x.detach().mean(dim=(1, 2, 3)) - 0.5
        return torch.cat([torch.stack([-lead, lead], dim=1), torch.full((len(x), 8), -10.0)], 1)


class WholeNumbers(Detached):
    """The same in thousandths, as integers: what a quantised network may give."""

    def forward(self, x: Tensor) -> Tensor:
        return (1000 * super().forward(x)).int()


@pytest.mark.parametrize("network", [Detached(), WholeNumbers()])
@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t", "fab-t", "square"])
def test_a_network_without_derivatives_ends_no_part(name: Any, network: nn.Module) -> None:
    x = torch.cat([torch.full((1, 1, 8, 8), pixel) for pixel in (0.55, 0.95)])
    attack = AutoAttack(Linf(0.1), steps=2, queries=300)
    part = Part(name, 1 if name.endswith("-t") else None)
    x_adv = attack.attacked(network, part, x, torch.tensor([1, 1]))
    broken = network(x_adv).argmax(dim=1) == 0
    assert broken.tolist() == [name == "square", False]  # which needs no derivative


def test_colour_images_may_be_laid_out_channels_last() -> None:
    x = torch.rand(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    y = network(x).argmax(dim=1)
    robust, _ = auto_attack(network, x, y, ball=Linf(0.5), steps=3, queries=5)
    assert robust.tolist() == [False] * 4
    with pytest.raises(RuntimeError, match="view size is not compatible"):  # the package's own
        check_zero_gradients(torch.ones_like(x))


def test_autoattack_stays_in_its_ball() -> None:
    x = grey(0.55, 0.45, 0.65, 0.8)
    robust, _ = auto_attack(linear(), x, torch.tensor([1, 0, 1, 0]), ball=Linf(0.1), queries=50)
    assert robust.tolist() == [False, False, True, False]

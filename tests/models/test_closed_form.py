"""Closed-form gradients of a chain against autograd's.

The weights move, images change their layout, and the memory between the layers is overwritten.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from rkdsearch.models import ModelConfig, build, closed_form_gradient, fold, inference_copy
from rkdsearch.models.closed_form import MATRIX_NUMBERS, MatrixConvolution, _chains
from tests.tasks import DIGITS, square


def by_autograd(
    network: Callable[[Tensor], Tensor], x: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    logits = network(x)
    return logits.detach(), torch.autograd.grad(logits, x, slope)[0]


def assert_same(live: nn.Module, frozen: nn.Module, x: Tensor) -> None:
    """Logits and gradient, in closed form where the network is a chain."""
    slope = torch.randn(len(x), 10, dtype=x.dtype)
    for found, right in zip(
        gradient_through(frozen, x, slope), by_autograd(live.eval(), x, slope), strict=True
    ):
        assert found.shape == right.shape
        assert float((found - right).abs().max() / right.abs().max()) < 1e-12


def gradient_through(frozen: nn.Module, x: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    seen: list[Tensor] = []

    def look(logits: Tensor) -> Tensor:
        assert not logits.requires_grad
        seen.append(logits)
        return slope

    gradient = closed_form_gradient(frozen, look, x)
    return by_autograd(frozen, x, slope) if gradient is None else (gradient(x), seen[0])[::-1]


def is_chain(network: nn.Module, x: Tensor) -> bool:
    return network in _chains and _chains[network].prepare(x) is not None


@pytest.mark.parametrize(
    ("name", "channels", "size", "chain"),
    [
        ("mlp", 1, 8, True),
        ("mlp", 3, 32, True),
        ("small_cnn", 1, 8, True),
        ("small_cnn", 3, 32, False),
        ("resnet18", 1, 8, False),
    ],
)
def test_logits_and_gradient_are_autograds(
    name: str, channels: int, size: int, chain: bool
) -> None:
    width = {"width": 8} if name == "small_cnn" else {}
    network = build(
        ModelConfig.model_validate({"name": name, **width}),
        square(classes=10, channels=channels, size=size),
    ).double()
    x = torch.rand(5, channels, size, size, dtype=torch.float64)
    copied = inference_copy(network)()
    assert is_chain(copied, x) == chain
    assert_same(network, copied, x)
    assert_same(network, copied, x.contiguous(memory_format=torch.channels_last))
    assert all(p.grad is None for p in network.parameters())


def test_a_chain_follows_training_without_being_built_again() -> None:
    network = build(ModelConfig(name="small_cnn", width=4), DIGITS).double()
    x, current = torch.rand(3, 1, 8, 8, dtype=torch.float64), inference_copy(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    for _ in range(3):
        assert_same(network, current(), x)
        network(x).square().mean().backward()
        optimizer.step()
    assert_same(network, current(), x)


def sequential(*between: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), *between, nn.Linear(72, 10)).double()


def test_a_chain_may_be_written_with_modules() -> None:
    network, x = sequential(nn.ReLU(), nn.Flatten()), torch.rand(2, 1, 8, 8, dtype=torch.float64)
    copied = inference_copy(network)()
    assert is_chain(copied, x)
    assert_same(network, copied, x)


@pytest.mark.parametrize(
    "between",
    [
        (nn.Tanh(), nn.Flatten()),
        (nn.Flatten(),),
        (nn.ReLU(), nn.Flatten(), nn.Linear(72, 72, bias=False), nn.ReLU()),
        (nn.ReLU(), nn.Flatten(), nn.Linear(72, 72)),
    ],
)
def test_what_is_no_chain_goes_through_autograd(between: tuple[nn.Module, ...]) -> None:
    network, x = sequential(*between), torch.rand(2, 1, 8, 8, dtype=torch.float64)
    copied = inference_copy(network)()
    assert not is_chain(copied, x)
    assert_same(network, copied, x)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 10)

    @override
    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        logits: Tensor = self.last(functional.relu(self.first(flat)) + flat)
        return logits


class Forgetful(Residual):
    """Computes a layer that it does not use."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        functional.relu(self.first(flat))
        logits: Tensor = self.last(flat)
        return logits


@pytest.mark.parametrize("kind", [Residual, Forgetful])
def test_a_path_that_branches_is_no_chain(kind: type[nn.Module]) -> None:
    network, x = kind().double(), torch.rand(2, 1, 8, 8, dtype=torch.float64)
    assert not is_chain(inference_copy(network)(), x)
    assert_same(network, inference_copy(network)(), x)


@pytest.mark.parametrize(
    "norm", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm]
)
def test_a_weight_that_is_computed_is_computed_anew(norm: Callable[[nn.Module], nn.Module]) -> None:
    network, x = (
        nn.Sequential(nn.Flatten(), norm(nn.Linear(64, 10))).double(),
        torch.rand(2, 1, 8, 8, dtype=torch.float64),
    )
    current = inference_copy(network.eval())
    assert not is_chain(current(), x)
    for _ in range(2):
        assert_same(network, current(), x)
        with torch.no_grad():
            next(network.parameters()).mul_(1.5)


def test_a_hook_and_pixels_that_are_normalised_inside_are_not_passed_over() -> None:
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    normalised = build(ModelConfig(name="mlp", mean=(0.4,), std=(0.2,)), DIGITS).double()
    assert not is_chain(inference_copy(normalised)(), x)
    assert_same(normalised, inference_copy(normalised)(), x)
    hooked = sequential(nn.ReLU(), nn.Flatten())
    hooked.get_submodule("1").register_forward_hook(
        lambda module, inputs, output: output.clamp_max(0.1)
    )
    assert not is_chain(inference_copy(hooked)(), x)
    assert_same(hooked, inference_copy(hooked)(), x)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.Conv2d(2, 4, (3, 1), dilation=2, bias=False),
        nn.Conv2d(2, 4, 3, padding="same", groups=2),
        nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"),
    ],
)
def test_an_unrolled_convolution_is_the_convolution(layer: nn.Conv2d) -> None:
    network = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.LazyLinear(10)).double()
    x = torch.rand(3, 2, 8, 6, dtype=torch.float64)
    network(x)
    copied = inference_copy(network)()
    assert_same(network, copied, x)
    unrolled = copied.get_submodule("0")
    assert isinstance(unrolled, MatrixConvolution)
    assert unrolled.matrices[torch.Size([2, 8, 6])] is not None


def test_large_images_are_convolved() -> None:
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1)).double()
    unrolled = inference_copy(network)().get_submodule("0")
    assert isinstance(unrolled, MatrixConvolution)
    unrolled(torch.rand(1, 1, 8, 8, dtype=torch.float64))
    unrolled(torch.rand(1, 1, 9, 9, dtype=torch.float64))
    assert MATRIX_NUMBERS == 32768  # 64 x 512; of 81 x 648 there is no matrix
    assert {shape[1]: found is not None for shape, found in unrolled.matrices.items()} == {
        8: True,
        9: False,
    }


def test_a_first_call_without_gradients_does_not_spoil_the_matrices_for_an_attack() -> None:
    network = build(ModelConfig(name="small_cnn", width=2), DIGITS)
    frozen, x = fold(network), torch.rand(2, 1, 8, 8)
    with torch.inference_mode():
        frozen(x)
    gradient = by_autograd(frozen, x, torch.ones(2, 10))[1]
    assert torch.allclose(gradient, by_autograd(network, x, torch.ones(2, 10))[1], atol=1e-6)


def test_a_chain_is_asked_again_and_again_and_writes_over_nothing_that_it_gave_or_got() -> None:
    network = build(ModelConfig(name="mlp"), DIGITS).double()
    x, other = torch.rand(2, 3, 1, 8, 8, dtype=torch.float64)
    seen: list[Tensor] = []

    def look(logits: Tensor) -> Tensor:
        seen.append(logits)
        return logits

    gradient = closed_form_gradient(inference_copy(network)(), look, x)
    assert gradient is not None
    before, first = (x.clone(), other.clone()), gradient(x)
    kept, logits = first.clone(), seen[0].clone()
    assert not torch.allclose(gradient(other), first)
    assert torch.equal(gradient(x), first)
    assert torch.equal(first, kept)
    assert torch.equal(seen[0], logits)
    assert torch.equal(x, before[0])
    assert torch.equal(other, before[1])


def test_images_that_carry_a_graph_and_a_chain_without_hidden_layers_are_nothing_special() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert is_chain(inference_copy(network)(), x)
    assert_same(network, inference_copy(network)(), x)
    assert_same(network, inference_copy(network)(), 2 * x)
    assert x.grad is None


def test_in_half_precision_autograd_decides() -> None:
    network, x = (
        build(ModelConfig(name="mlp"), DIGITS),
        torch.rand(4, 1, 8, 8),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert closed_form_gradient(inference_copy(network)(), torch.ones_like, x) is None
    assert closed_form_gradient(inference_copy(network)(), torch.ones_like, x) is not None

"""An attack's gradient, written out for chains: the same numbers as autograd's through the live network, to 1e-12 in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from rkdsearch import models
from rkdsearch.models import ModelConfig, build, fold, twin, vjp
from rkdsearch.models.chain import MATRIX_NUMBERS, Unrolled, _chains


def by_autograd(network: Callable[[Tensor], Tensor], x: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    logits = network(x)
    return logits.detach(), torch.autograd.grad(logits, x, slope)[0]


def assert_same(live: nn.Module, frozen: nn.Module, x: Tensor) -> None:
    slope = torch.randn(len(x), 10, dtype=x.dtype)
    logits, pull_back = vjp(frozen, x)
    wanted = by_autograd(live.eval(), x, slope)
    assert not logits.requires_grad
    for found, right in zip((logits, pull_back(slope)), wanted, strict=True):
        assert found.shape == right.shape
        assert float((found - right).abs().max() / right.abs().max()) < 1e-12


def is_chain(network: nn.Module, x: Tensor) -> bool:
    return network in _chains and _chains[network].weights(x.shape[1:]) is not None


@pytest.mark.parametrize(
    ("name", "channels", "size", "chain"),
    [("mlp", 1, 8, True), ("mlp", 3, 32, True), ("small_cnn", 1, 8, True), ("small_cnn", 3, 32, False), ("resnet18", 1, 8, False)],
)
def test_logits_and_gradient_are_autograds(name: str, channels: int, size: int, chain: bool) -> None:
    width = {"width": 8} if name == "small_cnn" else {}
    network = build(ModelConfig.model_validate({"name": name, **width}), classes=10, channels=channels, size=size).double()
    x = torch.rand(5, channels, size, size, dtype=torch.float64)
    shadow = twin(network)()
    assert is_chain(shadow, x) == chain
    assert_same(network, shadow, x)
    assert_same(network, shadow, x.contiguous(memory_format=torch.channels_last))
    assert all(p.grad is None for p in network.parameters())


def test_a_chain_follows_training_without_being_built_again() -> None:
    network = build(ModelConfig(name="small_cnn", width=4), classes=10, channels=1, size=8).double()
    x, current = torch.rand(3, 1, 8, 8, dtype=torch.float64), twin(network)
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
    shadow = twin(network)()
    assert is_chain(shadow, x)
    assert_same(network, shadow, x)


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
    shadow = twin(network)()
    assert not is_chain(shadow, x)
    assert_same(network, shadow, x)


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
    assert not is_chain(twin(network)(), x)
    assert_same(network, twin(network)(), x)


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_a_weight_that_is_computed_is_computed_anew(norm: Callable[[nn.Module], nn.Module]) -> None:
    network, x = nn.Sequential(nn.Flatten(), norm(nn.Linear(64, 10))).double(), torch.rand(2, 1, 8, 8, dtype=torch.float64)
    current = twin(network.eval())
    assert not is_chain(current(), x)
    for _ in range(2):
        assert_same(network, current(), x)
        with torch.no_grad():
            next(network.parameters()).mul_(1.5)


def test_a_hook_and_pixels_that_are_normalised_inside_are_not_passed_over() -> None:
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    normalised = build(ModelConfig(name="mlp", mean=(0.4,), std=(0.2,)), classes=10, channels=1, size=8).double()
    assert not is_chain(twin(normalised)(), x)
    assert_same(normalised, twin(normalised)(), x)
    hooked = sequential(nn.ReLU(), nn.Flatten())
    hooked.get_submodule("1").register_forward_hook(lambda module, inputs, output: output.clamp_max(0.1))
    assert not is_chain(twin(hooked)(), x)
    assert_same(hooked, twin(hooked)(), x)


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
    shadow = twin(network)()
    assert_same(network, shadow, x)
    unrolled = shadow.get_submodule("0")
    assert isinstance(unrolled, Unrolled)
    assert unrolled.matrices[torch.Size([2, 8, 6])] is not None


def test_large_images_are_convolved() -> None:
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1)).double()
    unrolled = twin(network)().get_submodule("0")
    assert isinstance(unrolled, Unrolled)
    unrolled(torch.rand(1, 1, 8, 8, dtype=torch.float64))
    unrolled(torch.rand(1, 1, 9, 9, dtype=torch.float64))
    assert MATRIX_NUMBERS == 32768  # 64 x 512; of 81 x 648 there is no matrix
    assert {shape[1]: found is not None for shape, found in unrolled.matrices.items()} == {8: True, 9: False}


def test_a_first_call_without_gradients_does_not_spoil_the_matrices_for_an_attack() -> None:
    network = build(ModelConfig(name="small_cnn", width=2), classes=10, channels=1, size=8)
    frozen, x = fold(network), torch.rand(2, 1, 8, 8)
    with torch.inference_mode():
        frozen(x)
    gradient = by_autograd(frozen, x, torch.ones(2, 10))[1]
    assert torch.allclose(gradient, by_autograd(network, x, torch.ones(2, 10))[1], atol=1e-6)


def test_in_half_precision_autograd_decides_as_before() -> None:
    network, x = build(ModelConfig(name="mlp"), classes=10, channels=1, size=8), torch.rand(4, 1, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, pull_back = models.vjp(twin(network)(), x)
        wanted = by_autograd(twin(network)(), x, torch.ones(4, 10, dtype=torch.bfloat16))
    assert logits.dtype == torch.bfloat16
    assert torch.equal(pull_back(torch.ones_like(logits)), wanted[1])

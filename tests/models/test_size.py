import pytest
import torch
from torch import nn

from rkdsearch import models
from rkdsearch.models import ModelConfig, size_of
from rkdsearch.models.size import count
from tests.tasks import CIFAR10, DIGITS, square


def test_weights_and_multiply_adds_of_a_small_network_are_those_that_a_pencil_finds() -> None:
    found = size_of(ModelConfig(), DIGITS)
    assert found.parameters == (9 * 16 + 16) + (9 * 16 * 32 + 32) + (32 * 16 * 10 + 10)
    assert found.multiply_adds == 8 * 8 * 9 * 16 // 4 + 4 * 4 * 9 * 16 * 32 // 1 + 32 * 16 * 10


@pytest.mark.parametrize(("name", "millions"), [("resnet18", 555.4), ("mobilenet_v2", 91.2)])
def test_cifar_networks_cost_what_the_literature_counts(name: str, millions: float) -> None:
    assert size_of(ModelConfig(name=name), CIFAR10).multiply_adds == pytest.approx(
        millions * 1e6, rel=1e-3
    )


def test_a_depthwise_convolution_costs_its_own_channels_and_attention_its_products() -> None:
    depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
    assert count(depthwise, square(classes=10, channels=6, size=5)).multiply_adds == 6 * 9 * 5 * 5

    class Attention(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = x.flatten(2)  # (1, 4, 9)
            return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)

    assert count(Attention(), square(classes=10, channels=4, size=3)).multiply_adds == 2 * 4 * 4 * 9


def test_a_transformers_layer_is_counted_although_torch_fuses_it_in_eval_mode() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(
                d_model=4, nhead=2, dim_feedforward=8, batch_first=True
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x.flatten(2).mT)  # (1, 9, 4)

    tokens = 3 * 3
    in_projection, attention, out_projection, feed_forward = (
        tokens * 4 * 12,
        2 * tokens * tokens * 4,
        tokens * 4 * 4,
        2 * tokens * 4 * 8,
    )
    found = count(Layer(), square(classes=10, channels=4, size=3)).multiply_adds
    assert found == in_projection + attention + out_projection + feed_forward == 1800
    assert torch.backends.mha.get_fastpath_enabled(), "other code may rely on the fast path"


def test_counting_leaves_the_generator_and_the_networks_mode_alone() -> None:
    size_of.cache_clear()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    size_of(ModelConfig(width=3), DIGITS)
    assert torch.equal(torch.get_rng_state(), state)
    network = models.build(ModelConfig(name="resnet18"), CIFAR10)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    count(network, CIFAR10)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

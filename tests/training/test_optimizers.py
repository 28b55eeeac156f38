import copy
from typing import Any

import pytest
import torch
from torch import nn

from rkdsearch import models
from rkdsearch.config import OptimizerConfig
from rkdsearch.methods import Companion
from rkdsearch.models import ModelConfig
from rkdsearch.training.optimizers import build_optimizers
from rkdsearch.training.state import _restore_optimizer
from tests.tasks import square

SETTINGS: list[dict[str, Any]] = [
    {"name": "sgd", "momentum": 0.9},
    {"name": "sgd", "momentum": 0.9, "nesterov": True},
    {"name": "sgd", "momentum": 0.0},
    {"name": "adamw", "momentum": 0.8},
]


def plain(config: OptimizerConfig, network: nn.Module) -> torch.optim.Optimizer:
    """torch's own, as one would write it."""
    if config.name == "adamw":
        return torch.optim.AdamW(
            network.parameters(),
            config.lr,
            betas=(config.momentum, 0.999),
            weight_decay=config.weight_decay,
            foreach=False,
        )
    return torch.optim.SGD(
        network.parameters(),
        config.lr,
        config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
        foreach=False,
    )


def is_fused(optimizer: torch.optim.Optimizer) -> bool:
    return bool(optimizer.param_groups[0].get("fused"))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "settings", SETTINGS, ids=lambda settings: "-".join(map(str, settings.values()))
)
def test_the_fused_step_is_torchs_plain_step_also_where_a_gradient_comes_late(
    settings: dict[str, Any], memory_format: torch.memory_format
) -> None:
    torch.manual_seed(0)
    ours = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1), nn.Flatten(), nn.Linear(18, 5)
    ).double()
    ours.to(memory_format=memory_format)  # type: ignore[call-overload]  # torch's stub lacks it
    theirs = copy.deepcopy(ours)
    config = OptimizerConfig(lr=0.1, weight_decay=0.01, **settings)
    (optimizer,), reference = build_optimizers(config, ours, {}), plain(config, theirs)
    assert is_fused(optimizer)
    for step in range(4):
        x = torch.rand(6, 3, 5, 5, dtype=torch.float64).contiguous(memory_format=memory_format)
        for network, one in ((ours, optimizer), (theirs, reference)):
            one.zero_grad()
            network[0].requires_grad_(step > 1)
            network(x).square().sum().backward()
            one.step()
    for mine, wanted in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "name", ["resnet18", "preact_resnet18", "mobilenet_v2", "wide_resnet", "small_cnn", "mlp"]
)
def test_gradients_lie_in_memory_as_the_parameters_do_which_the_fused_kernel_takes_for_granted(
    name: str,
) -> None:
    config = ModelConfig.model_validate(
        {"name": name, **({"depth": 10, "width": 1} if name == "wide_resnet" else {})}
    )
    network = models.build(config, square(classes=3, channels=3, size=16)).to(
        memory_format=torch.channels_last
    )  # type: ignore[call-overload]
    network(torch.rand(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)).sum().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        kept = [
            (step, other)
            for size, step, other in zip(
                parameter.shape, parameter.stride(), parameter.grad.stride(), strict=True
            )
            if size > 1
        ]
        assert all(step == other for step, other in kept)


def test_a_parameter_with_gaps_in_its_memory_is_not_given_to_the_fused_kernel() -> None:
    network = nn.Linear(4, 3, bias=False)
    network.weight = nn.Parameter(torch.ones(3, 8)[:, ::2])
    (optimizer,) = build_optimizers(
        OptimizerConfig(lr=0.5, momentum=0.0, weight_decay=0.0), network, {}
    )
    network(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).sum().backward()
    optimizer.step()
    assert not is_fused(optimizer)
    assert network.weight.tolist() == [[0.5, 0.0, -0.5, -1.0]] * 3


def test_each_group_of_an_optimizer_has_its_own_settings_in_the_fused_kernel_too() -> None:
    torch.manual_seed(0)
    student, shared, own = (nn.Linear(2, 2) for _ in range(3))
    companions = {
        "shared": Companion(shared, settings={"momentum": 0.0, "weight_decay": 0.0}),
        "own": Companion(own, settings={"lr": 0.2}, own_optimizer=True),
    }
    before = [network.weight.detach().clone() for network in (student, shared, own)]
    first, second = build_optimizers(
        OptimizerConfig(lr=0.5, momentum=0.5, weight_decay=0.1), student, companions
    )
    assert is_fused(first)
    assert is_fused(second)
    for network in (student, shared, own):
        network.weight.grad, network.bias.grad = torch.ones(2, 2), torch.ones(2)
    for _ in range(2):
        first.step()
        second.step()

    def twice(weight: torch.Tensor, lr: float) -> torch.Tensor:
        one = 1 + 0.1 * weight
        moved = weight - lr * one
        return moved - lr * (0.5 * one + 1 + 0.1 * moved)

    assert torch.allclose(student.weight, twice(before[0], 0.5))
    assert torch.allclose(shared.weight, before[1] - 1)
    assert torch.allclose(own.weight, twice(before[2], 0.2))


def test_a_graph_from_before_a_step_is_refused_after_it() -> None:
    network = nn.Linear(1, 1, bias=False)
    (optimizer,) = build_optimizers(OptimizerConfig(), network, {})
    kept = network.weight.square().sum()
    torch.autograd.backward(network(torch.ones(1, 1)).sum())
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(kept)


def test_what_a_checkpoint_does_not_name_stays_as_a_fresh_optimizer_has_it() -> None:
    network = nn.Linear(2, 2)
    (optimizer,) = build_optimizers(
        OptimizerConfig(lr=1.0, momentum=0.5, weight_decay=0.0), network, {}
    )
    # the weight had no gradient yet
    _restore_optimizer(optimizer, {"1.momentum_buffer": torch.tensor([1.0, 2.0])})
    network.weight.grad, network.bias.grad = torch.ones(2, 2), torch.zeros(2)
    before = [p.detach().clone() for p in network.parameters()]
    optimizer.step()
    assert torch.equal(network.weight, before[0] - 1)
    assert torch.equal(network.bias, before[1] - torch.tensor([0.5, 1.0]))

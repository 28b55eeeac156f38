from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rkdsearch import models
from rkdsearch.models import ModelConfig, build, features, fold, inference_copy
from tests.foreign_networks import Awkward, Untraceable
from tests.tasks import square


def used(network: nn.Module) -> nn.Module:
    """Float64, in training mode, with BatchNorm statistics and weights as training leaves them."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            if module.running_mean is not None and module.running_var is not None:
                nn.init.normal_(module.running_mean, std=0.3)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
            if module.affine:
                nn.init.normal_(module.weight, 1.0, 0.3)
                nn.init.normal_(module.bias, 0.0, 0.3)
    return network.double().train()


def built(name: str, size: int = 8) -> nn.Module:
    shape = {"width": 1, "depth": 10} if name == "wide_resnet" else {}
    config = ModelConfig.model_validate(
        {"name": name, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25), **shape}
    )
    return used(build(config, square(classes=10, channels=3, size=size)))


def value_and_gradient(network: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    logits = network(x)
    (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    return logits.detach(), gradient


def assert_same(live: nn.Module, other: nn.Module, x: Tensor) -> None:
    """Value and input gradient in eval mode, to 1e-12 of the largest number."""
    was_training = live.training
    for wanted, found in zip(
        value_and_gradient(live.eval(), x), value_and_gradient(other, x), strict=True
    ):
        assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-12
    live.train(was_training)


def folds(network: nn.Module) -> int:
    return sum(isinstance(module, nn.Identity) for module in network.modules())


@pytest.mark.parametrize(
    ("name", "batchnorms"),
    [
        ("small_cnn", 0),
        ("mlp", 0),
        ("resnet18", 20),
        ("preact_resnet18", 8),
        ("wide_resnet", 3),
        ("mobilenet_v2", 57),
    ],
)
def test_the_inference_copy_gives_the_logits_of_the_network_in_eval_mode(
    name: str, batchnorms: int
) -> None:
    network, x = built(name), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    copied = inference_copy(network)()
    assert_same(network, copied, x)
    assert folds(copied) == batchnorms
    assert network.training
    assert not copied.training
    assert not any(p.requires_grad for p in copied.parameters())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert copied is not network
    assert features(copied, x).stages.keys() == features(network, x).stages.keys()


def test_the_inference_copy_follows_training_and_loading() -> None:
    network, x = built("wide_resnet"), torch.rand(4, 3, 8, 8, dtype=torch.float64)
    current = inference_copy(network)
    copied = current()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        network(x).square().mean().backward()
        optimizer.step()
        assert current() is copied
        assert_same(network, copied, x)
    network.load_state_dict(built("wide_resnet").state_dict())
    assert_same(network, current(), x)
    network.float()
    moved = current()
    assert moved is not copied
    assert {p.dtype for p in moved.parameters()} == {torch.float32}
    network.load_state_dict(used(built("wide_resnet")).state_dict(), assign=True)
    assert_same(network.double(), current(), x)


def test_the_inference_copy_shares_what_it_does_not_fold() -> None:
    network = built("wide_resnet")
    theirs = dict(inference_copy(network)().named_parameters())
    shared = {
        name
        for name, p in network.named_parameters()
        if name in theirs and theirs[name].data_ptr() == p.data_ptr()
    }
    assert {"fc.weight", "block1.layer.0.bn1.weight", "block1.layer.0.conv2.weight"} <= shared
    assert "block1.layer.0.conv1.weight" not in shared


def test_what_is_not_exact_is_not_folded() -> None:
    network, x = used(Awkward()), torch.rand(5, 1, 8, 8, dtype=torch.float64)
    copied = inference_copy(network)()
    assert folds(copied) == 1
    assert isinstance(copied.bn1, nn.Identity)  # linear1 -> bn1, without bias and without affine
    assert_same(network, copied, x)


def test_a_network_that_cannot_be_traced_is_copied_unfolded() -> None:
    network, x = used(Untraceable()), torch.rand(2, 1, 8, 8, dtype=torch.float64)
    copied = inference_copy(network)()
    assert folds(copied) == 0
    assert_same(network, copied, x)


def test_a_hooked_layer_is_not_folded() -> None:
    network = used(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 10))
    )
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    assert folds(inference_copy(network)()) == 1
    network[0].register_forward_hook(lambda module, inputs, output: output.clamp_min(0))
    copied = inference_copy(network)()
    assert folds(copied) == 0
    assert_same(network, copied, x)


@pytest.mark.parametrize(
    "norm", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm]
)
def test_reparametrised_layers_are_left_as_they_are(norm: Callable[[nn.Module], nn.Module]) -> None:
    network = used(
        nn.Sequential(norm(nn.Conv2d(1, 2, 3)), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 10))
    )
    copied = inference_copy(network)()
    assert folds(copied) == 0
    assert_same(network, copied, torch.rand(2, 1, 8, 8, dtype=torch.float64))


def test_the_live_networks_memory_format_is_kept() -> None:
    network = built("resnet18").to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own signature forgets it
    copied = inference_copy(network)()
    weight = copied.get_parameter("layer1.0.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def test_a_folded_teacher_gives_gradient_to_images_alone() -> None:
    teacher = built("resnet18").eval().requires_grad_(False)
    folded = fold(teacher)
    assert_same(teacher, folded, torch.rand(1, 3, 8, 8, dtype=torch.float64))
    assert folds(folded) == 20
    assert models.normalisation(folded) == models.normalisation(teacher)

"""The named inner problems: closed-form gradients equal autograd's, to 1e-12 in float64."""

from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from rkdsearch import models
from rkdsearch.attacks import LogitObjective, Network, input_gradient
from rkdsearch.methods import Student, inner, load
from rkdsearch.models import ModelConfig, build
from tests.methods.laws import Bench, TinyNet
from tests.tasks import square


def gradients(problem: LogitObjective, x: Tensor) -> tuple[Tensor, Tensor]:
    """In closed form, and by autograd through the values."""
    return input_gradient(problem, x), input_gradient(problem.__call__, x)


def assert_same(problem: LogitObjective, x: Tensor) -> None:
    found, wanted = gradients(problem, x)
    assert wanted.abs().max() > 0
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-12


@pytest.mark.parametrize("name", get_args(inner.Name))
def test_a_named_problem_has_one_gradient(name: inner.Name) -> None:
    step = Bench(load("rslad")(), dtype=torch.float64).step()
    with step.attacking():
        problem = inner.PROBLEMS[name](step)
        x = step.x + 0.01 * torch.randn_like(step.x)
        found = input_gradient(problem, x)
        wanted = input_gradient(lambda images: problem(images), x)  # noqa: PLW0108 - hides the slope
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-12


@pytest.mark.parametrize("temperature", [1.0, 4.0, 0.25])
@pytest.mark.parametrize("classes", [3, 16, 17, 100])
def test_imitation_at_any_temperature_and_number_of_classes(
    temperature: float, classes: int
) -> None:
    network = Student(nn.Sequential(nn.Flatten(), nn.Linear(16, classes)).double())
    x, target = (
        torch.rand(5, 1, 4, 4, dtype=torch.float64),
        3 * torch.randn(5, classes, dtype=torch.float64),
    )
    assert_same(inner.imitation(target, temperature=temperature).of(network), x)
    assert_same(inner.classification(torch.arange(5) % classes).of(network), x)


def test_the_clean_answer_of_the_student_is_asked_once_and_when_the_attack_begins() -> None:
    class Counting(Student):
        calls = 0

        @override
        def __call__(self, x: Tensor) -> Tensor:
            self.calls += x is step.x
            return super().__call__(x)

    student = Counting(TinyNet(4))
    step = Bench(load("trades")(), steps=5).step(student=student)
    problem = inner.student_clean(step)
    assert student.calls == 0
    step.maximize(problem)
    assert student.calls == 1


def test_logits_in_half_precision_get_a_slope_of_their_own_kind() -> None:
    class Half:
        def __call__(self, x: Tensor) -> Tensor:
            return x.flatten(1).bfloat16()

        def closed_form_gradient(self, slope: models.Slope, x: Tensor) -> None:
            """No chain."""

    network: Network = Half()
    x = torch.rand(2, 1, 2, 2)
    gradient = input_gradient(inner.classification(torch.tensor([0, 3])).of(network), x)
    assert gradient.dtype == torch.float32
    assert torch.allclose(gradient.flatten(1).sum(dim=1), torch.zeros(2), atol=0.02)


@pytest.mark.parametrize(("name", "forwards"), [("small_cnn", 1), ("mlp", 1), ("wide_resnet", 2)])
def test_one_forward_takes_several_batches_where_images_are_independent(
    name: str, forwards: int
) -> None:
    shape = {"width": 1, "depth": 10} if name == "wide_resnet" else {}
    network = build(
        ModelConfig.model_validate({"name": name, **shape}), square(classes=3, channels=1, size=8)
    ).double()
    calls: list[int] = []
    network.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    x, other = (
        torch.rand(4, 1, 8, 8, dtype=torch.float64),
        torch.rand(2, 1, 8, 8, dtype=torch.float64),
    )
    found = Student(network).logits(x, other)
    assert len(calls) == forwards
    for logits, images in zip(found, (x, other), strict=True):
        assert (logits - network(images)).abs().max() < 1e-12


def test_who_inherits_from_an_independent_network_has_not_said_so_of_itself() -> None:
    class Normalised(models.MLP):
        def features(self, x: Tensor) -> models.Features:
            return super().features(x - x.mean(dim=0))  # looks at the batch

    network = Normalised(square(classes=3, channels=1, size=8)).double()
    x, other = (
        torch.rand(4, 1, 8, 8, dtype=torch.float64),
        torch.rand(2, 1, 8, 8, dtype=torch.float64),
    )
    for logits, images in zip(Student(network).logits(x, other), (x, other), strict=True):
        assert torch.equal(logits, network(images))


@pytest.mark.parametrize(("name", "copies"), [("small_cnn", 1), ("wide_resnet", 0)])
def test_an_attack_in_train_mode_uses_the_inference_copy_where_the_mode_makes_no_difference(
    name: str, copies: int
) -> None:
    shape = {"width": 1, "depth": 10} if name == "wide_resnet" else {}
    network = build(
        ModelConfig.model_validate({"name": name, **shape}), square(classes=3, channels=1, size=8)
    )
    current, asked = models.inference_copy(network), []

    def counted() -> nn.Module:
        asked.append(1)
        return current()

    with Student(network, counted).under_attack("train"):
        pass
    assert len(asked) == copies

import math

import pytest
import torch
from torch import Tensor, nn

from rkdsearch.attacks import L2, Linf
from rkdsearch.attacks.image_noise import ImageNoise
from rkdsearch.evaluation.attacks import PlannedAttack, targeted_attack
from tests.attacks.test_autoattack import images, network_of

NAMES = ("pgd20", "pgd100", "margin", "targeted", "square", "autoattack", "transfer")


def attacked(name: str, network: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """x' of the attack's first part."""
    classes = network(x).shape[1]
    plan = PlannedAttack(name, "linf", eps, sources=("other",))  # type: ignore[arg-type]
    return plan.parts(network, classes, 0, {"other": lambda: network})[0].attacked(x, y)


def plain_pgd(network: nn.Module, x: Tensor, y: int, start: Tensor, eps: float) -> Tensor:
    """20 steps of eps / 4 along the sign of the cross-entropy's gradient, one image."""
    x_adv = start.clone()
    for _ in range(20):
        x_adv.requires_grad_()
        loss = nn.functional.cross_entropy(network(x_adv[None]), torch.tensor([y]))
        (gradient,) = torch.autograd.grad(loss, x_adv)
        moved = x_adv.detach() + eps / 4 * gradient.sign()
        x_adv = torch.minimum(torch.maximum(moved, x - eps), x + eps).clamp(0, 1)
    return x_adv


def test_pgd20_is_the_plain_one_image_by_image() -> None:
    network, _ = network_of(5)
    x, y = images(network, 12)
    found = attacked("pgd20", network, x, y, 0.05)
    start = (x + 0.05 * ImageNoise((0, "pgd20", 1)).uniform(x)).clamp(0, 1)
    for i in range(12):
        expected = plain_pgd(network, x[i], int(y[i]), start[i], 0.05)
        torch.testing.assert_close(found[i], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("square", "autoattack")])
def test_an_image_is_attacked_alike_in_any_batch_and_stays_in_the_ball(name: str) -> None:
    network, _ = network_of(4)
    x, y = images(network, 7)
    together, some = attacked(name, network, x, y, 0.05), torch.tensor([6, 3])
    apart = attacked(name, network, x[some], y[some], 0.05)
    torch.testing.assert_close(apart, together[some], atol=1e-5, rtol=0)
    assert float((together - x).abs().max()) <= 0.05 + 1e-6
    assert 0 <= float(together.min()) <= float(together.max()) <= 1


@pytest.mark.parametrize("ball", [Linf(0.3), L2(1.5)], ids=["linf", "l2"])
def test_the_targeted_attack_raises_the_class_of_its_rank_above_the_label(
    ball: Linf | L2,
) -> None:
    network, _ = network_of(6)
    x, y = images(network, 16)
    ranked, rows = network(x).argsort(dim=1, descending=True), torch.arange(16)
    for rank in (1, 5):
        z, target = network(targeted_attack(ball, network, 0, rank, x, y)), ranked[:, rank]
        assert int((z[rows, target] > z[rows, y]).sum()) >= 12


def test_parts_are_one_a_start_a_target_or_a_source() -> None:
    network, _ = network_of(3)

    def parts(name: str, **more: object) -> list[str]:
        plan = PlannedAttack(name, "linf", 0.1, **more)  # type: ignore[arg-type]
        sources = {"teacher (ab)": lambda: network}
        return [part.name for part in plan.parts(network, 3, 0, sources)]

    assert parts("clean") == []
    assert parts("pgd20", restarts=2) == ["start 1", "start 2"]
    assert parts("targeted") == ["target 1", "target 2"]
    assert parts("square") == ["square"]
    assert parts("autoattack") == [
        "apgd-ce", "apgd-t 1", "apgd-t 2", "fab-t 1", "fab-t 2", "square",
    ]  # fmt: skip
    assert parts("transfer", sources=("teacher (ab)",)) == ["made on teacher (ab)"]


def test_rows_have_the_attack_in_full() -> None:
    few, many = (PlannedAttack("autoattack", "linf", 0.1).settings(k) for k in (3, 100))
    assert (few["targets"], few["loss of apgd-t"]) == (2, "margin, because DLR needs 4 classes")
    assert (many["targets"], many["loss of apgd-t"], many["queries"]) == (9, "DLR", 5000)
    pgd = PlannedAttack("pgd100", "linf", 0.1).settings(10)
    assert (pgd["steps"], pgd["restarts"]) == (100, 1)
    assert math.isclose(pgd["step_size"], 0.025)
    made = PlannedAttack("transfer", "linf", 0.1, sources=("teacher (ab)",)).settings(10)
    assert made["made on"] == ["teacher (ab)"]

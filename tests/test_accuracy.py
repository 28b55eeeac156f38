import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from rkdsearch import config as configs
from rkdsearch.accuracy import (
    BATCH,
    ByClass,
    ImageResults,
    allow_tf32,
    attacked_images,
    evaluate_accuracy,
)
from rkdsearch.attacks import Attack, Linf, MarginAttack
from rkdsearch.errors import OutOfMemoryError
from rkdsearch.training.trainer import Trainer


class Threshold(nn.Module):
    """Class 1 where the pixel is above a half.

    An image is robust where it is further from a half than eps.
    """

    @override
    def forward(self, x: Tensor) -> Tensor:
        pixel = x.flatten(1).mean(dim=1)
        return torch.stack([0.5 - pixel, pixel - 0.5], dim=1) * 10


def images(*pixels: float) -> Tensor:
    return torch.tensor(pixels).reshape(-1, 1, 1, 1)


ATTACK = Attack(Linf(0.1), steps=10, step_size=0.025)


def test_every_image_has_its_own_result() -> None:
    x, y = images(0.9, 0.55, 0.45, 0.1, 0.9), torch.tensor([1, 1, 0, 0, 0])
    results, reliability = evaluate_accuracy(Threshold(), x, y, ATTACK)
    assert results.clean.tolist() == [True, True, True, True, False]
    assert results.robust.tolist() == [True, False, False, True, False]
    assert (results.clean_accuracy, results.robust_accuracy) == pytest.approx((0.8, 0.4))
    assert reliability is None


def test_the_worst_class_is_the_lowest_robust_share_of_any_class_that_has_images() -> None:
    y = torch.tensor([0, 0, 0, 0, 2, 2, 5])  # classes 1, 3 and 4 have none
    robust = torch.tensor([True, True, True, False, True, False, True])
    assert ImageResults(y, torch.ones(7, dtype=torch.bool), robust).worst_class_accuracy == 0.5


def test_balanced_accuracy_counts_every_class_as_much_however_few_its_images() -> None:
    y = torch.tensor([0, 0, 0, 0, 0, 0, 2, 2])
    clean = torch.tensor([1, 1, 1, 1, 1, 1, 1, 0]).bool()
    robust = torch.tensor([1, 1, 1, 0, 0, 0, 0, 0]).bool()
    found = ImageResults(y, clean, robust)
    assert found.by_class == ByClass(clean=(1.0, None, 0.5), robust=(0.5, None, 0.0))
    assert (found.clean_accuracy, found.by_class.balanced_clean) == (0.875, 0.75)
    assert (found.robust_accuracy, found.by_class.balanced_robust) == (0.375, 0.25)


def test_a_teacher_is_right_on_x_adv_or_on_x_alone_or_on_neither_and_rarely_on_x_adv_alone() -> (
    None
):
    x, y = images(0.9, 0.55, 0.9, 0.2), torch.tensor([1, 1, 1, 0])
    answers = iter([torch.tensor([1, 1, 0, 1]), torch.tensor([1, 0, 0, 0])])  # on x, then on x'
    _, reliability = evaluate_accuracy(
        Threshold(), x, y, ATTACK, teacher=lambda _: nn.functional.one_hot(next(answers), 2)
    )
    assert reliability is not None
    assert (
        reliability.right_on_adversarial,
        reliability.right_on_clean_only,
        reliability.wrong_on_both,
    ) == (0.5, 0.25, 0.25)


def test_the_results_do_not_depend_on_how_many_share_the_work() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    x, y = torch.rand(2 * BATCH + 77, 1, 2, 2), torch.randint(3, (2 * BATCH + 77,))
    attack = Attack(Linf(0.05), steps=2, step_size=0.02)
    whole, shares = evaluate_accuracy(network, x, y, attack, restarts=2, seed=3, teacher=network)
    kept: list[list[Tensor]] = []
    for rank in range(2):
        counts: list[Tensor] = []
        evaluate_accuracy(
            network,
            x,
            y,
            attack,
            restarts=2,
            seed=3,
            teacher=network,
            rank=rank,
            processes=2,
            sum_over_processes=lambda c, to=counts: to.append(c) or c,
        )
        kept.append(counts)
    clean, robust, cases = (a + b for a, b in zip(*kept, strict=True))
    assert torch.equal(clean.bool(), whole.clean)
    assert torch.equal(robust.bool(), whole.robust)
    assert shares is not None
    assert (cases.double() / len(x)).tolist() == [
        shares.right_on_adversarial,
        shares.right_on_clean_only,
        shares.wrong_on_both,
    ]
    assert 0 < whole.robust_accuracy < whole.clean_accuracy < 1


class Small(nn.Module):
    """Holds at most so many images at once, and counts them."""

    def __init__(self, room: int, error: Exception) -> None:
        super().__init__()
        self.room, self.error, self.seen = room, error, list[int]()

    @override
    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        if len(x) > self.room:
            raise self.error
        pixel = x.flatten(1).mean(dim=1)
        return torch.stack([0.5 - pixel, pixel - 0.5], dim=1) * 10


FULL = {
    "a GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "a GPU's library": RuntimeError(
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    ),
    "a CPU": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory:"
        " you tried to allocate 8 bytes."
    ),
}


@pytest.mark.parametrize("where", FULL)
def test_a_batch_that_the_device_cannot_hold_is_evaluated_in_parts_from_the_same_starts(
    where: str,
) -> None:
    torch.manual_seed(0)
    x, y = torch.rand(2 * BATCH + 7, 1, 2, 2), torch.randint(2, (2 * BATCH + 7,))
    attack = Attack(Linf(0.3), steps=1, step_size=0.01)
    whole, shares = evaluate_accuracy(
        Threshold(), x, y, attack, restarts=2, seed=3, teacher=Threshold()
    )
    small = Small(100, FULL[where])
    parts, their_shares = evaluate_accuracy(
        small, x, y, attack, restarts=2, seed=3, teacher=Threshold()
    )
    assert torch.equal(parts.robust, whole.robust)
    assert torch.equal(parts.clean, whole.clean)
    assert their_shares == shares
    assert 0 < whole.robust_accuracy < whole.clean_accuracy
    # what was too much once is not tried again
    assert [n for n in small.seen if n > 100] == [250, 125]
    assert max(n for n in small.seen if n <= 100) == 63


def test_one_image_that_the_device_cannot_hold_blames_no_setting_of_training() -> None:
    text = (
        "^the evaluation: the device is out of memory with one image at a time; does"
        " another program use"
        " it\\?$"
    )
    with pytest.raises(OutOfMemoryError, match=text):
        evaluate_accuracy(
            Small(0, FULL["a GPU"]), images(0.9, 0.1, 0.3), torch.tensor([1, 0, 0]), ATTACK
        )


def test_another_error_is_no_want_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        evaluate_accuracy(
            Small(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied")),
            images(0.9),
            torch.tensor([1]),
            ATTACK,
        )


def test_the_evaluation_is_ieee_fp32_whatever_training_may_do() -> None:
    seen = []

    class Looking(Threshold):
        @override
        def forward(self, x: Tensor) -> Tensor:
            seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
            return super().forward(x)

    try:
        for allowed in (True, False):
            allow_tf32(allowed=allowed)
            evaluate_accuracy(Looking(), images(0.9), torch.tensor([1]), ATTACK)
            assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (
                allowed,
                allowed,
            )
    finally:
        allow_tf32(allowed=False)
    assert set(seen) == {(False, False)}


def test_another_restart_can_only_break_more_images() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    x, y = torch.rand(BATCH, 1, 2, 2), torch.randint(3, (BATCH,))
    attack = Attack(Linf(0.1), steps=1, step_size=0.02)
    one, _ = evaluate_accuracy(network, x, y, attack, seed=1)
    five, _ = evaluate_accuracy(network, x, y, attack, restarts=5, seed=1)
    assert not (five.robust & ~one.robust).any()
    assert five.robust.sum() < one.robust.sum()


def test_the_same_seed_is_the_same_attack_and_another_seed_another() -> None:
    x, y = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 0, 1])
    attack = Attack(Linf(0.1), steps=0, step_size=0.0)
    first, second, third = (
        attacked_images(Threshold(), attack, x, y, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


class Gain(nn.Module):
    """A network whose logits are multiplied: the same predictions, other gradients."""

    def __init__(self, network: nn.Module, gain: float) -> None:
        super().__init__()
        self.network, self.gain = network, gain

    @override
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return self.gain * logits


@pytest.fixture(scope="module")
def natural() -> tuple[nn.Module, Tensor, Tensor]:
    """A naturally trained network, and 60 validation images with their labels."""
    config = configs.build(
        {
            "method": {"name": "natural"},
            "data": {"name": "digits", "train_images": 600},
            "student": {"name": "small_cnn", "width": 8},
            "optimizer": {"lr": 0.1},
            "validation": {"attack": {"eps": 0.1, "steps": 1}, "every": 10},
            "training": {"epochs": 10, "batch_size": 50, "device": "cpu"},
        }
    )
    trainer = Trainer(config)
    assert [epoch.epoch for epoch in trainer.epochs()][-1] == 10
    images = trainer.splits.validation.take(torch.arange(60))
    return trainer.student.eval().requires_grad_(False), *images.floats(slice(None))


@pytest.mark.parametrize("gain", [1e-4, 1e3, 1e6])
def test_large_or_small_logits_do_not_mislead_the_margin_attack(
    natural: tuple[nn.Module, Tensor, Tensor], gain: float
) -> None:
    network, x, y = natural
    attack = MarginAttack(Linf(0.15), steps=10)
    plain, _ = evaluate_accuracy(network, x, y, attack)
    masked, _ = evaluate_accuracy(Gain(network, gain), x, y, attack)
    assert plain.clean_accuracy > 0.8
    assert plain.robust_accuracy < 0.2
    assert torch.equal(masked.robust, plain.robust)


def test_large_logits_mislead_the_papers_pgd(natural: tuple[nn.Module, Tensor, Tensor]) -> None:
    network, x, y = natural
    attack = Attack(Linf(0.15), steps=10, step_size=0.0375)
    plain, _ = evaluate_accuracy(network, x, y, attack)
    masked, _ = evaluate_accuracy(Gain(network, 1e3), x, y, attack)
    assert plain.robust_accuracy < 0.3
    assert masked.robust_accuracy > plain.robust_accuracy + 0.3

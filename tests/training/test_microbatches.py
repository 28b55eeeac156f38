"""A batch in parts equals the batch, for methods whose loss does not couple images."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rkdsearch import data, methods
from rkdsearch.training.microbatches import parts
from rkdsearch.training.trainer import Trainer
from tests.training.runs import described, state, train

JOINED = {  # what a part cannot know of the others
    "bmtard": "as mtard",
    "ciard": "the push is a mean over some images, scaled by the order of magnitude of means",
    "crdnd": "images are told apart from the others of the batch",
    "mtard": "its loss weights follow the batch's losses, and come one batch late",
    "saad": "images count by the teacher's entropy above the batch's least",
}


START = {"cgard": "none"}  # it draws twice for every part


def moved(teachers: Path, name: str, microbatches: int, **overrides: Any) -> dict[str, Tensor]:
    """State after four steps of 25 images, in float64; parts share the noise."""
    training = {
        "epochs": 1,
        "precision": "fp64",
        "channels_last": False,
        "microbatches": microbatches,
    }
    overrides["training"] = training | overrides.get("training", {})
    return state(
        train(
            described(
                teachers, name, attack={"start": START.get(name, "uniform_clipped")}, **overrides
            )
        )
    )


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("name", sorted(set(methods.names()) - set(JOINED)))
def test_a_batch_in_four_parts_is_the_batch(teachers: Path, name: str) -> None:
    assert apart(moved(teachers, name, 1), moved(teachers, name, 4)) < 1e-9


@pytest.mark.parametrize("name", sorted(JOINED))
def test_no_method_that_joins_images_is_believed_not_to(teachers: Path, name: str) -> None:
    assert apart(moved(teachers, name, 1), moved(teachers, name, 4)) > 1e-9, (
        f"{name} is the same in parts: strike it from the list"
    )


@pytest.mark.parametrize("name", ["mtard", "bmtard"])
def test_weights_that_follow_the_losses_move_once_a_batch_by_all_of_its_images(
    teachers: Path, name: str
) -> None:
    # every batch meets the same student
    still = {"optimizer": {"lr": 1e-30, "momentum": 0.0}, "schedule": {"name": "constant"}}
    whole, parts = moved(teachers, name, 1, **still), moved(teachers, name, 4, **still)
    memory = {key: value for key, value in whole.items() if key.startswith("memory.")}
    assert set(memory) >= {"memory.weights", "memory.first_losses"}
    assert all(float((parts[key] - value).abs().max()) < 1e-9 for key, value in memory.items())
    assert {key for key in parts if key.startswith("memory.")} == set(memory)
    assert float((memory["memory.weights"] - 0.5).abs().max()) > 1e-5


def test_a_batch_in_parts_meets_the_weights_that_the_batch_before_it_left(teachers: Path) -> None:
    def weights(microbatches: int) -> list[float]:
        """The mean of each step's weight of the adversarial loss, by the loss's own term."""
        run = Trainer(
            described(
                teachers,
                "mtard",
                attack={"start": "none"},
                training={"precision": "fp64", "microbatches": microbatches},
            )
        )
        running, found = run._step, list[float]()

        def step(*given: Any) -> tuple[Tensor, dict[str, Tensor]]:
            loss, terms = running(*given)
            found.append(float(terms["adversarial_weight"]))
            return loss, terms

        run._step = step  # type: ignore[method-assign]
        next(run.epochs())
        return found

    whole, parts = weights(1), weights(5)
    assert whole[0] == parts[0] == 0.5
    assert parts[1] == pytest.approx(0.5, abs=1e-12)
    # the students are no longer the same, but nearly
    assert parts[2] == pytest.approx(whole[1], abs=1e-6)
    assert parts[2] != pytest.approx(0.5, abs=1e-6)


def test_fixed_weights_leave_nothing_that_comes_late(teachers: Path) -> None:
    rate = {"method": {"balance_rate": 0.0}}
    assert apart(moved(teachers, "bmtard", 1, **rate), moved(teachers, "bmtard", 4, **rate)) < 1e-9


def test_no_part_has_a_single_image_unless_the_batch_has() -> None:
    def sizes(images: int, count: int) -> list[tuple[int, float]]:
        batch = data.Batch(torch.zeros(images, 1, 8, 8), torch.zeros(images), torch.arange(images))
        return [(len(part.y), share) for part, share in parts(batch, count)]

    assert sizes(25, 4) == [(7, 0.28), (6, 0.24), (6, 0.24), (6, 0.24)]
    assert sizes(5, 4) == [(3, 0.6), (2, 0.4)]
    assert sizes(3, 4) == [(3, 1.0)]
    assert sizes(1, 4) == [(1, 1.0)]


@pytest.mark.parametrize(("images", "microbatches"), [(42, 1), (44, 3)])
def test_what_is_left_over_of_an_epoch_does_not_break_batchnorm(
    teachers: Path, images: int, microbatches: int
) -> None:
    training = {"batch_size": 41, "microbatches": microbatches, "epochs": 1}
    one_pixel = {"name": "tests.training.networks.OnePixel"}
    run = described(
        teachers, "natural", data={"train_images": images}, training=training, student=one_pixel
    )
    assert [epoch.epoch for epoch in Trainer(run).epochs()] == [1]

"""Teachers, their logits and images: what a process keeps from run to run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rkdsearch.data import datasets
from rkdsearch.errors import OutOfMemoryError
from rkdsearch.models.small_cnn import SmallCNN
from rkdsearch.training import process_cache, setup
from rkdsearch.training.process_cache import CACHE
from rkdsearch.training.trainer import Trainer
from tests.training.runs import (
    FLOAT64,
    TINY,
    assert_equal,
    described,
    numbers,
    state,
    teacher_file,
    train,
)

OTHERS: dict[str, dict[str, Any]] = {
    "another layout": {"training": {"channels_last": False}},
    "another precision": {"training": {"precision": "fp64"}},
    "another seed": {"training": {"seed": 7}},
    "a companion that copies the teacher": {"method": {"name": "ciard"}},
    "a peer": {"method": {"name": "peeraid"}},
    "averages": {"averaging": {"name": "swa", "start": 0.0}, **TINY},
}


def test_logits_that_are_known_change_nothing(
    teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = described(teachers, "mtard", training=FLOAT64)
    remembering = train(config)
    assert {role: logits.shape for role, logits in remembering._teacher_logits.items()} == {
        "robust": (100, 10),
        "natural": (100, 10),
    }
    monkeypatch.setattr(setup, "known_logits", lambda *_: {})
    asking = train(config)
    for name, tensor in state(asking).items():
        torch.testing.assert_close(state(remembering)[name], tensor, rtol=0, atol=1e-12)


def test_no_logits_are_known_of_augmented_images(teachers: Path) -> None:
    assert Trainer(described(teachers, data={"augment": "crop"}))._teacher_logits == {}


def test_images_and_teachers_are_read_once_a_process(
    teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Trainer(described(teachers))
    monkeypatch.setattr(
        process_cache, "load_teacher", lambda *_, **__: pytest.fail("a teacher was read again")
    )
    monkeypatch.setattr(datasets, "_digits", lambda _: pytest.fail("images were read again"))
    second = Trainer(described(teachers, optimizer={"lr": 0.5}))
    assert second.teachers["robust"] is first.teachers["robust"]
    assert second._teacher_logits["robust"] is first._teacher_logits["robust"]


def test_other_pixels_with_the_same_labels_get_logits_of_their_own(teachers: Path) -> None:
    first = Trainer(described(teachers))
    images = first.splits.train
    darker = replace(images, pixels=images.pixels // 2)
    second = Trainer(described(teachers), splits=replace(first.splits, train=darker))
    with torch.no_grad():
        x, _ = darker.floats(slice(0, 100))
        wanted = second.teachers["robust"](x)
    torch.testing.assert_close(second._teacher_logits["robust"], wanted)
    assert not torch.equal(first._teacher_logits["robust"], wanted)


def test_a_teachers_file_that_was_replaced_is_read_again(teachers: Path, tmp_path: Path) -> None:
    path = teacher_file(tmp_path / "robust.safetensors", seed=5)
    config = described(teachers, teachers={"robust.path": str(path)})
    before = train(config)
    teacher_file(path, seed=6)
    assert train(config).history[0].loss != before.history[0].loss


@pytest.mark.parametrize("other", OTHERS)
def test_a_run_is_the_same_whatever_this_process_ran_before(teachers: Path, other: str) -> None:
    config = described(teachers, "mtard")
    datasets.forget_images()
    CACHE.clear()
    alone = train(config)
    datasets.forget_images()
    CACHE.clear()
    overrides = OTHERS[other]
    train(
        described(
            teachers,
            overrides.get("method", "mtard"),
            **{k: v for k, v in overrides.items() if k != "method"},
        )
    )
    torch.rand(3)
    after = train(config)
    assert_equal(state(alone), state(after))
    assert numbers(alone.history) == numbers(after.history)


def test_each_layout_has_a_teacher_of_its_own(teachers: Path) -> None:
    usual, other = (
        Trainer(described(teachers)),
        Trainer(described(teachers, training={"channels_last": False})),
    )
    assert usual.teachers["robust"] is not other.teachers["robust"]
    assert (
        next(usual.teachers["robust"].parameters()).data_ptr()
        != next(other.teachers["robust"].parameters()).data_ptr()
    )


def test_with_extra_images_no_logits_are_known_beforehand(teachers: Path) -> None:
    run = Trainer(described(teachers))
    assert set(run._teacher_logits) == {"robust"}
    # Extra images are drawn anew for every batch: there is no row to look their logits up in.
    run.splits = replace(run.splits, extra=run.splits.validation)
    assert setup.known_logits(run.config, run.splits, run.teachers) == {}


def test_logits_that_the_device_cannot_hold_together_are_computed_in_parts(
    teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, asked, room = described(teachers), [], [30]
    whole = Trainer(config)._teacher_logits["robust"]
    forward = SmallCNN.forward

    def small(self: Any, x: torch.Tensor) -> torch.Tensor:
        asked.append(len(x))
        if len(x) > room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x)

    monkeypatch.setattr(SmallCNN, "forward", small)
    CACHE.clear()
    torch.testing.assert_close(Trainer(config)._teacher_logits["robust"], whole)
    assert asked == [100, 50, 25, 25, 25, 25]
    CACHE.clear()
    room[0] = 0
    with pytest.raises(
        OutOfMemoryError,
        match=(
            "a teacher's logits for the training images: the device is out of memory with one"
            " image at"
        ),
    ):
        Trainer(config)

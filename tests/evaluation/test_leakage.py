from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rkdsearch import config as run
from rkdsearch.data import write_images
from rkdsearch.evaluation import leakage
from rkdsearch.evaluation.images import EvaluatedImages, ImageSet, evaluated_images
from rkdsearch.evaluation.leakage import seen_before, warning
from rkdsearch.evaluation.targets import EvaluationTarget
from tests.data.files import pictures
from tests.evaluation.files import VALUES, digits
from tests.tasks import DIGITS

LABELS = np.arange(40) % 2


def network(name: str) -> EvaluationTarget:
    config = run.build(VALUES | {"data.name": name})
    return EvaluationTarget("t00000", "", config, Path(), "", DIGITS)


def images(pixels: np.ndarray) -> EvaluatedImages:
    labels = LABELS[: len(pixels)]
    found = ImageSet("mine", labels, ("0", "1"), 255.0, lambda rows: pixels[rows], "test")
    return evaluated_images(found, None, seed=0)


def test_images_that_were_trained_or_chosen_on_are_counted(tmp_path: Path) -> None:
    known, new = pictures(40, 8, 1), pictures(30, 8, 1, seed=1)
    own = pictures(8, 8, 1, seed=2)
    name = write_images(
        tmp_path, (known, LABELS), validation=(own, LABELS[:8]), test=(new, LABELS[:30])
    )
    assert seen_before(images(new), network(name)) == ""
    mixed = np.concatenate([new[:20], known[:7], own[:3]])
    found = images(mixed)
    assert warning(found) == ""
    assert warning(replace(found, seen=seen_before(found, network(name)))) == (
        "WARNING: mine: of 30 images 7 are training images and 3 are validation images of these"
        " networks, bit for bit, and say nothing about new ones; take them out of one side"
    )


def test_training_images_are_read_once_for_all_image_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write_images(tmp_path, (pictures(40, 8, 1), LABELS))
    read, whole = [], leakage._images
    monkeypatch.setattr(leakage, "_images", lambda own: read.append(len(own)) or whole(own))
    for seed in range(3):
        assert seen_before(images(pictures(10, 8, 1, seed=5 + seed)), network(name)) == ""
    assert sum(read) == 40  # training and validation images


@pytest.mark.parametrize("name", ["digits", "parquet:nowhere"])
def test_other_images_and_those_that_are_gone_say_nothing(name: str) -> None:
    assert seen_before(digits(), network(name)) == ""
    other = replace(digits().pixels, scale=255.0)
    assert seen_before(replace(digits(), pixels=other), network(name)) == ""

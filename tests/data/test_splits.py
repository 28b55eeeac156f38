"""Splits: disjoint, complete, stratified, and the same on every machine."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rkdsearch.data.images import Images
from rkdsearch.data.splits import (
    divide,
    fingerprint,
    pixel_hash,
    stratified_sample,
    stratified_subset,
)
from rkdsearch.errors import DataError

class_sizes = st.lists(st.integers(2, 40), min_size=1, max_size=8)


def labels_of(sizes: list[int]) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))


@settings(deadline=None)
@given(sizes=class_sizes, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 1000))
def test_every_image_is_in_one_split_and_every_class_in_both(
    sizes: list[int], fraction: float, seed: int
) -> None:
    labels = labels_of(sizes)
    pool = np.arange(100, 100 + len(labels))
    everywhere = np.concatenate([np.full(100, 99), labels])
    possible = len(sizes) <= round(fraction * len(labels)) <= len(labels) - len(sizes)
    if not possible:
        with pytest.raises(DataError, match=r"data\.validation_fraction: "):
            divide(everywhere, pool, fraction=fraction, seed=seed)
        return
    train, validation = divide(everywhere, pool, fraction=fraction, seed=seed)
    assert sorted([*train, *validation]) == list(pool)
    assert len(validation) == round(fraction * len(labels))
    assert set(everywhere[train]) == set(everywhere[validation]) == set(labels)


@settings(deadline=None)
@given(sizes=class_sizes, seed=st.integers(0, 1000), data=st.data())
def test_classes_are_drawn_in_proportion(sizes: list[int], seed: int, data: st.DataObject) -> None:
    labels = labels_of(sizes)
    count = data.draw(st.integers(len(sizes), len(labels)))
    drawn = np.bincount(
        labels[stratified_sample(labels, count, seed=seed, keep=0, field="")], minlength=len(sizes)
    )
    assert drawn.sum() == count
    fair = count * np.array(sizes) / len(labels)
    if fair.min() >= 1:  # otherwise one image of each class takes from the others
        assert np.abs(drawn - fair).max() < 1.5


def test_5000_of_each_class_give_500_to_validation() -> None:
    labels = np.tile(np.arange(10), 5000)
    _, validation = divide(labels, np.arange(50_000), fraction=0.1, seed=0)
    assert np.bincount(labels[validation]).tolist() == [500] * 10


def test_the_seed_decides_which_images_are_held_out() -> None:
    labels = np.tile(np.arange(2), 50)
    first, again, other = (
        divide(labels, np.arange(100), fraction=0.2, seed=seed)[1].tolist() for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_what_cannot_be_divided_says_so() -> None:
    with pytest.raises(
        DataError,
        match=(
            r"data\.validation_fraction: class 1 has 1 images, but every split needs at least one"
        ),
    ):
        divide(np.array([0, 0, 0, 1]), np.arange(4), fraction=0.5, seed=0)
    with pytest.raises(
        DataError,
        match=(
            r"data\.train_images: 3 of 20 images were asked for, but 10 classes .* allow 10 to 20"
        ),
    ):
        stratified_sample(np.tile(np.arange(10), 2), 3, seed=0, keep=0, field="data.train_images")


def test_a_fingerprint_changes_with_a_label_with_a_position_and_with_the_name_of_a_split() -> None:
    positions = {"train": np.array([0, 1]), "validation": np.array([2])}
    labels = torch.tensor([0, 1, 0])
    prints = {
        fingerprint(positions, labels),
        fingerprint(positions, torch.tensor([0, 1, 1])),
        fingerprint({"train": np.array([0, 2]), "validation": np.array([1])}, labels),
        fingerprint({"validation": np.array([0, 1]), "train": np.array([2])}, labels),
    }
    assert len(prints) == 4
    assert fingerprint(dict(reversed(positions.items())), labels) in prints
    assert (
        fingerprint(positions, labels)
        == "951728f6af8458050dccb68c3d70d12e3041d078be3f82ddfa2f680d0ec81651"
    )


def test_a_pixel_hash_changes_with_the_pixels_their_shape_their_scale_and_their_number() -> None:
    pixels, labels = torch.zeros(3, 2, 2, 1, dtype=torch.uint8), torch.tensor([0, 1, 0])
    of = Images(pixels, labels, 255.0, ("a", "b"), "any", "train")
    others = [
        replace(of, pixels=pixels + 1),
        replace(of, pixels=pixels.view(3, 1, 4, 1)),
        replace(of, scale=16.0),
        of.take(torch.tensor([0, 1])),
        replace(of, labels=1 - labels),
    ]
    assert len({pixel_hash(each) for each in (of, *others)} | {pixel_hash(of, of)}) == 7
    assert pixel_hash(replace(of, name="other")) == pixel_hash(of)


def test_a_subset_of_images_without_some_class_has_the_others_in_proportion() -> None:
    """Validation images that a data set brings may lack a class."""
    labels = np.repeat([0, 1, 4], [20, 10, 10])
    chosen = stratified_subset(labels, 8, seed=0, field="validation.images")
    assert np.bincount(labels[chosen]).tolist() == [4, 2, 0, 0, 2]
    whole = np.repeat([0, 1, 2], [20, 10, 10])
    same = stratified_subset(whole, 8, seed=0, field="validation.images")
    assert chosen.tolist() == same.tolist()

import pytest

from rkdsearch.accuracy import ByClass
from rkdsearch.training.epoch import Best

CONSTANT = Best(6, 0.5, 0.5, 0.0, ByClass((1.0, 0.0), (1.0, 0.0)))
LEARNING = Best(12, 0.70, 0.10, 0.05, ByClass((0.75, 0.65), (0.15, 0.05)))


@pytest.mark.parametrize("select", ["mean", "robust_accuracy", "clean_accuracy"])
def test_at_a_hard_eps_a_network_that_learns_is_kept_and_not_the_constant_one(select: str) -> None:
    # their means are 0.5 and 0.4
    assert CONSTANT.selection_score(select) < LEARNING.selection_score(select)


def test_the_mean_is_of_clean_and_robust_accuracy() -> None:
    assert LEARNING.selection_score("mean") == pytest.approx(0.4)


def test_a_student_has_never_learned_until_its_images_say_otherwise() -> None:
    guessing = Best(6, 0.13, 0.02, 0.0, ByClass((0.13,) * 10, (0.02,) * 10))
    # 0.13 of 100 may be a tenth, [0.078, 0.210]; of 2,000 not, [0.116, 0.146]
    assert guessing.never_learned(100)
    assert not guessing.never_learned(2000)
    assert CONSTANT.never_learned(None)
    assert not LEARNING.never_learned(None)


def test_the_classes_count_alike_where_most_images_are_of_one() -> None:
    # 90 of 100 images are of the first class: always saying so is right 0.9 of the time
    lopsided = Best(6, 0.90, 0.89, 0.0, ByClass((0.99, 0.05), (0.98, 0.05)))
    assert lopsided.never_learned(100)


def test_a_network_that_knows_two_classes_is_not_constant() -> None:
    # a small eps moves none of few images, and of three classes one is not learned yet
    learning = Best(6, 0.5, 0.5, 0.0, ByClass((0.8, 0.7, 0.0), (0.8, 0.7, 0.0)))
    assert not learning.constant
    assert not learning.never_learned(300)
    assert learning.selection_score("mean") == 0.5
    earlier = Best(6, 0.5, 0.5, 0.0)  # nobody measured its classes
    assert earlier.constant

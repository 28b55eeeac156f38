import math

import pytest

from rkdsearch.results.cells import CLEAN
from rkdsearch.results.chance import at_chance, is_chance, teacher_at_chance


@pytest.mark.parametrize(
    ("value", "images", "expected"),
    [
        (0.1, 500, True),
        (0.12, 500, True),  # Wilson's interval: 0.095 to 0.151
        (0.15, 500, False),  # 0.121 to 0.184
        (0.12, 50_000, False),
        (0.0, 500, True),
        (None, 500, False),
        (0.1, None, False),
        (math.nan, 500, False),  # what a stranger's file may hold
        (7.0, 500, False),
        (0.1, 0, False),
    ],
)
def test_an_accuracy_is_chance_where_its_interval_reaches_down_to_it(
    value: float | None, images: int | None, expected: bool
) -> None:
    assert is_chance(value, images, 0.1) is expected
    assert is_chance(value, images, None) is False


def test_a_constant_prediction_on_uneven_classes_is_chance_at_the_share_of_the_largest() -> None:
    row = {CLEAN: 0.62, "fidelity.validation_images": 400}
    assert at_chance(row, 0.6)
    assert not at_chance(row, 0.1)


def test_a_natural_teacher_need_not_be_robust() -> None:
    assert teacher_at_chance("robust", 0.9, 0.0, 500, 0.1)
    assert not teacher_at_chance("natural", 0.9, 0.0, 500, 0.1)
    assert teacher_at_chance("natural", 0.1, 0.0, 500, 0.1)

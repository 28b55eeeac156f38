import numpy as np
import pytest

from rkdsearch.results.objectives import COSTS, OBJECTIVES, merits


def test_an_accuracy_is_its_own_merit_and_a_tenth_of_a_cost_is_worth_a_ninth_of_the_scale() -> None:
    found = merits({"clean_accuracy": [0.9, 0.8, 0.7], "parameters": [1, 1_000, 10_000]})
    assert found == pytest.approx(np.array([[0.9, 1.0], [0.8, 1 - 3 / 9], [0.7, 1 - 4 / 9]]))


def test_merits_lie_between_0_and_1_and_what_was_not_counted_stays_unknown() -> None:
    assert OBJECTIVES["multiply_adds"].merits([0, 1e12, 1e15]).tolist() == [1.0, 0.0, 0.0]
    assert np.isnan(OBJECTIVES["parameters"].merits([float("nan")])).all()
    assert COSTS == ("parameters", "multiply_adds")


def test_an_accuracy_is_asked_for_at_least_and_a_cost_at_most() -> None:
    assert OBJECTIVES["robust_accuracy"].holds([0.49, 0.50, 0.51, float("nan")], 0.50).tolist() == [
        False,
        True,
        True,
        False,
    ]
    assert OBJECTIVES["parameters"].holds([4_999, 5_000, 5_001, float("nan")], 5_000).tolist() == [
        True,
        True,
        False,
        True,
    ]


def test_people_read_percents_and_thousands() -> None:
    clean, parameters = OBJECTIVES["clean_accuracy"], OBJECTIVES["parameters"]
    assert (clean.title, clean.shown(0.8764), clean.shown(None)) == ("clean %", "87.6", "–")
    assert (parameters.title, parameters.shown(11_173_962)) == ("parameters", "11,173,962")

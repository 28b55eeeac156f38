import numpy as np
import pytest

from rkdsearch.results import pareto

NAN = float("nan")


def test_a_point_is_kept_unless_another_is_at_least_as_good_in_all_and_better_in_one() -> None:
    points = [[0.9, 0.5], [0.8, 0.6], [0.8, 0.5], [0.9, 0.4], [0.7, 0.7]]
    assert pareto.non_dominated(points).tolist() == [True, True, False, False, True]


def test_equal_points_are_all_kept() -> None:
    assert pareto.non_dominated([[0.9, 0.5], [0.9, 0.5], [0.9, 0.5]]).tolist() == [True, True, True]


def test_a_point_with_a_missing_value_is_on_no_front_and_dominates_nothing() -> None:
    points = [[NAN, 1.0], [0.5, 0.5], [1.0, NAN]]
    assert pareto.non_dominated(points).tolist() == [False, True, False]
    assert pareto.ranks(points).tolist() == [-1, 0, -1]
    assert pareto.hypervolume(points) == 0.25


def test_ranks_peel_one_front_after_the_other() -> None:
    assert pareto.ranks([[3, 1], [1, 3], [2, 1], [1, 2], [1, 1], [3, 1]]).tolist() == [
        0,
        0,
        1,
        1,
        2,
        0,
    ]


def test_three_objectives_are_compared_as_well() -> None:
    points = [[1, 1, 0], [1, 0, 1], [0, 1, 1], [0, 0, 1]]
    assert pareto.non_dominated(points).tolist() == [True, True, True, False]
    assert pareto.hypervolume([[1, 1, 1]], (0, 0, 0)) == 1.0


def test_hypervolume_is_the_area_under_the_step_line() -> None:
    assert pareto.hypervolume([[0.5, 0.8], [0.9, 0.3], [0.4, 0.2]]) == pytest.approx(
        0.5 * 0.8 + 0.4 * 0.3
    )
    assert pareto.hypervolume([[0.5, 0.8]], (0.25, 0.5)) == pytest.approx(0.25 * 0.3)


def test_points_below_the_reference_add_nothing() -> None:
    assert pareto.hypervolume([[-1.0, 2.0], [0.5, 0.5]]) == 0.25


def test_no_points_are_no_error() -> None:
    assert pareto.non_dominated([]).tolist() == []
    assert pareto.non_dominated(np.empty((0, 3))).tolist() == []
    assert pareto.ranks([]).tolist() == []
    assert pareto.hypervolume([]) == 0.0


def test_dominance_agrees_with_its_definition_on_random_points() -> None:
    points = np.random.default_rng(0).integers(0, 6, size=(80, 3))
    expected = [
        not any((other >= point).all() and (other > point).any() for other in points)
        for point in points
    ]
    assert pareto.non_dominated(points).tolist() == expected

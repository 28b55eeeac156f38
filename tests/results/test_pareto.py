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
    assert pareto.attainment([]).shape == (0, 2)


def test_dominance_agrees_with_its_definition_on_random_points() -> None:
    points = np.random.default_rng(0).integers(0, 6, size=(80, 3))
    expected = [
        not any((other >= point).all() and (other > point).any() for other in points)
        for point in points
    ]
    assert pareto.non_dominated(points).tolist() == expected


def test_half_of_the_fronts_attain_what_two_of_three_reach() -> None:
    fronts = [[[1.0, 1.0]], [[2.0, 0.5], [0.5, 2.0]], [[0.25, 0.25]]]
    assert pareto.attainment(fronts, 0.5).tolist() == [[0.5, 1.0], [1.0, 0.5]]
    assert pareto.attainment(fronts, 1.0).tolist() == [[0.25, 0.25]]
    assert pareto.attainment(fronts, 1 / 3).tolist() == [[0.5, 2.0], [1.0, 1.0], [2.0, 0.5]]


def test_a_front_without_points_attains_nothing_but_counts() -> None:
    assert pareto.attainment([[[1.0, 1.0]], np.empty((0, 2))], 0.5).tolist() == [[1.0, 1.0]]
    assert pareto.attainment([[[1.0, 1.0]], np.empty((0, 2))], 0.6).tolist() == []
    assert pareto.attainment([[[1.0, 1.0]], [[2.0, 2.0]], [], []], 0.5).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("fronts", [3, 7, 10, 30])
def test_attainment_agrees_with_counting(fronts: int) -> None:
    random = np.random.default_rng(fronts)
    sets = [random.integers(1, 9, size=(3, 2)).astype(float) for _ in range(fronts)]
    for need in range(1, fronts + 1):
        surface = pareto.attainment(sets, need / fronts)
        for x in range(1, 10):
            for y in range(1, 10):
                reached = sum(bool(((s >= (x, y)).all(axis=1)).any()) for s in sets) >= need
                assert bool((surface >= (x, y)).all(axis=1).any()) == reached


def test_twenty_eight_percent_of_twenty_five_fronts_are_seven() -> None:
    assert 0.28 * 25 > 7  # in binary
    assert pareto.attainment([[[float(n), 0.0]] for n in range(25)], 0.28).tolist() == [[18.0, 0.0]]


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01])
def test_a_share_outside_zero_and_one_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share must be in"):
        pareto.attainment([[[1.0, 1.0]]], share)

import numpy as np
import pytest
from numpy.typing import NDArray

from rkdsearch.results.pareto import hypervolume
from rkdsearch.search.ranking import by_non_domination, by_sum


def test_fronts_come_first_and_inside_a_front_what_adds_most_hypervolume() -> None:
    values = np.array([[0.9, 0.1], [0.5, 0.5], [0.1, 0.8], [0.4, 0.4], [0.88, 0.11], [0.0, 0.0]])
    # The first front holds rows 0, 1, 2, 4. Row 1 covers 0.25; then row 4 adds 0.38 x 0.11, row 2
    # adds 0.1 x 0.3 and row 0 adds 0.02 x 0.1.
    assert by_non_domination(values).tolist() == [3, 0, 2, 4, 1, 5]


def test_a_point_that_dominates_all_is_first_wherever_it_stands() -> None:
    assert by_non_domination(np.array([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]])).tolist() == [2, 1, 0]


def test_equal_points_rank_in_order() -> None:
    assert by_non_domination(np.full((3, 2), 0.5)).tolist() == [0, 1, 2]


def test_the_sum_ranks_by_its_weights() -> None:
    values = np.array([[0.9, 0.1], [0.1, 0.8], [0.5, 0.45]])
    assert by_sum(np.array([1.0, 0.0]))(values).tolist() == [0, 2, 1]
    assert by_sum(np.array([0.5, 0.5]))(values).tolist() == [0, 2, 1]
    assert by_sum(np.array([0.0, 1.0]))(values).tolist() == [2, 0, 1]


def ranks_by_definition(values: NDArray[np.float64]) -> list[int]:
    """Fronts one by one, each in the order of the hypervolume that a point adds to those ranked."""
    zero = [0.0] * values.shape[1]
    order: list[int] = []
    while len(order) < len(values):
        left = [i for i in range(len(values)) if i not in order]
        front = [
            i
            for i in left
            if not any(
                (values[j] >= values[i]).all() and (values[j] > values[i]).any() for j in left
            )
        ]
        ranked: list[int] = []
        while len(ranked) < len(front):
            waiting = [i for i in front if i not in ranked]
            before = hypervolume(values[ranked], zero) if ranked else 0.0
            # `max` takes the first of equals, as everywhere here
            ranked.append(
                max(
                    waiting,
                    key=lambda i: round(hypervolume(values[[*ranked, i]], zero) - before, 12),
                )
            )
        order += ranked
    return [order.index(i) for i in range(len(values))]


@pytest.mark.parametrize("objectives", [2, 3])
@pytest.mark.parametrize("digits", [1, 12])  # with one digit, most trials are there twice
def test_ranks_agree_with_their_definition(objectives: int, digits: int) -> None:
    rng = np.random.default_rng(10 * objectives + digits)
    for count in (1, 2, 7, 40):
        values = np.round(rng.random((count, objectives)), digits)
        assert by_non_domination(values).tolist() == ranks_by_definition(values)

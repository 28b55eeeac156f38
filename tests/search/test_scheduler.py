import numpy as np
import pytest

from rkdsearch.search.scheduler import Rungs, by_non_domination, by_sum
from rkdsearch.search.settings import SchedulerConfig

NAMES = ("clean_accuracy", "robust_accuracy")


def test_fronts_come_first_and_inside_a_front_its_far_end() -> None:
    values = np.array([[0.9, 0.1], [0.5, 0.5], [0.1, 0.8], [0.4, 0.4], [0.88, 0.11], [0.0, 0.0]])
    # Front 1 holds rows 0, 1, 2, 4. Scaled by the spans 0.9 and 0.8, row 1 has the largest sum (0.556 + 0.625); row 0 lies farthest from
    # it (0.668; row 2: 0.581), then row 2; row 4, a twin of row 0, is the front's last.
    assert by_non_domination(values).tolist() == [1, 0, 2, 4, 3, 5]


def test_a_point_that_dominates_all_is_first_wherever_it_stands() -> None:
    assert by_non_domination(np.array([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]])).tolist() == [2, 1, 0]


def test_equal_points_rank_in_order() -> None:
    assert by_non_domination(np.full((3, 2), 0.5)).tolist() == [0, 1, 2]


def test_the_sum_ranks_by_its_weights() -> None:
    values = np.array([[0.9, 0.1], [0.1, 0.8], [0.5, 0.45]])
    assert by_sum(np.array([1.0, 0.0]))(values).tolist() == [0, 2, 1]
    assert by_sum(np.array([0.5, 0.5]))(values).tolist() == [0, 2, 1]
    assert by_sum(np.array([0.0, 1.0]))(values).tolist() == [2, 0, 1]


def arrive(rungs: Rungs, trial_id: str, value: float, epochs: int = 1) -> bool:
    rung = rungs.at(epochs)
    assert rung is not None
    rungs.record(rung, trial_id, (value, value))
    return rungs.goes_on(rung, trial_id)


def promoted(rungs: Rungs) -> tuple[str, int] | None:
    found = rungs.promotable()
    return None if found is None else (found[0], found[1].epochs)


def test_promotion_pauses_everyone_until_three_have_come_and_takes_the_best_third() -> None:
    rungs = Rungs((1, 3), SchedulerConfig(reduction=3), NAMES)
    assert [arrive(rungs, "a", 0.5), arrive(rungs, "b", 0.7)] == [False, False]
    assert promoted(rungs) is None
    assert not arrive(rungs, "c", 0.1)
    assert promoted(rungs) == ("b", 1)


def test_the_best_newcomer_of_a_full_rung_runs_on_at_once() -> None:
    rungs = Rungs((1,), SchedulerConfig(reduction=3), NAMES)
    arrive(rungs, "a", 0.1)
    arrive(rungs, "b", 0.2)
    assert arrive(rungs, "c", 0.3)
    assert promoted(rungs) is None


def test_a_higher_rung_is_promoted_from_before_a_lower_one() -> None:
    rungs = Rungs((1, 3), SchedulerConfig(reduction=2), NAMES)
    for trial_id, value in {"a": 0.1, "b": 0.9, "c": 0.8, "d": 0.2}.items():
        arrive(rungs, trial_id, value)
    arrive(rungs, "b", 0.9, epochs=3)
    arrive(rungs, "c", 0.8, epochs=3)
    assert promoted(rungs) == ("b", 3)


def test_stopping_lets_the_first_two_run_and_then_only_the_best_third() -> None:
    rungs = Rungs((1,), SchedulerConfig(kind="stopping", reduction=3), NAMES)
    arrivals = {"a": 0.5, "b": 0.1, "c": 0.4, "d": 0.6, "e": 0.2}
    # c is second of three; d is first of four; e is fourth of five.
    assert {t: arrive(rungs, t, v) for t, v in arrivals.items()} == {"a": True, "b": True, "c": False, "d": True, "e": False}
    assert promoted(rungs) is None


def test_asha_ranks_by_its_one_number() -> None:
    rungs = Rungs((1,), SchedulerConfig(name="asha", reduction=3, metric={"robust_accuracy": 1.0}), NAMES)
    rung = rungs.rungs[0]
    for trial_id, values in {"a": (0.9, 0.1), "b": (0.2, 0.6), "c": (0.8, 0.5)}.items():
        rungs.record(rung, trial_id, values)
    assert promoted(rungs) == ("b", 1)
    assert (rungs.place(rung, "a").rank, rungs.place(rung, "a").of) == (3, 3)


def test_without_a_scheduler_there_are_no_rungs() -> None:
    assert Rungs((1, 3), SchedulerConfig(name="none"), NAMES).at(1) is None


@pytest.mark.parametrize("name", ["moasha", "asha"])
def test_ranks_do_not_depend_on_who_came_first(name: str) -> None:
    rng = np.random.default_rng(0)
    values = {f"t{i}": tuple(np.round(rng.random(2), 1).tolist()) for i in range(20)}
    places = []
    for ids in (sorted(values), sorted(values, reverse=True)):
        rungs = Rungs((1,), SchedulerConfig.model_validate({"name": name}), NAMES)
        for trial_id in ids:
            rungs.record(rungs.rungs[0], trial_id, values[trial_id])
        places.append({t: rungs.place(rungs.rungs[0], t) for t in values})
    assert places[0] == places[1]

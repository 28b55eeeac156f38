import math

import numpy as np
import pytest
from numpy.typing import NDArray

from rkdsearch.results.pareto import hypervolume
from rkdsearch.search.scheduler import Rungs, by_non_domination, by_sum
from rkdsearch.space.settings import SchedulerConfig

NAMES = ("clean_accuracy", "robust_accuracy")
THREE = (*NAMES, "worst_class_accuracy")


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
    assert {t: arrive(rungs, t, v) for t, v in arrivals.items()} == {
        "a": True,
        "b": True,
        "c": False,
        "d": True,
        "e": False,
    }
    assert promoted(rungs) is None


def test_asha_ranks_by_its_one_number() -> None:
    rungs = Rungs(
        (1,), SchedulerConfig(name="asha", reduction=3, metric={"robust_accuracy": 1.0}), NAMES
    )
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


# ------------------------------------------------------------------------------------------ by the definition, without any haste


def places_by_definition(values: NDArray[np.float64]) -> list[int]:
    """Fronts are peeled off one by one; each is put in order by what a point adds to the hypervolume above 0 of those placed."""
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
        placed: list[int] = []
        while len(placed) < len(front):
            waiting = [i for i in front if i not in placed]
            before = hypervolume(values[placed], zero) if placed else 0.0
            # `max` takes the first of equals, as everywhere here
            placed.append(
                max(
                    waiting,
                    key=lambda i: round(hypervolume(values[[*placed, i]], zero) - before, 12),
                )
            )
        order += placed
    return [order.index(i) for i in range(len(values))]


class SlowRungs:
    """The laws of the scheduler in their own words; every question is answered from nothing."""

    def __init__(self, kind: str, reduction: int, rungs: int) -> None:
        self.kind, self.reduction = kind, reduction
        self.values: list[dict[str, tuple[float, ...]]] = [{} for _ in range(rungs)]
        self.gone_on: list[set[str]] = [set() for _ in range(rungs)]

    def best_first(self, rung: int) -> list[str]:
        ids = sorted(self.values[rung])
        places = places_by_definition(np.array([self.values[rung][i] for i in ids]))
        return [ids[places.index(n)] for n in range(len(ids))]

    def promotable(self, above: int = -1) -> tuple[str, int] | None:
        for rung in range(len(self.values) - 1, above, -1):
            count = len(self.values[rung]) // self.reduction
            waiting = (
                [i for i in self.best_first(rung)[:count] if i not in self.gone_on[rung]]
                if count
                else []
            )
            if waiting and self.kind == "promotion":
                return waiting[0], rung
        return None

    def goes_on(self, rung: int, trial_id: str) -> bool:
        n, place = len(self.values[rung]), self.best_first(rung).index(trial_id)
        if self.kind == "stopping":
            on = n < self.reduction or place < math.ceil(n / self.reduction)
        else:
            on = place < n // self.reduction and self.promotable(above=rung) is None
        if on:
            self.gone_on[rung].add(trial_id)
        return on


@pytest.mark.parametrize("objectives", [2, 3])
@pytest.mark.parametrize("digits", [1, 12])  # with one digit, most trials have a twin
def test_places_agree_with_their_definition(objectives: int, digits: int) -> None:
    rng = np.random.default_rng(10 * objectives + digits)
    for count in (1, 2, 7, 40):
        values = np.round(rng.random((count, objectives)), digits)
        assert by_non_domination(values).tolist() == places_by_definition(values)


@pytest.mark.parametrize("kind", ["promotion", "stopping"])
@pytest.mark.parametrize(("objectives", "digits"), [(2, 12), (2, 1), (3, 1)])
def test_every_decision_agrees_with_the_definition(kind: str, objectives: int, digits: int) -> None:
    rng = np.random.default_rng(objectives + digits)
    reduction = 3 if kind == "promotion" else 2
    rungs = Rungs(
        (1, 3),
        SchedulerConfig.model_validate({"kind": kind, "reduction": reduction}),
        THREE[:objectives],
    )
    slow = SlowRungs(kind, reduction, 2)

    def arrives(trial_id: str, rung: int) -> None:
        values = tuple(np.round(rng.random(objectives), digits).tolist())
        rungs.record(rungs.rungs[rung], trial_id, values)
        slow.values[rung][trial_id] = values
        if trial_id == "t07":  # a baseline goes on whatever its place
            rungs.rungs[rung].gone_on.add(trial_id)
            slow.gone_on[rung].add(trial_id)
        on = rungs.goes_on(rungs.rungs[rung], trial_id)
        assert on == (trial_id == "t07" or slow.goes_on(rung, trial_id))
        assert (
            rungs.place(rungs.rungs[rung], trial_id).rank
            == slow.best_first(rung).index(trial_id) + 1
        )
        if on and rung == 0:
            arrives(trial_id, 1)

    for number in rng.permutation(30):
        arrives(f"t{number:02d}", 0)
        while rng.random() < 0.8:
            found = rungs.promotable()
            expected = slow.promotable()
            assert (found and (found[0], found[1].epochs)) == (
                expected and (expected[0], (1, 3)[expected[1]])
            )
            if found is None or expected is None:
                break
            found[1].gone_on.add(found[0])
            slow.gone_on[expected[1]].add(found[0])
            if expected[1] == 0:
                arrives(found[0], 1)
    assert len(rungs.rungs[1].values) >= 7

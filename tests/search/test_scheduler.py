import math

import numpy as np
import pytest

from rkdsearch.search.scheduler import Scheduler
from rkdsearch.space.settings import SchedulerConfig
from tests.search.test_ranking import ranks_by_definition

NAMES = ("clean_accuracy", "robust_accuracy")
THREE = (*NAMES, "worst_class_accuracy")


def arrive(scheduler: Scheduler, trial_id: str, value: float, epochs: int = 1) -> bool:
    rung = scheduler.at(epochs)
    assert rung is not None
    scheduler.record(rung, trial_id, (value, value))
    return scheduler.decide(rung, trial_id) == "continued"


def promoted(scheduler: Scheduler) -> tuple[str, int] | None:
    found = scheduler.next_promotion()
    return None if found is None else (found.trial_id, found.rung.epochs)


def test_promotion_pauses_everyone_until_three_have_come_and_takes_the_best_third() -> None:
    scheduler = Scheduler((1, 3), SchedulerConfig(reduction=3), NAMES)
    assert [arrive(scheduler, "a", 0.5), arrive(scheduler, "b", 0.7)] == [False, False]
    assert promoted(scheduler) is None
    assert not arrive(scheduler, "c", 0.1)
    assert promoted(scheduler) == ("b", 1)


def test_the_best_newcomer_of_a_full_rung_runs_on_at_once() -> None:
    scheduler = Scheduler((1,), SchedulerConfig(reduction=3), NAMES)
    arrive(scheduler, "a", 0.1)
    arrive(scheduler, "b", 0.2)
    assert arrive(scheduler, "c", 0.3)
    assert promoted(scheduler) is None


def test_a_higher_rung_is_promoted_from_before_a_lower_one() -> None:
    scheduler = Scheduler((1, 3), SchedulerConfig(reduction=2), NAMES)
    for trial_id, value in {"a": 0.1, "b": 0.9, "c": 0.8, "d": 0.2}.items():
        arrive(scheduler, trial_id, value)
    arrive(scheduler, "b", 0.9, epochs=3)
    arrive(scheduler, "c", 0.8, epochs=3)
    assert promoted(scheduler) == ("b", 3)


def test_stopping_lets_the_first_two_run_and_then_only_the_best_third() -> None:
    scheduler = Scheduler((1,), SchedulerConfig(kind="stopping", reduction=3), NAMES)
    arrivals = {"a": 0.5, "b": 0.1, "c": 0.4, "d": 0.6, "e": 0.2}
    # c is second of three; d is first of four; e is fourth of five.
    assert {t: arrive(scheduler, t, v) for t, v in arrivals.items()} == {
        "a": True,
        "b": True,
        "c": False,
        "d": True,
        "e": False,
    }
    assert promoted(scheduler) is None


def test_asha_ranks_by_its_one_number() -> None:
    scheduler = Scheduler(
        (1,), SchedulerConfig(name="asha", reduction=3, metric={"robust_accuracy": 1.0}), NAMES
    )
    rung = scheduler.rungs[0]
    for trial_id, values in {"a": (0.9, 0.1), "b": (0.2, 0.6), "c": (0.8, 0.5)}.items():
        scheduler.record(rung, trial_id, values)
    assert promoted(scheduler) == ("b", 1)
    assert (scheduler.rank(rung, "a").rank, scheduler.rank(rung, "a").of) == (3, 3)


def test_without_a_scheduler_there_are_no_rungs() -> None:
    assert Scheduler((1, 3), SchedulerConfig(name="none"), NAMES).at(1) is None


@pytest.mark.parametrize("name", ["moasha", "asha"])
def test_ranks_do_not_depend_on_who_came_first(name: str) -> None:
    rng = np.random.default_rng(0)
    values = {f"t{i}": tuple(np.round(rng.random(2), 1).tolist()) for i in range(20)}
    ranks = []
    for ids in (sorted(values), sorted(values, reverse=True)):
        scheduler = Scheduler((1,), SchedulerConfig.model_validate({"name": name}), NAMES)
        for trial_id in ids:
            scheduler.record(scheduler.rungs[0], trial_id, values[trial_id])
        ranks.append({t: scheduler.rank(scheduler.rungs[0], t) for t in values})
    assert ranks[0] == ranks[1]


class SlowScheduler:
    """The rules of the scheduler by their definition; every answer is worked out from nothing."""

    def __init__(self, kind: str, reduction: int, rungs: int) -> None:
        self.kind, self.reduction = kind, reduction
        self.values: list[dict[str, tuple[float, ...]]] = [{} for _ in range(rungs)]
        self.promoted: list[set[str]] = [set() for _ in range(rungs)]

    def best_first(self, rung: int) -> list[str]:
        ids = sorted(self.values[rung])
        ranks = ranks_by_definition(np.array([self.values[rung][i] for i in ids]))
        return [ids[ranks.index(n)] for n in range(len(ids))]

    def next_promotion(self, above: int = -1) -> tuple[str, int] | None:
        for rung in range(len(self.values) - 1, above, -1):
            count = len(self.values[rung]) // self.reduction
            waiting = (
                [i for i in self.best_first(rung)[:count] if i not in self.promoted[rung]]
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
            on = place < n // self.reduction and self.next_promotion(above=rung) is None
        if on:
            self.promoted[rung].add(trial_id)
        return on


@pytest.mark.parametrize("kind", ["promotion", "stopping"])
@pytest.mark.parametrize(("objectives", "digits"), [(2, 12), (2, 1), (3, 1)])
def test_every_decision_agrees_with_the_definition(kind: str, objectives: int, digits: int) -> None:
    rng = np.random.default_rng(objectives + digits)
    reduction = 3 if kind == "promotion" else 2
    scheduler = Scheduler(
        (1, 3),
        SchedulerConfig.model_validate({"kind": kind, "reduction": reduction}),
        THREE[:objectives],
    )
    slow = SlowScheduler(kind, reduction, 2)

    def arrives(trial_id: str, rung: int) -> None:
        values = tuple(np.round(rng.random(objectives), digits).tolist())
        scheduler.record(scheduler.rungs[rung], trial_id, values)
        slow.values[rung][trial_id] = values
        if trial_id == "t07":  # a baseline trains on whatever its rank
            scheduler.rungs[rung].promoted.add(trial_id)
            slow.promoted[rung].add(trial_id)
        on = scheduler.decide(scheduler.rungs[rung], trial_id) == "continued"
        assert on == (trial_id == "t07" or slow.goes_on(rung, trial_id))
        assert (
            scheduler.rank(scheduler.rungs[rung], trial_id).rank
            == slow.best_first(rung).index(trial_id) + 1
        )
        if on and rung == 0:
            arrives(trial_id, 1)

    for number in rng.permutation(30):
        arrives(f"t{number:02d}", 0)
        while rng.random() < 0.8:
            found = scheduler.next_promotion()
            expected = slow.next_promotion()
            assert (found and (found.trial_id, found.rung.epochs)) == (
                expected and (expected[0], (1, 3)[expected[1]])
            )
            if found is None or expected is None:
                break
            found.rung.promoted.add(found.trial_id)
            slow.promoted[expected[1]].add(found.trial_id)
            if expected[1] == 0:
                arrives(found.trial_id, 1)
    assert len(scheduler.rungs[1].values) >= 7


def test_among_equals_the_cheaper_trial_ranks_first() -> None:
    scheduler = Scheduler((1,), SchedulerConfig(reduction=2), NAMES)
    rung = scheduler.rungs[0]
    for trial_id, steps in {"t00000": 10.0, "t00001": 2.0}.items():
        scheduler.record(rung, trial_id, (0.5, 0.4), ties=(steps,))
    assert [scheduler.rank(rung, trial_id).rank for trial_id in ("t00000", "t00001")] == [2, 1]


def test_the_best_of_each_group_climbs_before_groups_are_compared() -> None:
    scheduler = Scheduler((1, 3), SchedulerConfig(reduction=2), NAMES, minima=[2])
    rung = scheduler.rungs[0]
    values = {"a0": 0.9, "a1": 0.8, "b0": 0.3, "b1": 0.2, "c0": 0.1}
    promoted = []
    for trial_id, value in values.items():
        scheduler.record(rung, trial_id, (value, value), group=[trial_id[0]])
        while (found := scheduler.next_promotion()) is not None:
            found.rung.promoted.add(found.trial_id)
            promoted.append(found.trial_id)
    # c has one of its two; a1 is second of all, and two of five have climbed
    assert promoted == ["a0", "b0"]
    scheduler.record(rung, "c1", (0.05, 0.05), group=["c"])
    found = scheduler.next_promotion()
    assert found is not None
    assert found.trial_id == "c0"


def test_with_two_fields_the_best_of_each_choice_of_either_climbs() -> None:
    """Combinations of both have a trial each, and none of them a minimum of two."""
    scheduler = Scheduler((1,), SchedulerConfig(reduction=4), NAMES, minima=[2, 2])
    rung = scheduler.rungs[0]
    values = {("rslad", 8): 0.9, ("rslad", 4): 0.8, ("trades", 2): 0.2, ("trades", 1): 0.1}
    for (method, width), value in values.items():
        scheduler.record(rung, f"{method}-{width}", (value, value), group=[method, width])
    promoted = []
    while (found := scheduler.next_promotion()) is not None:
        found.rung.promoted.add(found.trial_id)
        promoted.append(found.trial_id)
    assert promoted == ["rslad-8", "trades-2"]
    # of the second width of 8, the better
    scheduler.record(rung, "trades-8", (0.05, 0.05), group=["trades", 8])
    assert scheduler.next_promotion() is None  # it has climbed already
    scheduler.record(rung, "trades-4", (0.04, 0.04), group=["trades", 4])
    found = scheduler.next_promotion()
    assert found is not None
    assert found.trial_id == "rslad-4"


def test_a_baseline_takes_no_place_in_its_group() -> None:
    scheduler = Scheduler((1,), SchedulerConfig(reduction=2), NAMES, minima=[2])
    rung = scheduler.rungs[0]
    scheduler.record(rung, "baseline", (0.9, 0.9))
    rung.promoted.add("baseline")
    for trial_id, value in {"t1": 0.2, "t2": 0.1}.items():
        scheduler.record(rung, trial_id, (value, value), group=["rslad"])
    found = scheduler.next_promotion()
    assert found is not None
    assert found.trial_id == "t1"


def test_the_best_of_groups_agree_with_the_definition() -> None:
    rng, eta = np.random.default_rng(5), 2
    scheduler = Scheduler((1, 3), SchedulerConfig(reduction=eta), NAMES, minima=[4])
    rung = scheduler.rungs[0]
    names, groups = list[str](), dict[str, str]()
    for number in rng.permutation(40):
        trial_id = f"t{number:02d}"
        names.append(trial_id)
        if number % 5:  # the others are in no group
            groups[trial_id] = "abc"[number % 3]
        merits = tuple(np.round(rng.random(2), 1).tolist())
        own = [groups[trial_id]] if trial_id in groups else None
        scheduler.record(rung, trial_id, merits, group=own)
        ids = sorted(names)
        ranks = ranks_by_definition(np.array([rung.values[i] for i in ids]))
        best_first = [ids[ranks.index(n)] for n in range(len(ids))]
        best = set[str]()
        for group in "abc":
            members = [i for i in best_first if groups.get(i) == group]
            best.update(members[: max(len(members) // eta, len(members) >= 4)])
        owed = [i for i in best_first if i in best and i not in rung.promoted]
        quota = len(ids) // eta
        free = [i for i in best_first[:quota] if i not in rung.promoted]
        expected = owed[:1] or (free[:1] if quota > len(rung.promoted) else [])
        found = scheduler.next_promotion()
        assert ([] if found is None else [found.trial_id]) == expected
        if found is not None and rng.random() < 0.8:
            rung.promoted.add(found.trial_id)
    assert len(rung.promoted) > 10

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.analysis.scripts import script

curves, rules, simulation = script("curves"), script("rules"), script("simulation")


def test_compute_is_what_the_workers_were_busy_with_and_a_full_length_search_spends_all_of_it() -> (
    None
):
    landscape = curves.Simulated("bulging", 0)
    searched = simulation.Search(landscape, rules.RULES[rules.RANDOM](landscape.space), 7)
    reached = list(searched.run(math.inf))
    assert len(reached) == 7
    assert searched.spent == pytest.approx(
        sum(curves.cost_of(0, 54, t.curve.attack_steps) for t in searched.trials)
    )
    assert reached[-1][0] == searched.spent


def test_a_whole_ladder_is_charged_for_every_rung_and_for_the_run_that_restarts() -> None:
    landscape = curves.Simulated("bulging", 0)
    searched = simulation.Search(
        landscape, rules.RULES["random, whole ladder"](landscape.space), 20
    )
    for _ in searched.run(math.inf):
        pass
    assert {t.rung for t in searched.trials} == {0, 1, 2}
    expected = [
        curves.cost_of(0, 6, 2)
        + (curves.cost_of(6, 18, 2) if t.rung > 0 else 0)
        + (
            curves.cost_of(18 if t.curve.attack_steps == 2 else 0, 54, t.curve.attack_steps)
            if t.rung > 1
            else 0
        )
        for t in searched.trials
    ]
    assert searched.spent == pytest.approx(sum(expected))


def test_a_search_ends_when_it_has_enough_of_both_hypervolume_and_compute() -> None:
    landscape = curves.Simulated("straight", 0)
    make = rules.RULES[rules.RANDOM]
    whole = simulation.search(landscape, make(replace(landscape.space, seed=1)), budget=10.0)
    soon = simulation.search(
        landscape,
        make(replace(landscape.space, seed=1)),
        budget=10.0,
        enough=(whole.hypervolume[1], 0.0),
    )
    later = simulation.search(
        landscape,
        make(replace(landscape.space, seed=1)),
        budget=10.0,
        enough=(whole.hypervolume[1], 5.0),
    )
    assert list(soon.hypervolume) == list(whole.hypervolume[: len(soon.hypervolume)])
    assert len(soon.hypervolume) <= 2
    assert 5.0 <= later.spent < 7.0


def test_a_track_counts_only_what_was_finished_by_then() -> None:
    track = simulation.Track(np.array([1.0, 2.0, 4.0]), np.array([0.1, 0.3, 0.3]), 5, 4.5)
    assert [track.at(c) for c in (0.5, 1.0, 3.9, 9.0)] == [0.0, 0.1, 0.3, 0.3]
    assert [track.reaches(v) for v in (0.05, 0.2, 0.31)] == [1.0, 2.0, math.inf]

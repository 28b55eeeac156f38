from pathlib import Path
from typing import Any

import pytest

from rkdsearch.config.fidelity import Fidelity
from rkdsearch.errors import SpaceError
from rkdsearch.space import ladder
from rkdsearch.space.ladder import Segment
from rkdsearch.space.settings import SchedulerConfig
from tests.search.files import CAPPED, load_space, run

AFRESH, CONTINUED, NONE = (
    SchedulerConfig(),
    SchedulerConfig(capped="continued"),
    SchedulerConfig(name="none"),
)
RUNGS = (
    Fidelity(epochs=6, training_attack_steps=2),
    Fidelity(epochs=18, training_attack_steps=2),
    Fidelity(epochs=54),
)


def test_a_new_run_begins_where_a_cap_that_was_in_force_is_lifted() -> None:
    assert ladder.segments(RUNGS, AFRESH, 10) == (Segment(RUNGS[:2]), Segment(RUNGS[2:]))
    assert (
        ladder.segments(RUNGS, AFRESH, 2)
        == ladder.segments(RUNGS, CONTINUED, 10)
        == (Segment(RUNGS),)
    )
    assert ladder.segments(RUNGS, NONE, 10) == (Segment(RUNGS[2:]),)


def test_a_cap_that_rises_begins_a_new_run_at_each_step() -> None:
    rising = (
        Fidelity(epochs=2, training_attack_steps=1),
        Fidelity(epochs=6, training_attack_steps=5),
        Fidelity(epochs=18),
    )
    assert [segment.epochs for segment in ladder.segments(rising, AFRESH, 10)] == [2, 6, 18]
    assert [segment.epochs for segment in ladder.segments(rising, AFRESH, 5)] == [2, 18]


def test_a_segment_has_every_fidelity_of_its_run() -> None:
    low = Fidelity(
        epochs=6, training_attack_steps=2, validation_attack_steps=5, validation_images=100
    )
    (segment,) = ladder.segments((low, Fidelity(epochs=18)), AFRESH, 2)
    assert segment.fidelities == (low, Fidelity(epochs=18))


def test_costs_are_shares_of_a_full_run_with_three_steps_for_all_that_is_no_attack() -> None:
    assert ladder.costs(RUNGS, AFRESH, 10) == pytest.approx([6 / 54 * 5 / 13, 12 / 54 * 5 / 13, 1])
    assert ladder.costs(RUNGS, CONTINUED, 10) == pytest.approx(
        [6 / 54 * 5 / 13, 12 / 54 * 5 / 13, 36 / 54]
    )
    assert ladder.costs(RUNGS, AFRESH, 2) == pytest.approx([6 / 54, 12 / 54, 36 / 54])


def test_of_sixteen_searched_trials_four_begin_higher_and_one_of_these_two_rungs_higher() -> None:
    three = SchedulerConfig(reduction=4, brackets=3)
    assert [ladder.first_rung(three, number) for number in range(16)] == [
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        2,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        1,
    ]
    assert {ladder.first_rung(SchedulerConfig(), number) for number in range(16)} == {0}
    many = [ladder.first_rung(three, number) for number in range(1600)]
    assert [many.count(rung) for rung in range(3)] == [1200, 300, 100]


def test_who_begins_on_a_higher_rung_is_trained_for_it_from_the_first_epoch() -> None:
    assert ladder.segments(RUNGS, AFRESH, 10, first=1) == (Segment(RUNGS[1:2]), Segment(RUNGS[2:]))
    assert ladder.segments(RUNGS, AFRESH, 10, first=2) == (Segment(RUNGS[2:]),)
    assert ladder.costs(RUNGS, AFRESH, 10, first=1) == pytest.approx([0, 18 / 54 * 5 / 13, 1])


def test_the_ladder_says_its_rungs_and_its_cost_before_the_start(tmp_path: Path) -> None:
    changes = {
        **CAPPED,
        "fixed": {**CAPPED["fixed"], "attack.steps": 10},
        "search": {"method.name": {"choice": ["pgd_at", "trades"]}},
    }
    lines = load_space(tmp_path, **changes, replicates={"seeds": 2, "contenders": 3}).ladder_lines(
        10
    )
    assert lines == [
        (
            "rung: 1 of 4 epochs, training attack of at most 2 steps, validation attack of at most"
            " 5 steps, about 9 searched trials and 1 baselines"
        ),
        (
            "rung: 2 of 4 epochs, training attack of at most 2 steps, about 3 searched trials and 1"
            " baselines"
        ),
        "rung: 4 of 4 epochs, about 1 searched trials and 1 baselines",
        # 9 x 5/52, 3 x 5/52, 1 x 1, and the baseline's 62/52
        (
            "then up to 3 contenders and the 1 baselines again, to full length, with 2 fresh seeds"
            " each"
        ),
        # two finish: of three contenders and a baseline, no more can be repeated
        (
            "expected cost: about 7.3 full runs: 3.3 for 10 configurations (moasha, promotion) and"
            " up to 4 for repeats"
        ),
    ]


def test_brackets_are_in_the_ladders_lines(tmp_path: Path) -> None:
    space = load_space(tmp_path, scheduler={"reduction": 4, "brackets": 2}, first=None)
    assert space.ladder_lines(16) == [
        "rung: 1 of 4 epochs, about 12 searched trials and 0 baselines",
        "rung: 2 of 4 epochs, about 8 searched trials and 0 baselines",
        "rung: 4 of 4 epochs, about 2 searched trials and 0 baselines",
        # 12 quarters, 4 quarters of those who climb and 4 halves of those who begin there, 2 halves
        "expected cost: about 7.0 full runs for 16 configurations (moasha, promotion)",
    ]


@pytest.mark.parametrize(
    ("kind", "reduction", "trials", "firsts", "expected"),
    [
        # of 100 simulated searches: 9.9 and 7.0; 23.1 and 11.2; 2.0 and 0.2; 1.0 and 0; 9.8 and 4.6
        ("promotion", 2, 24, 7, [17, 10, 5]),
        ("promotion", 3, 60, 4, [56, 23, 9]),
        ("promotion", 4, 8, 1, [7, 2, 0]),
        ("promotion", 3, 3, 0, [3, 1, 0]),
        ("stopping", 4, 40, 4, [36, 12, 5]),
    ],
)
def test_about_as_many_go_on_as_in_simulated_searches(
    kind: Any, reduction: int, trials: int, firsts: int, expected: list[int]
) -> None:
    scheduler, found = SchedulerConfig(kind=kind, reduction=reduction), [trials - firsts]
    for _ in range(2):
        found.append(ladder._going_on(scheduler, found[-1], firsts))
    assert found == expected


def test_where_no_searched_trial_can_reach_full_length_it_is_said_before_the_start(
    tmp_path: Path,
) -> None:
    space = load_space(tmp_path, scheduler={"reduction": 4})
    warning = space.ladder_lines(8)[-1]
    assert warning.startswith(
        "WARNING: no searched trial is likely to reach full length: 8 configurations are too few"
        " for 3 rungs with a "
    )
    assert {t.origin for t in run(tmp_path / "study", space, trials=8).finished()} == {"baseline"}
    assert not [line for line in space.ladder_lines(40) if "WARNING" in line]
    # the baseline alone was asked for
    assert not [line for line in space.ladder_lines(1) if "WARNING" in line]


def test_more_brackets_than_rungs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SpaceError,
        match=r"scheduler.brackets must be at most 3, one for each rung to begin on, got 4",
    ):
        load_space(tmp_path, scheduler={"brackets": 4})


@pytest.mark.parametrize(
    ("rungs", "sentence"),
    [
        ([{"epochs": 2}, {"epochs": 2}], "epochs must increase, got [2, 2]"),
        (
            [{"epochs": 1}, {"epochs": 2, "training_attack_steps": 5}],
            "it must have no training_attack_steps, got 5; leave it out",
        ),
        (
            [{"epochs": 1}, {"epochs": 2, "validation_images": 9}],
            "it must have no validation_images, got 9; leave it out",
        ),
        (
            [{"epochs": 1}, {"epochs": 2, "training_attack_steps": 5}, {"epochs": 4}],
            "training_attack_steps must not fall from rung to rung, got [None, 5, None]",
        ),
        (
            [{"epochs": 1, "training_attack_steps": 0}, {"epochs": 2}],
            "ladder.0.training_attack_steps",
        ),
    ],
)
def test_a_ladder_that_breaks_a_law_is_refused_with_the_law(
    tmp_path: Path, rungs: list[dict[str, int]], sentence: str
) -> None:
    with pytest.raises(SpaceError) as caught:
        load_space(tmp_path, ladder=rungs)
    assert sentence in str(caught.value)

from pathlib import Path

import pytest

from rkdsearch.config.fidelity import Fidelity
from rkdsearch.errors import SpaceError
from rkdsearch.space import ladder
from rkdsearch.space.ladder import Segment
from rkdsearch.space.settings import SchedulerConfig
from tests.search.files import load_space

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


def test_a_new_segment_begins_where_a_cap_that_was_in_force_is_lifted() -> None:
    assert ladder.segments(RUNGS, AFRESH, 10) == (Segment(RUNGS[:2]), Segment(RUNGS[2:]))
    assert (
        ladder.segments(RUNGS, AFRESH, 2)
        == ladder.segments(RUNGS, CONTINUED, 10)
        == (Segment(RUNGS),)
    )
    assert ladder.segments(RUNGS, NONE, 10) == (Segment(RUNGS[2:]),)


def test_a_cap_that_rises_begins_a_new_segment_at_each_rung() -> None:
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


def test_of_sixteen_searched_trials_four_begin_higher_and_one_of_these_two_rungs_higher() -> None:
    three = SchedulerConfig(reduction=4, brackets=3)
    assert [ladder.starting_rung(three, number) for number in range(16)] == [
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
    assert {ladder.starting_rung(SchedulerConfig(), number) for number in range(16)} == {0}
    many = [ladder.starting_rung(three, number) for number in range(1600)]
    assert [many.count(rung) for rung in range(3)] == [1200, 300, 100]


def test_a_trial_that_begins_on_a_higher_rung_is_trained_for_it_from_the_first_epoch() -> None:
    assert ladder.segments(RUNGS, AFRESH, 10, start=1) == (Segment(RUNGS[1:2]), Segment(RUNGS[2:]))
    assert ladder.segments(RUNGS, AFRESH, 10, start=2) == (Segment(RUNGS[2:]),)


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

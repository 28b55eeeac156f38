from pathlib import Path

import pytest

from rkdsearch.errors import SpaceError
from rkdsearch.search import ladder
from rkdsearch.search.ladder import Leg
from rkdsearch.search.settings import Rung, SchedulerConfig
from rkdsearch.training.stages import Stage
from tests.search.files import CAPPED, load_space

AFRESH, CONTINUED, NONE = SchedulerConfig(), SchedulerConfig(capped="continued"), SchedulerConfig(name="none")
RUNGS = (Rung(epochs=6, attack_steps=2), Rung(epochs=18, attack_steps=2), Rung(epochs=54))


def test_a_new_run_begins_where_a_cap_that_was_in_force_is_lifted() -> None:
    assert ladder.legs(RUNGS, AFRESH, 10) == (Leg(RUNGS[:2]), Leg(RUNGS[2:]))
    assert ladder.legs(RUNGS, AFRESH, 2) == ladder.legs(RUNGS, CONTINUED, 10) == (Leg(RUNGS),)
    assert ladder.legs(RUNGS, NONE, 10) == (Leg(RUNGS[2:]),)


def test_a_cap_that_rises_begins_a_new_run_at_each_step() -> None:
    rising = (Rung(epochs=2, attack_steps=1), Rung(epochs=6, attack_steps=5), Rung(epochs=18))
    assert [leg.end for leg in ladder.legs(rising, AFRESH, 10)] == [2, 6, 18]
    assert [leg.end for leg in ladder.legs(rising, AFRESH, 5)] == [2, 18]


def test_the_trainer_is_told_every_stage_of_its_run() -> None:
    leg = Leg((Rung(epochs=6, attack_steps=2, validation_steps=5, validation_images=100), Rung(epochs=18)))
    assert leg.stages == (Stage(6, 2, 5, 100), Stage(18))


def test_costs_are_shares_of_a_full_run_with_three_steps_for_all_that_is_no_attack() -> None:
    assert ladder.costs(RUNGS, AFRESH, 10) == pytest.approx([6 / 54 * 5 / 13, 12 / 54 * 5 / 13, 1])
    assert ladder.costs(RUNGS, CONTINUED, 10) == pytest.approx([6 / 54 * 5 / 13, 12 / 54 * 5 / 13, 36 / 54])
    assert ladder.costs(RUNGS, AFRESH, 2) == pytest.approx([6 / 54, 12 / 54, 36 / 54])


def test_the_ladder_says_its_rungs_and_its_cost_before_the_start(tmp_path: Path) -> None:
    changes = {**CAPPED, "fixed": {**CAPPED["fixed"], "attack.steps": 10}, "search": {"method.name": {"choice": ["pgd_at", "trades"]}}}
    lines = load_space(tmp_path, **changes, replicates={"seeds": 2, "contenders": 3}).ladder_lines(10)
    assert lines == [
        "rung: 1 of 4 epochs, training attack of at most 2 steps, validation attack of at most 5 steps, about 9 searched trials and 1 baselines",
        "rung: 2 of 4 epochs, training attack of at most 2 steps, about 3 searched trials and 1 baselines",
        "rung: 4 of 4 epochs, about 1 searched trials and 1 baselines",
        # 9 x 5/52, 3 x 5/52, 1 x 1, and the baseline's 62/52
        "expected cost: about 3.3 full runs for 10 configurations (moasha, promotion)",
        "then up to 3 contenders again, to full length, with 2 fresh seeds each",
    ]


@pytest.mark.parametrize(
    ("rungs", "sentence"),
    [
        ([{"epochs": 2}, {"epochs": 2}], "epochs must increase, got [2, 2]"),
        ([{"epochs": 1}, {"epochs": 2, "attack_steps": 5}], "it must have no attack_steps, got 5; leave it out"),
        ([{"epochs": 1}, {"epochs": 2, "validation_images": 9}], "it must have no validation_images, got 9; leave it out"),
        (
            [{"epochs": 1}, {"epochs": 2, "attack_steps": 5}, {"epochs": 4}],
            "attack_steps must not fall from rung to rung, got [None, 5, None]",
        ),
        ([{"epochs": 1, "attack_steps": 0}, {"epochs": 2}], "ladder.0.attack_steps"),
    ],
)
def test_a_ladder_that_breaks_a_law_is_refused_with_the_law(tmp_path: Path, rungs: list[dict[str, int]], sentence: str) -> None:
    with pytest.raises(SpaceError) as caught:
        load_space(tmp_path, ladder=rungs)
    assert sentence in str(caught.value)

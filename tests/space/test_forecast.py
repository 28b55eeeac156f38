import re
from pathlib import Path
from typing import Any

import pytest

from rkdsearch.config.fidelity import Fidelity
from rkdsearch.search import front
from rkdsearch.space import forecast
from rkdsearch.space.settings import SchedulerConfig
from tests.search.files import CAPPED, load_space, run

AFRESH, CONTINUED = SchedulerConfig(), SchedulerConfig(capped="continued")
RUNGS = (
    Fidelity(epochs=6, training_attack_steps=2),
    Fidelity(epochs=18, training_attack_steps=2),
    Fidelity(epochs=54),
)


def test_costs_are_shares_of_a_full_run_with_three_steps_for_all_that_is_no_attack() -> None:
    assert forecast.rung_costs(RUNGS, AFRESH, 10) == pytest.approx(
        [6 / 54 * 5 / 13, 12 / 54 * 5 / 13, 1]
    )
    assert forecast.rung_costs(RUNGS, CONTINUED, 10) == pytest.approx(
        [6 / 54 * 5 / 13, 12 / 54 * 5 / 13, 36 / 54]
    )
    assert forecast.rung_costs(RUNGS, AFRESH, 10, start=1) == pytest.approx(
        [0, 18 / 54 * 5 / 13, 1]
    )
    assert forecast.rung_costs(RUNGS, AFRESH, 2) == pytest.approx([6 / 54, 12 / 54, 36 / 54])


def test_the_forecast_has_every_rung_and_the_cost(tmp_path: Path) -> None:
    changes = {
        **CAPPED,
        "fixed": {**CAPPED["fixed"], "attack.steps": 10},
        "search": {"method.name": {"choice": ["pgd_at", "trades"]}},
    }
    lines = load_space(tmp_path, **changes, replicates={"seeds": 2, "contenders": 3}).forecast(10)
    assert lines == [
        (
            "rung: 1 of 4 epochs, training attack of at most 2 steps, validation attack of at most"
            " 5 steps, about 9 searched trials and 1 baseline"
        ),
        (
            "rung: 2 of 4 epochs, training attack of at most 2 steps, about 3 searched trials and 1"
            " baseline"
        ),
        "full length: 4 epochs, about 1 searched trial and 1 baseline",
        # 9 x 5/52, 3 x 5/52, 1 x 1, and the baseline's 62/52
        (
            "then 2 replicates each of up to 3 contenders, of the best of each of 2 methods and of"
            " the 1 baseline, to full length"
        ),
        # two finish: of contenders, methods and a baseline, no more can be replicated
        (
            "expected cost: about 7.3 full runs: 3.3 for 10 configurations (moasha, promotion) and"
            " up to 4 for replicates"
        ),
    ]


def test_brackets_are_in_the_forecast(tmp_path: Path) -> None:
    space = load_space(tmp_path, scheduler={"reduction": 4, "brackets": 2}, first=None)
    assert space.forecast(16) == [
        "rung: 1 of 4 epochs, about 12 searched trials and 0 baselines",
        "rung: 2 of 4 epochs, about 8 searched trials and 0 baselines",
        "full length: 4 epochs, about 2 searched trials and 0 baselines",
        # 12 quarters, 4 quarters of those who climb and 4 halves of those who begin there, 2 halves
        "expected cost: about 7.0 full runs for 16 configurations (moasha, promotion)",
    ]


@pytest.mark.parametrize(
    ("kind", "reduction", "trials", "baselines", "expected"),
    [
        # of 100 simulated searches: 9.9 and 7.0; 23.1 and 11.2; 2.0 and 0.2; 1.0 and 0; 9.8 and 4.6
        ("promotion", 2, 24, 7, [17, 10, 5]),
        ("promotion", 3, 60, 4, [56, 23, 9]),
        ("promotion", 4, 8, 1, [7, 2, 0]),
        ("promotion", 3, 3, 0, [3, 1, 0]),
        ("stopping", 4, 40, 4, [36, 12, 5]),
    ],
)
def test_about_as_many_are_promoted_as_in_simulated_searches(
    kind: Any, reduction: int, trials: int, baselines: int, expected: list[int]
) -> None:
    scheduler, found = SchedulerConfig(kind=kind, reduction=reduction), [trials - baselines]
    for _ in range(2):
        found.append(forecast.promoted(scheduler, found[-1], baselines))
    assert found == expected


def test_the_forecast_warns_where_no_searched_trial_can_reach_full_length(
    tmp_path: Path,
) -> None:
    space = load_space(tmp_path, scheduler={"reduction": 4})
    warning = space.forecast(8)[-1]
    assert warning.startswith(
        "WARNING: no searched trial is likely to reach full length: 8 configurations are too few"
        " for 3 rungs with a scheduler.reduction of 4; ask for 12 or more, or lower it, or take a"
    )
    assert not [line for line in space.forecast(12) if "WARNING" in line]
    assert [line for line in space.forecast(11) if "WARNING" in line]
    trials = run(tmp_path / "study", space, trials=8).trials.values()
    assert {t.origin for t in front.finished(trials, space)} == {"baseline"}
    assert not [line for line in space.forecast(40) if "WARNING" in line]
    # the baseline alone was asked for
    assert not [line for line in space.forecast(1) if "WARNING" in line]


def test_the_forecast_has_the_cost_of_a_search(tmp_path: Path) -> None:
    lines = load_space(tmp_path).forecast(10)
    assert lines[0] == "rung: 1 of 4 epochs, about 9 searched trials and 1 baseline"
    # 1 full run + 9 to a quarter + 3 for another quarter + 1 for the other half
    assert lines[-1].startswith("expected cost: about 4.5 full runs for 10 configurations")


def test_the_cost_of_a_race_is_an_expectation_and_its_most_is_told(tmp_path: Path) -> None:
    race = {"seeds": 8, "race": 1, "contenders": 8, "baselines": False}
    space = load_space(
        tmp_path,
        scheduler={"name": "none"},
        search={"optimizer.lr": {"float": [0.01, 0.3]}},
        fixed={"data.name": "digits", "method.name": "natural"},
        first=[],
        replicates=race,
    )
    # eight of twelve, the best of the only method among them:
    # 1 x 8, 1 x 4, 2 x 2 and 4 x 1 replicates are expected
    assert space.forecast(12)[-1] == (
        "expected cost: about 32 full runs: 12 for 12 configurations and about 20, at most 64, for"
        " replicates"
    )


def test_without_rungs_and_replicates_every_trial_is_a_full_run(tmp_path: Path) -> None:
    space = load_space(tmp_path, scheduler={"name": "none"})
    assert space.forecast(12)[-1] == ("expected cost: about 12 full runs for 12 configurations")


def test_a_reduction_that_no_search_can_serve_is_told_at_once(tmp_path: Path) -> None:
    warning = load_space(tmp_path, scheduler={"reduction": 10**6}).forecast(10)[-1]
    assert "a scheduler.reduction of 1000000; lower it, or take a rung away" in warning
    warning = load_space(tmp_path, scheduler={"reduction": 100}).forecast(10)[-1]
    enough = int(re.findall(r"ask for (\d+) or more", warning)[0])
    space = load_space(tmp_path, scheduler={"reduction": 100})
    assert [line for line in space.forecast(enough - 1) if "WARNING" in line]
    assert not [line for line in space.forecast(enough) if "WARNING" in line]

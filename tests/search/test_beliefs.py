from pathlib import Path
from typing import Any

import pytest

from rkdsearch.errors import SpaceError
from rkdsearch.results.beliefs import worth_of_baselines
from rkdsearch.results.cells import records
from rkdsearch.results.states import Origin, ProposedBy, Status
from rkdsearch.results.store import Store
from rkdsearch.results.study import read_study
from rkdsearch.search.beliefs import NOWHERE
from rkdsearch.search.study import Study
from rkdsearch.search.trial import Trial
from rkdsearch.space.check import notices
from rkdsearch.training import config_rows
from tests.search.files import SMALL, load_space, on_disk, run

pytestmark = pytest.mark.usefixtures("unhurried")

SEARCHED = {
    **SMALL["search"],
    "attack.eps": {"float": [0.1, 0.2]},
    "attack.steps": {"choice": [2, 5, 10]},
}
# a learning rate of 0.08 is best in the simulated runs
GOOD = {**SMALL["first"][0], "attack.eps": 0.15, "attack.steps": 10, "optimizer.lr": 0.08}
BAD = {**GOOD, "label": "misprint", "optimizer.lr": 0.0101}


def believing(folder: Path, *first: dict[str, Any], **more: Any) -> Any:
    return load_space(
        folder,
        fixed={k: v for k, v in SMALL["fixed"].items() if k != "attack.steps"},
        search=SEARCHED,
        first=list(first),
        sampler={"name": "tpe", "startup": 7, "beliefs": "medium", **more},
    )


def near_a_baseline(study: Study) -> list[Trial]:
    return [t for t in study.trials.values() if t.proposed_by == ProposedBy.BELIEF]


def test_a_baseline_that_few_outrank_is_followed_by_trials_near_it_at_full_length(
    tmp_path: Path,
) -> None:
    study = run(tmp_path / "s", believing(tmp_path, GOOD), trials=1 + 12)
    searched = [t for t in study.trials.values() if t.origin == Origin.SEARCH]
    assert [t.proposed_by for t in searched] == [
        *[ProposedBy.CHANCE] * 6,  # nothing is believed unseen
        ProposedBy.BELIEF,
        ProposedBy.BELIEF,
        ProposedBy.MODEL,
        ProposedBy.MODEL,
        ProposedBy.BELIEF,
        ProposedBy.MODEL,
    ]
    for trial in near_a_baseline(study):
        assert trial.notes["belief"] == "t00000"
        assert trial.status == Status.FINISHED
        assert trial.decisions == []  # no rung on the way
        assert trial.hyperparameters["method.name"] == "trades"
        assert 0.03 < trial.hyperparameters["optimizer.lr"] < 0.21
        assert trial.hyperparameters["attack.steps"] == 5  # half of the published ten
    # spread over the ball, by multiples of the golden ratio: 0.1 + 0.1 * (0.118, 0.736, 0.354)
    eps = [t.hyperparameters["attack.eps"] for t in near_a_baseline(study)]
    assert eps == pytest.approx([0.11180, 0.17361, 0.13541], abs=1e-5)


def test_a_baseline_that_is_outranked_is_not_believed_and_told_at_the_lowest_rung(
    tmp_path: Path,
) -> None:
    study = run(tmp_path / "s", believing(tmp_path, BAD), trials=1 + 12)
    assert near_a_baseline(study) == []
    told = study.observations()[0]
    assert told.rungs_short == 2  # of three rungs
    doubted = run(tmp_path / "t", believing(tmp_path, BAD, beliefs="none"), trials=1 + 12)
    assert doubted.observations()[0].rungs_short == 0


def test_the_forecast_says_how_many_proposals_may_come_near_baselines(tmp_path: Path) -> None:
    space = believing(tmp_path, GOOD, BAD)
    assert [line for line in space.forecast(2 + 20) if "beliefs" in line] == [
        (
            "beliefs (medium): once 6 searched trials stand on the lowest rung, up to 7 of the"
            " other 14 proposals are made near baselines that few outrank there, and trained to"
            " full length at once: up to 5.2 full runs more"
        )
    ]


def test_what_the_space_does_not_search_of_a_believed_method_is_as_published(
    tmp_path: Path,
) -> None:
    """ARD at a temperature near 30 without its scale would be ten times as steep."""
    baseline = {**GOOD, "method.name": "trades", "method.kl_scale": 0.5, "schedule.name": "cosine"}
    space = believing(tmp_path, baseline)
    near = near_a_baseline(run(tmp_path / "s", space, trials=1 + 12))
    assert {t.hyperparameters["method.kl_scale"] for t in near} == {0.5}
    assert {t.config.method.kl_scale for t in near} == {0.5}  # type: ignore[attr-defined]  # TRADES has it
    assert all("schedule.name" not in t.hyperparameters for t in near)  # the search's own
    assert all(0.5 <= t.hyperparameters["method.consistency_weight"] <= 9 for t in near)


def test_of_two_baselines_the_one_that_holds_is_believed(tmp_path: Path) -> None:
    study = run(tmp_path / "s", believing(tmp_path, BAD, GOOD), trials=2 + 10)
    assert {t.notes["belief"] for t in near_a_baseline(study)} == {"t00001"}


def test_a_prior_of_a_parameter_takes_the_place_of_the_published_value(tmp_path: Path) -> None:
    searched = {
        **SEARCHED,
        "optimizer.weight_decay": {"float": [1e-5, 1e-1], "log": True, "prior": 1e-2},
        "attack.steps": {"choice": [2, 5, 10], "prior": 10},
    }
    space = load_space(
        tmp_path,
        fixed={k: v for k, v in SMALL["fixed"].items() if k != "attack.steps"},
        search=searched,
        first=[{**GOOD, "optimizer.weight_decay": 1e-4}],
        sampler={"name": "tpe", "startup": 7, "beliefs": "high"},
    )
    near = near_a_baseline(run(tmp_path / "study", space, trials=24))
    assert len(near) >= 5
    decays = [t.hyperparameters["optimizer.weight_decay"] for t in near]
    # within three standard deviations, of a tenth of four decades each
    assert all(1e-2 / 10**1.2 < decay < 1e-2 * 10**1.2 for decay in decays)
    # without a prior, half of the published ten steps
    assert {t.hyperparameters["attack.steps"] for t in near} == {10}


def test_a_grid_of_one_setting_is_one_belief_in_its_best_value(tmp_path: Path) -> None:
    family = {"grid": {"optimizer.lr": [0.05, 0.08, 0.12]}}
    entry = {k: v for k, v in GOOD.items() if k != "optimizer.lr"} | family
    study = run(tmp_path / "s", believing(tmp_path, entry), trials=3 + 10)
    assert {t.notes["belief"] for t in near_a_baseline(study)} == {"t00001"}
    assert study.trials["t00001"].label == "published, optimizer.lr 0.08"


def test_a_baseline_with_another_label_keeps_the_trials_near_it(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    first = near_a_baseline(run(folder, believing(tmp_path, GOOD), trials=1 + 10))
    assert len(first) == 2
    # an earlier version noted its label
    store = Store(folder, config_rows.columns(()))
    for row in records(store.trials()):
        if row["trial_id"] == "t00007":
            store.write_trial(row | {"notes": '{"belief": "published"}'})
    space = believing(tmp_path, {**GOOD, "label": "paper"})
    # half of what follows: one more, and not the first two again
    study = run(folder, space, trials=1 + 12)
    assert [t.notes["belief"] for t in near_a_baseline(study)] == ["t00000"] * 3
    # as the folder has them, where the note of the first is an old label
    assert worth(folder) == [("paper", 2)]


def worth(folder: Path) -> list[tuple[str, int]]:
    found = read_study(folder)
    rows = records(worth_of_baselines(found.trials, found.front))
    return [(row["label"], row["near"]) for row in rows]


def test_a_baseline_that_the_space_has_lost_is_believed_no_more(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    run(folder, believing(tmp_path, GOOD), trials=1 + 8)
    assert worth(folder) == [("published", 2)]
    # its learning rate was a misprint
    corrected = {**GOOD, "optimizer.lr": 0.09}
    study = run(folder, believing(tmp_path, corrected), trials=2 + 14)
    near = [t.notes["belief"] for t in near_a_baseline(study)]
    assert near[:2] == ["t00000"] * 2
    assert set(near[2:]) == {"t00009"}
    assert study.trials["t00009"].hyperparameters["optimizer.lr"] == 0.09
    assert worth(folder) == [
        ("published (not in the space any more)", 2),
        ("published", len(near) - 2),
    ]
    lost = run(tmp_path / "t", believing(tmp_path, GOOD), trials=1 + 8)
    again = run(tmp_path / "t", believing(tmp_path), trials=1 + 14)
    assert len(near_a_baseline(lost)) == len(near_a_baseline(again)) == 2


def test_a_baseline_that_failed_or_is_flagged_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = believing(tmp_path, GOOD)
    study = run(tmp_path / "s", space, trials=1 + 6)
    (baseline,) = study.ledger.asked.baseline_trials
    beliefs, near = study._beliefs, [NOWHERE] * 6
    assert beliefs.choose([baseline], near, None) is baseline
    baseline.status = Status.FAILED
    assert beliefs.choose([baseline], near, None) is None
    baseline.status = Status.FINISHED
    monkeypatch.setattr("rkdsearch.search.beliefs.kept_off", lambda trial: trial is baseline)
    assert beliefs.choose([baseline], near, None) is None


def test_a_baseline_without_another_setting_near_it_does_not_end_the_other_beliefs(
    tmp_path: Path,
) -> None:
    """All of a baseline's neighbours have more parameters than the space allows."""
    study = run(
        tmp_path / "s",
        believing(tmp_path, GOOD, {**GOOD, "label": "again", "attack.eps": 0.12}),
        trials=2 + 6,
    )
    blocked, other = study.ledger.asked.baseline_trials
    first = study.feasibility.first_feasible
    tried: list[str] = []

    def feasible(proposals: Any, asked: Any, trial_id: str) -> Any:
        found = list(proposals)
        tried.append(found[0].notes["belief"])
        return (
            None if found[0].notes["belief"] == blocked.trial_id else first(found, asked, trial_id)
        )

    study.feasibility.first_feasible = feasible  # type: ignore[method-assign]  # one is blocked
    found = study._near_baseline(8, None)
    assert found is not None
    assert found.notes["belief"] == other.trial_id
    assert tried == [blocked.trial_id, other.trial_id]


def test_near_a_baseline_of_another_method_than_the_fixed_one_nothing_is_proposed(
    tmp_path: Path,
) -> None:
    fixed = {k: v for k, v in SMALL["fixed"].items() if k != "attack.steps"}
    search = {k: v for k, v in SEARCHED.items() if not k.startswith("method.")}
    space = load_space(
        tmp_path,
        fixed={**fixed, "method.name": "pgd_at"},
        search=search,
        first=[GOOD],
        sampler={"name": "tpe", "startup": 7, "beliefs": "medium"},
    )
    assert near_a_baseline(run(tmp_path / "s", space, trials=1 + 10)) == []
    assert any("sampler.beliefs medium: has no effect" in text for text in notices(space))
    assert not any("near baselines" in line for line in space.forecast(20))


def test_a_baseline_in_its_warm_up_is_judged_on_the_rung_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "rkdsearch.space.check.undecided_until",
        lambda config: 1 if config.attack.steps == 10 else 0,
    )
    space = believing(tmp_path, GOOD)
    study = run(tmp_path / "s", space, trials=1 + 14)
    first = study.scheduler.rungs[0]
    assert "t00000" not in first.values  # one epoch is within its warm-up
    first_near = near_a_baseline(study)[0]
    assert {t.notes["belief"] for t in near_a_baseline(study)} == {"t00000"}
    assert "t00000" in study.scheduler.rungs[1].values
    assert first_near.ordinal >= 7


def test_a_belief_gives_a_method_its_minimum(tmp_path: Path) -> None:
    space = believing(tmp_path, GOOD, minimum_per={"method.name": 3})
    study = run(tmp_path / "s", space, trials=1 + 9)
    searched = [t for t in study.trials.values() if t.origin == Origin.SEARCH]
    methods = [t.hyperparameters["method.name"] for t in searched]
    assert {name: methods.count(name) for name in set(methods)} == {
        "natural": 3,
        "pgd_at": 3,
        "trades": 3,
    }
    assert len(near_a_baseline(study)) == 1  # the third of trades
    assert [t.proposed_by for t in searched].count(ProposedBy.MINIMUM) == 8


def test_a_baseline_of_a_method_that_is_not_searched_is_no_belief(tmp_path: Path) -> None:
    other = {**GOOD, "method.name": "pgd_at"}
    del other["method.consistency_weight"]
    space = load_space(
        tmp_path,
        fixed={k: v for k, v in SMALL["fixed"].items() if k != "attack.steps"},
        search={**SEARCHED, "method.name": {"choice": ["natural", "trades"]}},
        first=[other],
        sampler={"name": "tpe", "beliefs": "high"},
    )
    study = run(tmp_path / "s", space, trials=1 + 8)
    # it holds, and cannot be proposed
    assert study._beliefs.refuted(study.ledger.asked.baseline_trials) == set()
    assert near_a_baseline(study) == []


@pytest.mark.parametrize("first_session", [5, 8, 9])
def test_a_resumed_search_believes_what_an_uninterrupted_one_would(
    tmp_path: Path, first_session: int
) -> None:
    space = believing(tmp_path, GOOD, BAD)
    run(tmp_path / "resumed", space, trials=first_session)
    run(tmp_path / "resumed", space, trials=13)
    run(tmp_path / "whole", space, trials=13)
    assert on_disk(tmp_path / "resumed") == on_disk(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"scheduler": {"name": "none"}},
            "sampler.beliefs: baselines are judged on the lowest rung, and there is none",
        ),
        (
            {"sampler": {"name": "qmc", "beliefs": "low"}},
            "sampler.beliefs: a qmc sampler proposes every point of its own; take tpe",
        ),
    ],
)
def test_beliefs_need_rungs_and_a_sampler_that_leaves_proposals_to_them(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SpaceError, match=sentence):
        load_space(tmp_path, **{"sampler": {"name": "tpe", "beliefs": "low"}, **changes})


def test_steps_near_a_baseline_are_steps_of_the_range(tmp_path: Path) -> None:
    searched = {**SEARCHED, "attack.steps": {"int": [2, 10], "step": 4}}
    space = load_space(
        tmp_path,
        fixed={k: v for k, v in SMALL["fixed"].items() if k != "attack.steps"},
        search=searched,
        first=[GOOD],
        sampler={"name": "tpe", "startup": 7, "beliefs": "medium"},
    )
    study = run(tmp_path / "s", space, trials=1 + 8)
    # half of ten is five, which is none of 2, 6 and 10
    assert {t.hyperparameters["attack.steps"] for t in near_a_baseline(study)} == {6}

"""A study that goes on with a larger space, and configurations that are added by hand."""

import re
from pathlib import Path
from typing import Any

import pytest

from rkdsearch.errors import ConfigError, SpaceError, StudyError
from rkdsearch.results.cells import records
from rkdsearch.results.states import Origin
from rkdsearch.results.store import Store
from rkdsearch.search import queue, study_file
from rkdsearch.search.feasibility import ExhaustedSpaceError
from tests.search.files import SMALL, AheadWorker, load_space, on_disk, run

pytestmark = pytest.mark.usefixtures("unhurried")

FINITE: dict[str, Any] = {
    "search": {
        "method.name": {"choice": ["natural", "pgd_at"]},
        "optimizer.lr": {"float": [0.1, 0.2], "step": 0.1},
    },
    "first": [],
}


def claim(study: Path, **changes: Any) -> list[str]:
    said = list[str]()
    space = load_space(study.parent, **changes)
    assert study_file.claim(study, space, resume=True, notice=said.append)
    return said


@pytest.fixture
def study(tmp_path: Path) -> Path:
    study_file.describe(tmp_path / "study", load_space(tmp_path), {})
    return tmp_path / "study"


def searched(**changes: Any) -> dict[str, Any]:
    return {"search": {**SMALL["search"], **changes}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            searched(**{"method.name": {"choice": ["natural", "peeraid", "pgd_at", "trades"]}}),
            "search.method.name gained peeraid: earlier trials had no chance there: accepted",
        ),
        (
            searched(**{"optimizer.lr": {"float": [0.001, "3e-1"], "log": True}}),
            (
                "search.optimizer.lr was [0.01, 0.3], is [0.001, 0.3]: earlier trials had no chance"
                " there: accepted"
            ),
        ),
        (
            searched(**{"optimizer.momentum": {"float": [0.0, 0.9]}}),
            (
                "search.optimizer.momentum is searched now: earlier trials keep the value that they"
                " had: accepted"
            ),
        ),
        (
            {"first": [*SMALL["first"], {"label": "PGD", "method.name": "pgd_at"}]},
            "first baselines PGD are trained next: accepted",
        ),
        (
            {"first": [{**SMALL["first"][0], "label": "TRADES"}]},
            "first published is now TRADES: accepted",
        ),
        (
            {"ladder": [{"epochs": 1}, {"epochs": 2}, {"epochs": 3}, {"epochs": 4}]},
            (
                "ladder gained rungs at 3 epochs: trials that are beyond are ranked there by what"
                " they had reached: accepted"
            ),
        ),
    ],
)
def test_a_space_may_grow_and_each_change_says_what_it_means(
    study: Path, changes: dict[str, Any], said: str
) -> None:
    assert claim(study, **changes) == [said]


@pytest.mark.parametrize(
    "changes",
    [
        searched(**{"method.name": {"choice": ["natural", "trades"]}}),
        searched(**{"optimizer.lr": {"float": [0.02, 0.3], "log": True}}),
        searched(**{"optimizer.lr": {"float": [0.001, 0.3]}}),
        searched(**{"optimizer.lr": {"choice": [0.01, 0.3]}}),
        {"first": []},
        {"first": [{**SMALL["first"][0], "optimizer.lr": 0.2}]},
        {"ladder": [{"epochs": 1}, {"epochs": 2}, {"epochs": 4}, {"epochs": 8}]},
        {"ladder": [{"epochs": 1, "training_attack_steps": 1}, {"epochs": 2}, {"epochs": 4}]},
    ],
)
def test_what_the_rows_forbid_is_refused(study: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(StudyError, match="was made by another space"):
        claim(study, **changes)


def test_a_longer_run_is_refused_with_the_way_out(study: Path) -> None:
    longer = {"ladder": [*SMALL["ladder"], {"epochs": 8}]}
    with pytest.raises(StudyError, match=re.escape(f"with --warm-start {study} its sampler")):
        claim(study, **longer)


def test_a_grown_study_keeps_its_trials_and_trains_new_baselines_next(tmp_path: Path) -> None:
    fixed = {**SMALL["fixed"], "optimizer.momentum": 0.5}
    baseline = {**SMALL["first"][0], "optimizer.momentum": 0.5}
    first = run(tmp_path / "s", load_space(tmp_path, fixed=fixed, first=[baseline]), trials=4)
    before = on_disk(tmp_path / "s")["trials"]
    grown = load_space(
        tmp_path,
        **searched(
            **{
                "optimizer.momentum": {"float": [0.0, 0.9]},
                "optimizer.lr": {"float": [0.001, 0.3], "log": True},
            }
        ),
        first=[baseline, {"label": "PGD", "method.name": "pgd_at"}],
    )
    second = run(tmp_path / "s", grown, trials=6)
    assert {name: second.trials[name].config for name in first.trials} == {
        name: trial.config for name, trial in first.trials.items()
    }
    assert {
        name: on_disk(tmp_path / "s")["trials"][name]["metric.clean_accuracy"] for name in before
    } == {name: row["metric.clean_accuracy"] for name, row in before.items()}
    assert [
        (t.ordinal, t.label) for t in second.trials.values() if t.origin == Origin.BASELINE
    ] == [
        (0, "published"),
        (4, "PGD"),
    ]
    # momentum 0.5, which was fixed, is an observation of what is searched now
    told = second.observations()
    assert [o.hyperparameters["optimizer.momentum"] for o in told[:4]] == [0.5] * 4


def test_a_finite_space_is_searched_without_repetition_and_ends_with_a_sentence(
    tmp_path: Path,
) -> None:
    for sampler in ({"name": "tpe", "startup": 2}, {"name": "random"}, {"name": "grid"}):
        space = load_space(tmp_path, **FINITE, sampler=sampler)
        study = run(tmp_path / str(sampler["name"]), space, AheadWorker(), trials=10)
        runs = {t.config.fingerprint() for t in study.trials.values()}
        assert len(study.trials) == len(runs) == 4
        assert isinstance(study.exhausted, ExhaustedSpaceError)
        assert str(study.exhausted) == (
            "small: all 4 feasible combinations were asked, and the search ends after 4"
            " configurations; widen a range for more"
        )


def test_a_proposal_equal_to_a_baseline_is_not_trained_again(tmp_path: Path) -> None:
    baseline = {"label": "B", "method.name": "pgd_at", "optimizer.lr": "1e-1"}
    space = load_space(tmp_path, **{**FINITE, "first": [baseline]})
    study = run(tmp_path / "s", space, AheadWorker(), trials=9)
    assert len(study.trials) == 4


def test_the_name_of_a_study_stays_when_its_folder_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = load_space(tmp_path)
    study_file.describe(tmp_path / "old", space, {})
    run(tmp_path / "old", space, trials=2)
    (tmp_path / "old").rename(tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new")
    run(Path(), space, trials=3)
    assert {row["study"] for row in records(Store(Path()).trials())} == {"old"}
    study_file.describe(Path(), space, {})
    assert Store(Path()).description()["name"] == "old"


def test_an_enqueued_configuration_is_trained_next_and_beside_the_trials_asked_for(
    tmp_path: Path,
) -> None:
    space, folder = load_space(tmp_path), tmp_path / "s"
    study_file.describe(folder, space, {})
    run(folder, space, trials=3)
    overrides = study_file.enqueuable(
        study_file.space_of(folder), {"method.name": "pgd_at", "optimizer": {"lr": "2e-1"}}
    )
    assert overrides == {"method.name": "pgd_at", "optimizer.lr": 0.2}
    queue.enqueue(folder, overrides, "by hand")
    again = run(folder, space, trials=3)
    added = again.trials["t00003"]
    assert (added.label, added.config.optimizer.lr, added.origin) == ("by hand", 0.2, Origin.SEARCH)
    assert len(again.trials) == 4
    assert run(folder, space, trials=3).done, "it is trained once"
    assert len(run(folder, space, trials=4).trials) == 5


def test_what_cannot_be_enqueued_is_refused_at_once(tmp_path: Path) -> None:
    space = load_space(tmp_path)
    with pytest.raises(ConfigError, match=r"enqueue: optimizer.lr must be > 0, got -1"):
        study_file.enqueuable(space, {"method.name": "pgd_at", "optimizer.lr": -1})
    with pytest.raises(SpaceError, match=r"enqueue: validation.every must not differ"):
        study_file.enqueuable(space, {"method.name": "pgd_at", "validation.every": 2})
    with pytest.raises(StudyError, match=r"has no study; begin one there"):
        study_file.space_of(tmp_path / "nowhere")
    (tmp_path / "s" / queue.FOLDER).mkdir(parents=True)
    (tmp_path / "s" / queue.FOLDER / "1.json").write_text("{")
    with pytest.raises(StudyError, match=r"1.json: is damaged; delete it, and enqueue it again"):
        queue.waiting(tmp_path / "s", [])

"""A race over seeds: many contenders get a few replicates, the better half of them more."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rkdsearch.errors import SpaceError
from rkdsearch.results.states import Status
from rkdsearch.search import race
from rkdsearch.search.study import Study
from rkdsearch.space.settings import Replicates
from tests.search.files import FakeWorker, load_space, on_disk, run
from tests.search.test_front import measured_anew, names

pytestmark = pytest.mark.usefixtures("unhurried")

RACE: dict[str, Any] = {"seeds": 4, "contenders": 4, "baselines": False, "race": 1}
# Means of four students over one seed, clean and robust.
FOUR = {"t00000": (0.8, 0.2), "t00001": (0.7, 0.3), "t00002": (0.6, 0.2), "t00003": (0.6, 0.1)}


def raced(folder: Path, accuracies: dict[str, tuple[float, float]], **settings: Any) -> Study:
    """A search of four full-length trials whose replicates, of any seed, have these accuracies."""
    space = load_space(
        folder,
        fixed={"data.name": "digits", "student.name": "small_cnn", "method.name": "natural"},
        search={"optimizer.lr": {"float": [0.01, 0.3]}},
        first=[{"label": "published", "optimizer.lr": 0.1}],
        scheduler={"name": "none"},
        replicates={**RACE, **settings},
    )
    study = Study(folder, space, 4, {})
    study.reconcile()
    worker = FakeWorker()
    while not study.done:
        assignment = study.next()
        assert assignment is not None
        for result in worker.run(assignment):
            study.report(assignment.trial_id, result, {"run.processes": 1})
        clean, robust = accuracies[assignment.trial_id.split("-")[0]]
        measured_anew(study, assignment.trial_id, clean_accuracy=clean, robust_accuracy=robust)
    return study


def replicates(study: Study) -> dict[str, int]:
    """Number of replicates of each configuration that has one."""
    return dict(Counter(t.trial_id.split("-")[0] for t in study.ledger.replicates))


def test_each_round_doubles_the_seeds_and_halves_the_contenders() -> None:
    settings = Replicates(seeds=12, race=2)
    assert settings.rounds == (2, 4, 8, 12)
    assert settings.runs(16) == 2 * 16 + 2 * 8 + 4 * 4 + 4 * 2
    assert settings.runs(5, baselines=2) == 2 * 5 + 2 * 3 + 4 * 2 + 4 * 1 + 12 * 2


def test_without_a_race_every_contender_has_all_seeds_at_once() -> None:
    assert Replicates(seeds=8).rounds == (8,)
    assert Replicates(seeds=8).runs(5) == 40
    assert Replicates().rounds == ()


def test_a_race_as_long_as_the_replicates_is_none(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="race must be below seeds, or 0 for no race, got race 4"):
        load_space(tmp_path, replicates={"seeds": 4, "race": 4})


def test_the_better_half_of_the_contenders_gets_more_replicates(tmp_path: Path) -> None:
    study = raced(tmp_path, FOUR)
    # two of four go on, and then both again, because none of them dominates the other
    assert replicates(study) == {"t00000": 4, "t00001": 4, "t00002": 1, "t00003": 1}
    assert names(study) == ["t00000", "t00001"]


def test_a_contender_that_none_dominates_never_drops_out(tmp_path: Path) -> None:
    three = {**FOUR, "t00002": (0.6, 0.4)}
    study = raced(tmp_path, three)
    assert replicates(study) == {"t00000": 4, "t00001": 4, "t00002": 4, "t00003": 1}
    assert names(study) == ["t00000", "t00001", "t00002"]


def test_one_that_dropped_out_is_on_no_front_though_its_few_replicates_were_lucky(
    tmp_path: Path,
) -> None:
    study = raced(tmp_path, FOUR)
    measured_anew(study, "t00002-r1", clean_accuracy=0.9, robust_accuracy=0.9)
    assert names(study) == ["t00000", "t00001"]


def test_replicated_baselines_stay_in_the_race_and_take_no_place(tmp_path: Path) -> None:
    worst = {**FOUR, "t00000": (0.1, 0.1), "t00003": (0.5, 0.1)}
    study = raced(tmp_path, worst, baselines=True)
    assert study.trials["t00000"].label == "published"
    assert replicates(study) == {"t00000": 4, "t00001": 4, "t00002": 2, "t00003": 1}


def test_one_whose_replicates_all_failed_drops_out(tmp_path: Path) -> None:
    study = raced(tmp_path, FOUR)
    for number in (1, 2, 3, 4):
        study.trials[f"t00001-r{number}"].status = Status.FAILED
    racing = [study.trials["t00000"], study.trials["t00001"]]
    settings = study.space.replicates
    assert [
        t.trial_id
        for t in race.survivors(study.trials, racing, 4, settings, study.space.objectives)
    ] == ["t00000"]


def test_a_search_stopped_in_its_race_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    space = load_space(tmp_path, replicates={**RACE, "contenders": 6}, scheduler={"name": "none"})
    whole = run(tmp_path / "whole", space)
    assert max(replicates(whole).values()) == 4
    assert min(replicates(whole).values()) == 1
    assignments = 0
    while True:  # a new process for every assignment
        study = Study(tmp_path / "parts", space, 7, {})
        study.reconcile()
        if study.done:
            break
        assignment = study.next()
        assert assignment is not None
        for result in FakeWorker().run(assignment):
            if not study.report(assignment.trial_id, result, {"run.processes": 1}):
                break
        study.close()
        assignments += 1
    assert assignments == len(whole.trials)
    assert on_disk(tmp_path / "parts")["trials"] == on_disk(tmp_path / "whole")["trials"]


def test_longer_replicates_of_a_resumed_search_go_to_the_survivors_alone(tmp_path: Path) -> None:
    study = raced(tmp_path, FOUR)
    study.space = replace(
        study.space, replicates=study.space.replicates.model_copy(update={"seeds": 6})
    )
    found = {(t.trial_id, n) for t, n in study._open_replicates()}
    assert found == {("t00000", 5), ("t00000", 6), ("t00001", 5), ("t00001", 6)}

"""A race over seeds: many contenders get a few replicates, the better half of them more."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from rkdsearch.errors import SpaceError, StudyError
from rkdsearch.results.states import Status
from rkdsearch.search import front, race
from rkdsearch.search.study import Study
from rkdsearch.space.settings import Replicates
from tests.search.files import FakeWorker, load_space, on_disk, run
from tests.search.test_front import checked, measured_anew, names

pytestmark = pytest.mark.usefixtures("unhurried")

RACE: dict[str, Any] = {"seeds": 4, "contenders": 4, "baselines": False, "race": 1}
# Means of four students over one seed, clean and robust.
FOUR = {"t00000": (0.8, 0.2), "t00001": (0.7, 0.3), "t00002": (0.6, 0.2), "t00003": (0.6, 0.1)}


RACED: dict[str, Any] = {
    "fixed": {"data.name": "digits", "student.name": "small_cnn", "method.name": "natural"},
    "search": {"optimizer.lr": {"float": [0.01, 0.3]}},
    "scheduler": {"name": "none"},
}
Accuracies = Mapping[str, tuple[float, float]]


def raced(
    folder: Path,
    accuracies: Accuracies,
    *,
    single: Accuracies | None = None,
    described: Mapping[str, Any] = MappingProxyType({}),
    constant: Collection[str] = (),
    **settings: Any,
) -> Study:
    """A search of four full-length trials whose replicates, of any seed, have these accuracies.

    The trials themselves have those of `single`, where it is given.
    """
    space = load_space(
        folder,
        first=[{"label": "published", "optimizer.lr": 0.1}],
        replicates={**RACE, **settings},
        **RACED,
        **described,
    )
    study = Study(folder, space, 4, {})
    study.reconcile()
    return finish(study, accuracies, single=single, constant=constant)


def finish(
    study: Study,
    accuracies: Accuracies,
    *,
    single: Accuracies | None = None,
    until: Callable[[], bool] = lambda: False,
    constant: Collection[str] = (),
) -> Study:
    """Train all that is left, or until something is so; each run has its given accuracies.

    Replicates of those in `constant` give all images one class.
    """
    worker = FakeWorker()
    while not study.done and not until():
        assignment = study.next()
        assert assignment is not None
        for result in worker.run(assignment):
            study.report(assignment.trial_id, result, {"run.processes": 1})
        name, _, replicate = assignment.trial_id.partition("-")
        clean, robust = (accuracies if replicate or single is None else single)[name]
        worst = {"worst_class_accuracy": 0.0} if replicate and name in constant else {}
        measured_anew(
            study, assignment.trial_id, clean_accuracy=clean, robust_accuracy=robust, **worst
        )
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


def test_a_constant_prediction_does_not_win_the_race(tmp_path: Path) -> None:
    """Of classes of which one has 80 % of the images; no attack moves a constant."""
    study = raced(
        tmp_path, {**FOUR, "t00002": (0.8, 0.8)}, constant=frozenset({"t00002"}), contenders=5
    )
    assert replicates(study) == {"t00000": 4, "t00001": 4, "t00002": 1, "t00003": 1}
    assert names(study) == ["t00000", "t00001"]


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
        for t in race.survivors(
            study.trials, racing, 4, settings, study.space.objectives, study.space.constraints
        )
    ] == ["t00000"]


def test_those_within_the_constraints_come_before_all_others_in_a_race(tmp_path: Path) -> None:
    # two are below the limit once their replicates are there, and dominate the two that are not
    four = {
        "t00000": (0.70, 0.60),
        "t00001": (0.79, 0.50),
        "t00002": (0.81, 0.30),
        "t00003": (0.85, 0.20),
    }
    study = raced(
        tmp_path,
        four,
        single=dict.fromkeys(four, (0.9, 0.5)),
        described={
            "objectives": ["robust_accuracy", "worst_class_accuracy"],
            "constraints": {"clean_accuracy": 0.8},
        },
    )
    assert replicates(study) == {"t00000": 1, "t00001": 1, "t00002": 4, "t00003": 2}
    assert names(study) == ["t00002"]


def test_the_race_goes_on_without_one_that_is_flagged_after_others_dropped_out(
    tmp_path: Path,
) -> None:
    study = raced(tmp_path, FOUR)
    checked(study, "t00000-r3", without_gradient=200)
    checked(study, "t00001-r4", without_gradient=200)
    # nobody that dropped out takes their place with fewer replicates
    assert names(study) == []
    study._ends += 1  # a trial that is flagged ends: who is replicated is decided anew
    finish(study, FOUR)
    assert replicates(study) == {"t00000": 4, "t00001": 4, "t00002": 4, "t00003": 1}
    assert names(study) == ["t00002"]


def test_a_baseline_that_the_space_loses_in_a_race_holds_up_nobody_and_may_come_back(
    tmp_path: Path,
) -> None:
    def study(*labels: str) -> Study:
        space = load_space(
            tmp_path,
            first=[one for one in both if one["label"] in labels],
            replicates={**RACE, "contenders": 2, "baselines": True},
            **RACED,
        )
        found = Study(tmp_path / "study", space, 4, {})
        found.reconcile()
        return found

    both = [{"label": "one", "optimizer.lr": 0.1}, {"label": "two", "optimizer.lr": 0.2}]
    begun = study("one", "two")
    finish(begun, FOUR, until=lambda: "t00000-r1" in begun.trials)
    assert begun.trials["t00000-r1"].status == Status.RUNNING  # it has its row, and waits
    begun.close()
    without = finish(study("two"), FOUR)
    assert without.trials["t00000-r1"].status == Status.STOPPED
    (found,) = front.front(without.trials.values(), without.space)
    assert (found.candidate.trial_id, found.candidate.seeds) == ("t00001", 4)
    without.close()
    again = finish(study("one", "two"), FOUR)
    assert again.trials["t00000-r4"].status == Status.FINISHED


def test_fewer_replicates_than_have_begun_are_refused(tmp_path: Path) -> None:
    study = raced(tmp_path, FOUR)
    space = load_space(
        tmp_path,
        first=[{"label": "published", "optimizer.lr": 0.1}],
        replicates={"seeds": 2},
        **RACED,
    )
    fewer = Study(tmp_path, space, 6, {})
    with pytest.raises(
        StudyError, match=r"replicates.seeds is 2, and 4 replicates of some .*; set it to 4 or more"
    ):
        fewer.reconcile()
    assert study.done


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

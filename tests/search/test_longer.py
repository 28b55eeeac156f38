"""A study that goes on with a longer full run."""

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from rkdsearch.errors import StudyError
from rkdsearch.results.cells import records
from rkdsearch.results.store import Store
from rkdsearch.results.study import read_study
from rkdsearch.search import front, longer, queue, study_file
from rkdsearch.search.study import Study
from tests.search.files import SMALL, FakeWorker, load_space, on_disk, run

pytestmark = pytest.mark.usefixtures("unhurried")

LONGER: dict[str, Any] = {"ladder": [{"epochs": 1}, {"epochs": 4}, {"epochs": 8}]}
HALVES = {"name": "moasha", "kind": "promotion", "reduction": 2}
REPLICATES = {"seeds": 1, "contenders": 2, "baselines": True}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished study of 7 trials of at most 4 epochs, with replicates."""
    space = load_space(tmp_path, replicates=REPLICATES, scheduler=HALVES)
    study_file.describe(tmp_path / "s", space, {})
    run(tmp_path / "s", space)
    return tmp_path / "s"


def grown(folder: Path, **changes: Any) -> tuple[Study, FakeWorker, list[str]]:
    """The study with full runs of 8 epochs, before its first trial."""
    space, said = (
        load_space(
            folder.parent, **{**LONGER, "replicates": REPLICATES, "scheduler": HALVES, **changes}
        ),
        [],
    )
    study_file.claim(folder, space, resume=True)
    study_file.describe(folder, space, {})
    study = Study(folder, space, 7, {})
    study.reconcile(said.append)
    return study, FakeWorker(), said


def test_rows_of_the_shorter_run_stay_and_its_baselines_and_contenders_are_trained_again(
    folder: Path,
) -> None:
    before = on_disk(folder)["trials"]
    old = {row["trial_id"] for row in records(read_study(folder).front)}
    study, worker, said = grown(folder)
    # the contenders that the shorter runs were replicated for, and the baseline
    assert {t.ordinal for t in study.trials.values() if t.origin == "replicate"} == {0, 2}
    assert said == [
        (
            f"{folder}: baselines and contenders of shorter runs are trained again, at 8 epochs,"
            " beside the number of trials asked for: t00000, t00002"
        )
    ]
    assert {row["trial_id"] for row in records(read_study(folder).front)} == old
    worker.drive(study)
    after = on_disk(folder)["trials"]
    assert {name: after[name] for name in before} == before
    new = {name: row for name, row in after.items() if name not in before}
    assert {name: row["fidelity.epochs"] for name, row in new.items()} == dict.fromkeys(
        ["t00007", "t00008", "t00007-r1", "t00008-r1"], 8
    )
    assert study.trials["t00007"].label == "published"
    assert study.trials["t00007"].notes == {longer.REPEATS: "t00000"}
    assert study.trials["t00008"].notes == {longer.REPEATS: "t00002"}
    assert {d.rule for d in study.trials["t00008"].decisions} == {
        "contender of a shorter full run: always full length"
    }
    # trained to the end, and from the first epoch: another length is another schedule
    assert Counter(name for name, _ in worker.trained) == dict.fromkeys(new, 8)


def test_the_front_is_of_the_shorter_runs_until_a_longer_one_has_finished(folder: Path) -> None:
    study, worker, _ = grown(folder)
    assignment = study.next()
    assert assignment is not None
    assert assignment.trial_id == "t00007"
    for result in worker.run(assignment):
        on_front = {
            one.trial.config.training.epochs for one in front.front(_all(study), study.space)
        }
        assert on_front == {4}
        study.report("t00007", result, {})
    assert [one.trial.trial_id for one in front.front(_all(study), study.space)] == ["t00007"]
    assert [row["trial_id"] for row in records(read_study(folder).front)] == ["t00007"]


def test_a_killed_growth_goes_on_where_it_was(folder: Path) -> None:
    study, worker, _ = grown(folder)
    first = study.next()
    assert first is not None
    for result in islice(worker.run(first), 3):
        study.report(first.trial_id, result, {})
    again, worker, said = grown(folder)
    assert said[0].endswith("beside the number of trials asked for: t00002")
    worker.drive(again)
    assert min({name for name, _ in worker.trained}) == "t00007"
    assert [epoch for name, epoch in worker.trained if name == "t00007"] == [4, 5, 6, 7, 8]
    assert len([t for t in again.trials.values() if t.origin != "replicate"]) == 9
    assert grown(folder)[0].done


def test_what_had_not_ended_ends_and_is_promoted_no_more(tmp_path: Path) -> None:
    space = load_space(tmp_path)
    study_file.describe(tmp_path / "s", space, {})
    killed = Study(tmp_path / "s", space, 7, {})
    killed.reconcile()
    baseline = killed.next()
    assert baseline is not None
    killed.report(baseline.trial_id, next(FakeWorker().run(baseline)), {})
    study, worker, said = grown(tmp_path / "s", replicates=None)
    assert said[0].endswith("asked for: t00000")
    assert study.trials["t00000"].status == "stopped"
    worker.drive(study)
    assert "t00000" not in {name for name, _ in worker.trained}
    assert study.trials["t00001"].status == "finished"
    assert study.trials["t00001"].label == "published"
    # asked for 7, and the baseline is trained once more
    assert len(study.trials) == 8


def test_an_enqueued_configuration_that_was_interrupted_is_trained_at_the_new_length(
    tmp_path: Path,
) -> None:
    space = load_space(tmp_path, first=[])
    study_file.describe(tmp_path / "s", space, {})
    queue.enqueue(tmp_path / "s", {"method.name": "trades", "optimizer.lr": 0.07}, "mine")
    killed = Study(tmp_path / "s", space, 7, {})
    killed.reconcile()
    assert killed.next() is not None  # the driver ends in its first epoch
    study, worker, said = grown(tmp_path / "s", replicates=None, first=[])
    assert said[0].endswith("asked for: t00000")
    worker.drive(study)
    again = [t for t in study.trials.values() if t.label == "mine"]
    assert [t.config.training.epochs for t in again] == [4, 8]
    assert again[1].hyperparameters == again[0].hyperparameters
    assert grown(tmp_path / "s", replicates=None, first=[])[0].done


def test_the_sampler_is_told_of_shorter_runs_as_of_unfinished_ones(folder: Path) -> None:
    study, _, _ = grown(folder)
    lengths = {
        study.trials[name].position[1]: observation.rungs_short
        for name, observation in zip(
            sorted(_configurations(study)), study.observations(), strict=True
        )
    }
    # the ladder is 1, 4, 8: four epochs are one rung short of a full run, one or two are two
    assert lengths == {1: 2, 2: 2, 4: 1}


def test_it_may_grow_twice_and_labels_follow(folder: Path) -> None:
    study, worker, _ = grown(folder)
    worker.drive(study)
    first = [{**SMALL["first"][0], "label": "TRADES"}]
    twice, worker, said = grown(folder, ladder=[{"epochs": 1}, {"epochs": 10}], first=first)
    # the contenders of 8 epochs: each configuration has its latest trial
    assert "at 10 epochs, beside the number of trials asked for: t00007, t0000" in said[0]
    worker.drive(twice)
    assert [t.label for t in twice.trials.values() if t.origin == "baseline"] == ["TRADES"] * 3
    assert [len(t.epochs) for t in twice.trials.values() if t.origin == "baseline"] == [4, 8, 10]
    assert Store(folder).description()["earlier_ladders"] == [SMALL["ladder"], LONGER["ladder"]]
    rows = records(read_study(folder).front)
    assert {row["fidelity.of_epochs"] for row in rows} == {10}


def test_a_row_of_an_unknown_length_is_one_sentence(folder: Path) -> None:
    space = load_space(folder.parent, **LONGER, replicates=REPLICATES)
    study = Study(folder, space, 7, {})
    (folder / "study.json").unlink()
    study = Study(folder, space, 7, {})
    with pytest.raises(StudyError, match=r"has a full run of 4 epochs, and study.json knows 8; "):
        study.reconcile()


def _all(study: Study) -> list[Any]:
    return list(study.trials.values())


def _configurations(study: Study) -> list[str]:
    return [name for name, trial in study.trials.items() if trial.origin != "replicate"]

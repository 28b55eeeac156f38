"""A study that goes on with a larger space, and configurations that are added by hand."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rkdsearch.errors import ConfigError, SpaceError, StudyError
from rkdsearch.results.cells import records
from rkdsearch.results.states import Origin
from rkdsearch.results.store import Store
from rkdsearch.search import queue, study_file
from rkdsearch.search.assignment import Assignment
from rkdsearch.search.feasibility import ExhaustedSpaceError
from rkdsearch.search.study import Study
from rkdsearch.training.epoch import EpochResult
from rkdsearch.training.trainer import Trainer
from tests.search.files import SMALL, AheadWorker, FakeWorker, load_space, on_disk, run

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
            "first baselines PGD are trained next, within --trials: accepted",
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
        (
            {"first": []},
            (
                "first baselines published are not in the space any more: their rows stay, labelled"
                " so, and no other run of theirs begins: accepted"
            ),
        ),
        (
            {"first": [{**SMALL["first"][0], "optimizer.lr": 0.2}]},
            (
                "first baselines published are trained next, within --trials; baselines published"
                " are not in the space any more: their rows stay, labelled so, and no other run of"
                " theirs begins: accepted"
            ),
        ),
        (
            {"ladder": [{"epochs": 2}, {"epochs": 8}]},
            (
                "ladder has full runs of 8 epochs, and had 4: earlier trials keep their rows of 4"
                " epochs, and are the front until a longer one has finished; baselines and"
                " contenders are trained again at full length: accepted"
            ),
        ),
    ],
)
def test_a_space_may_grow_and_each_change_says_what_it_means(
    study: Path, changes: dict[str, Any], said: str
) -> None:
    assert claim(study, **changes) == [said]


CAP = {"epochs": 1, "training_attack_steps": 1}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            searched(**{"method.name": {"choice": ["natural", "trades"]}}),
            "earlier trials would lie outside: it may only gain values",
        ),
        (
            searched(**{"optimizer.lr": {"float": [0.02, 0.3], "log": True}}),
            "earlier trials would lie outside",
        ),
        (
            searched(**{"optimizer.lr": {"float": [0.001, 0.3]}}),
            "`log` and `step` must not change: earlier",
        ),
        (searched(**{"optimizer.lr": {"choice": [0.01, 0.3]}}), "knows one kind of range"),
        (
            {"search": {"method.name": SMALL["search"]["method.name"]}},
            "earlier trials have many values of it; go on searching it",
        ),
        (
            {"fixed": {**SMALL["fixed"], "attack.steps": 3}},
            "to have several, search it: a `choice` for attack.steps under `search`",
        ),
        ({"fixed": {**SMALL["fixed"], "data.split_seed": 1}}, "could not be compared; or give"),
        ({"ladder": [{"epochs": 1}, {"epochs": 2}]}, "put one before it"),
        ({"ladder": [{"epochs": 1}, {"epochs": 4}]}, "from the rung at 2 epochs; put it back"),
        ({"ladder": [CAP, {"epochs": 2}, {"epochs": 4}]}, "epoch 1 of earlier trials had other"),
        ({"seed": 4}, "trials of both could not be compared"),
    ],
)
def test_what_the_rows_forbid_is_refused_with_the_reason_and_a_way_out(
    study: Path, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(StudyError, match="was made by another space") as refused:
        claim(study, **changes)
    assert why in str(refused.value)
    assert f"with --study, and --warm-start {study}, so that its sampler" in str(refused.value)


def test_baselines_stay_where_brackets_count_them(tmp_path: Path) -> None:
    brackets = {"scheduler": {"kind": "promotion", "reduction": 3, "brackets": 2}}
    study_file.describe(tmp_path / "study", load_space(tmp_path, **brackets), {})
    with pytest.raises(StudyError, match=r"counts the baselines; add a configuration with"):
        claim(tmp_path / "study", **brackets, first=[])


def test_a_removed_baseline_keeps_its_rows_and_comes_back_as_it_was(tmp_path: Path) -> None:
    replicates = {"seeds": 1, "contenders": 2, "baselines": True}
    both = [*SMALL["first"], {"label": "PGD", "method.name": "pgd_at", "optimizer.lr": 0.3}]
    space = load_space(tmp_path, first=both, replicates=replicates)
    folder, worker = tmp_path / "s", FakeWorker()
    study_file.describe(folder, space, {})
    killed = Study(folder, space, 4, {})
    killed.reconcile()
    asked = [killed.next(), killed.next()]  # both baselines run when the driver is killed
    assert [a.trial_id for a in asked if a] == ["t00000", "t00001"]
    without = load_space(tmp_path, first=SMALL["first"], replicates=replicates)
    study = run(folder, without, worker, trials=4)
    gone = study.trials["t00001"]
    assert (gone.label, gone.status) == ("PGD (not in the space any more)", "stopped")
    assert "t00001" not in {name for name, _ in worker.trained}
    rows = {row["trial_id"]: row for row in records(Store(folder).trials())}
    assert (rows["t00001"]["label"], rows["t00001"]["status"]) == (gone.label, "stopped")
    back = run(folder, space, trials=4).trials
    assert (back["t00001"].label, back["t00001"].status) == ("PGD", "finished")
    assert back["t00001-r1"].status == "finished"
    # finished and replicated, it keeps all of that, under its label
    again = run(folder, without, worker, trials=6)
    assert {t.label for t in again.trials.values() if t.ordinal == 1} == {gone.label}
    labels = {row["trial_id"]: row["label"] for row in records(Store(folder).trials())}
    assert labels["t00001"] == labels["t00001-r1"] == gone.label


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


def test_a_method_that_was_fixed_may_be_searched_and_earlier_trials_stay(tmp_path: Path) -> None:
    """The rows do not say it: they were refused, and the study with them."""
    fixed = {**SMALL["fixed"], "method.name": "trades"}
    search = {k: v for k, v in SMALL["search"].items() if k != "method.name"}
    folder, before = tmp_path / "s", load_space(tmp_path, fixed=fixed, search=search, first=[])
    study_file.describe(folder, before, {})
    queue.enqueue(folder, {"optimizer.lr": 0.2}, "mine")
    first = run(folder, before, trials=5)
    running = Study(folder, before, 6, {})
    running.reconcile()
    assert running.next() is not None  # one that the driver's end interrupts
    said: list[str] = []
    space = load_space(tmp_path, first=[])
    study_file.claim(folder, space, resume=True, notice=said.append)
    assert any("search.method.name is searched now" in text for text in said)
    second = Study(folder, space, 9, {})
    second.reconcile(said.append)
    assert not any("cannot be read" in text for text in said)
    assert first.trials.keys() < second.trials.keys()
    for name, trial in first.trials.items():
        assert second.trials[name].config.fingerprint() == trial.config.fingerprint()
        assert second.trials[name].hyperparameters["method.name"] == "trades"
    grown = run(folder, space, trials=9)
    assert len([t for t in grown.trials.values() if t.label == "mine"]) == 1


def test_a_damaged_rows_place_is_not_given_to_another_beside_its_replicates(tmp_path: Path) -> None:
    space = load_space(tmp_path, replicates={"seeds": 1}, scheduler={"name": "none"}, first=[])
    study = run(tmp_path / "s", space, trials=6)
    lost = study.ledger.replicates[0].ordinal
    (tmp_path / "s" / "trials" / f"t{lost:05}.parquet").write_bytes(b"torn")
    again = run(tmp_path / "s", space, trials=8)
    assert f"t{lost:05}" not in again.trials
    assert {t.ordinal for t in again.ledger.configurations} >= {6, 7}


class RealWorker(FakeWorker):
    """Trains for real, and tells which epochs."""

    def run(self, assignment: Assignment) -> Iterator[EpochResult]:
        trainer = Trainer(assignment.config, assignment.folder, fidelities=assignment.fidelities)
        yield from trainer.resume()[-1:]
        for epoch in trainer.epochs():
            self.trained.append((assignment.trial_id, epoch.epoch))
            yield epoch


def test_trials_that_wait_at_a_rung_are_promoted_to_a_new_one_from_their_checkpoints(
    tmp_path: Path,
) -> None:
    changes: dict[str, Any] = {
        "fixed": {
            "data": {"name": "digits", "train_images": 60, "validation_fraction": 0.1},
            "student": {"name": "small_cnn", "width": 2},
            "method.name": "natural",
            "training.device": "cpu",
            "validation.attack.steps": 1,
        },
        "search": {"optimizer.lr": SMALL["search"]["optimizer.lr"]},
        "first": [],
        "scheduler": {"name": "moasha", "kind": "promotion", "reduction": 2},
    }
    before = load_space(tmp_path, **changes, ladder=[{"epochs": 1}, {"epochs": 4}])
    folder, first, second = tmp_path / "s", RealWorker(), RealWorker()
    study_file.describe(folder, before, {})
    run(folder, before, first, trials=1)
    assert first.trained == [("t00000", 1)]
    changes["ladder"] = [{"epochs": 1}, {"epochs": 2}, {"epochs": 4}]
    assert claim(folder, **changes)[0].startswith("ladder gained rungs at 2 epochs")
    after = run(folder, load_space(tmp_path, **changes), second, trials=4)
    # two of four leave the rung at one epoch, and one of these the new rung
    epochs = {name: [e for n, e in second.trained if n == name] for name in after.trials}
    assert sorted(map(len, (t.epochs for t in after.trials.values()))) == [1, 1, 2, 4]
    assert all(e[:1] != [1] for n, e in epochs.items() if n == "t00000"), "its checkpoint has it"
    assert {t.failure for t in after.trials.values()} == {None}


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
    assert (len(again.trials), again.asked_for) == (4, 4)
    assert run(folder, space, trials=3).done, "it is trained once"
    assert len(run(folder, space, trials=4).trials) == 5


def test_no_configuration_is_enqueued_twice_and_no_label(tmp_path: Path) -> None:
    space, folder = load_space(tmp_path), tmp_path / "s"
    study_file.describe(folder, space, {})
    run(folder, space, trials=3)
    baseline = study_file.enqueuable(space, dict(space.baselines[0].overrides))
    with pytest.raises(
        StudyError, match=r"t00000 is this configuration; `replicates` in the space"
    ):
        study_file.refuse_duplicate(folder, space, baseline, "")
    new = {"method.name": "pgd_at", "optimizer.lr": 0.2}
    study_file.refuse_duplicate(folder, space, new, "by hand")
    entry = queue.enqueue(folder, new, "by hand")
    with pytest.raises(StudyError, match=f"enqueued/{entry.name} is this configuration"):
        study_file.refuse_duplicate(folder, space, new, "")
    with pytest.raises(StudyError, match=f"enqueued/{entry.name} has the label 'by hand'; choose"):
        study_file.refuse_duplicate(folder, space, new | {"optimizer.lr": 0.3}, "by hand")
    study_file.refuse_duplicate(folder, space, new | {"optimizer.lr": 0.3}, "")


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

"""Who is on the front: the driver's answer, and that a reader of its rows gives the same."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from rkdsearch.errors import SpaceError
from rkdsearch.results.cells import records
from rkdsearch.results.flags import Flag
from rkdsearch.results.front import kept_off, volume
from rkdsearch.results.rows import Checks
from rkdsearch.results.seed_noise import replicated
from rkdsearch.results.study import StudyResults, read_study
from rkdsearch.search import front
from rkdsearch.search.sampler import Proposal, frozen_trial
from rkdsearch.search.scheduler import Scheduler
from rkdsearch.search.study import Study
from rkdsearch.space.space import SearchSpace
from rkdsearch.training import checkpoint
from tests.search.files import SIZES, FakeWorker, load_space, run

pytestmark = pytest.mark.usefixtures("unhurried")
ALL = {"scheduler": {"name": "none"}}


def measured_anew(study: Study, trial_id: str, **accuracies: float) -> None:
    """As if the trial's network had been another one."""
    trial = study.trials[trial_id]
    assert trial.best is not None
    trial.segment_epochs[-1] = replace(
        trial.segment_epochs[-1], best=replace(trial.best, **accuracies)
    )
    study.ledger.write(trial)


def read(study: Study) -> StudyResults:
    """The study as a reader has it."""
    constraints = study.space.constraints.model_dump(exclude_none=True)
    described = {"objectives": list(study.space.objectives), "constraints": constraints}
    (study.folder / "study.json").write_text(json.dumps(described), encoding="utf-8")
    return read_study(study.folder)


def names(study: Study) -> list[str]:
    """The front, of which driver and reader think the same."""
    found = [one.trial.trial_id for one in front.front(study.trials.values(), study.space)]
    assert sorted(read(study).front["trial_id"]) == sorted(found)
    return found


def test_the_objectives_of_the_space_name_the_front(tmp_path: Path) -> None:
    study = run(
        tmp_path,
        load_space(tmp_path, objectives=["clean_accuracy", "worst_class_accuracy"], **ALL),
        trials=2,
    )
    measured_anew(
        study, "t00000", clean_accuracy=0.80, robust_accuracy=0.50, worst_class_accuracy=0.40
    )
    measured_anew(
        study, "t00001", clean_accuracy=0.80, robust_accuracy=0.55, worst_class_accuracy=0.05
    )
    assert names(study) == ["t00000"]
    study.space = replace(study.space, objectives=("clean_accuracy", "robust_accuracy"))
    assert names(study) == ["t00001"]


def test_a_baseline_that_is_too_large_is_trained_and_is_on_no_front(tmp_path: Path) -> None:
    study = run(
        tmp_path,
        load_space(tmp_path, constraints={"parameters": 5_000}, first=None, **ALL),
        trials=2,
    )
    for trial_id, weights, clean in (("t00000", 94_986, 0.9), ("t00001", 4_000, 0.8)):
        study.trials[trial_id].facts["run.parameters"] = weights
        study.trials[trial_id].costs = {"parameters": weights}
        measured_anew(study, trial_id, clean_accuracy=clean, robust_accuracy=clean)
    assert names(study) == ["t00001"]
    assert [t.trial_id for t in front.contenders(study.trials.values(), study.space)] == ["t00001"]


def test_a_mean_that_misses_a_constraint_is_on_no_front(tmp_path: Path) -> None:
    replicates = {"seeds": 1, "contenders": 2, "baselines": False}
    study = run(tmp_path, load_space(tmp_path, replicates=replicates, **ALL), trials=3)
    contenders = [t.trial_id for t in front.contenders(study.trials.values(), study.space)]
    assert {one.trial.trial_id for one in front.judged(study.trials.values(), study.space)} == set(
        contenders
    )
    lowest = min(one.clean_accuracy for one in front.judged(study.trials.values(), study.space))
    measured_anew(study, f"{contenders[0]}-r1", clean_accuracy=lowest - 0.1)
    study.space = replace(
        study.space,
        constraints=study.space.constraints.model_copy(update={"clean_accuracy": lowest - 0.05}),
    )
    assert [
        one.trial.trial_id for one in front.judged(study.trials.values(), study.space)
    ] == contenders[1:]
    assert names(study) == contenders[1:]


def repeated(folder: Path, *, baselines: bool) -> tuple[SearchSpace, Study]:
    """Three searched trials, of which two are contenders, and a baseline that is none."""
    space = load_space(
        folder, replicates={"seeds": 2, "contenders": 2, "baselines": baselines}, **ALL
    )
    study = Study(folder, space, 4, {})
    worker = FakeWorker()
    for _ in range(4):
        assignment = study.next()
        assert assignment is not None
        assert not [
            study.report(assignment.trial_id, result, {}) for result in worker.run(assignment)
        ][-1]
    measured_anew(
        study, "t00000", clean_accuracy=0.2, robust_accuracy=0.1, worst_class_accuracy=0.0
    )
    return space, study


def test_baselines_get_as_many_replicates_as_contenders(tmp_path: Path) -> None:
    _, study = repeated(tmp_path / "a", baselines=True)
    FakeWorker().drive(study)
    contenders = [t.trial_id for t in front.contenders(study.trials.values(), study.space)]
    assert "t00000" not in contenders
    replicates = {t.trial_id for t in study.trials.values() if t.origin == "replicate"}
    assert replicates == {
        f"{trial_id}-r{n}" for trial_id in ("t00000", *contenders) for n in (1, 2)
    }
    judged = {one.trial.trial_id: one for one in front.judged(study.trials.values(), study.space)}
    assert (judged["t00000"].seeds, judged["t00000"].clean_accuracy) == (
        2,
        study.trials["t00000-r1"].epochs[-1].clean_accuracy,
    )
    names(study)

    _, study = repeated(tmp_path / "b", baselines=False)
    FakeWorker().drive(study)
    assert {t.ordinal for t in study.trials.values() if t.origin == "replicate"} == {
        t.ordinal for t in front.contenders(study.trials.values(), study.space)
    }


def test_a_baseline_whose_own_run_missed_a_limit_is_judged_by_its_replicates(
    tmp_path: Path,
) -> None:
    _, study = repeated(tmp_path, baselines=True)
    FakeWorker().drive(study)
    study.space = replace(
        study.space, constraints=study.space.constraints.model_copy(update={"clean_accuracy": 0.3})
    )
    assert "t00000" not in {t.trial_id for t in front.finished(study.trials.values(), study.space)}
    assert "t00000" in {
        one.trial.trial_id for one in front.judged(study.trials.values(), study.space)
    }
    names(study)


def test_a_configuration_of_which_a_seed_failed_is_not_judged_by_the_others(tmp_path: Path) -> None:
    _, study = repeated(tmp_path, baselines=False)
    assignment = study.next()
    assert assignment is not None
    study.fail(assignment.trial_id, "epoch 1, batch 3: the loss is nan", "loss")
    FakeWorker().drive(study)
    (judged,) = front.judged(study.trials.values(), study.space)
    failed = assignment.trial_id.split("-")[0]
    assert (judged.seeds, judged.failed) == (2, 0)
    assert judged.trial.trial_id != failed
    table = replicated(read(study).trials)
    counts = {
        f"t{ordinal:05d}": (row.seeds, row.failed)
        for ordinal, row in zip(table.index, table.itertuples(), strict=True)
    }
    assert counts == {failed: (1, 1), judged.trial.trial_id: (2, 0)}


# ------------------------------------------------------------------------------------ asha's number


@pytest.mark.parametrize(
    ("metric", "sentence"),
    [
        (
            {"robust_acuracy": 1.0},
            (
                "must weigh the objectives clean_accuracy, robust_accuracy; unknown field"
                " robust_acuracy; did you mean 'robust"
            ),
        ),
        (
            {"worst_class_accuracy": 1.0},
            (
                "must weigh the objectives clean_accuracy, robust_accuracy; unknown field"
                " worst_class_accuracy"
            ),
        ),
        (
            {"clean_accuracy": 0.0},
            (
                "one weight at least must be > 0, got {'clean_accuracy': 0.0}; leave it out for the"
                " objectives' mean"
            ),
        ),
    ],
)
def test_a_metric_that_ranks_by_nothing_is_refused(
    tmp_path: Path, metric: dict[str, float], sentence: str
) -> None:
    with pytest.raises(SpaceError, match=r"small.yaml: scheduler.metric: ") as caught:
        load_space(tmp_path, scheduler={"name": "asha", "metric": metric})
    assert sentence in str(caught.value)


def test_without_a_metric_asha_ranks_by_the_mean_of_the_objectives(tmp_path: Path) -> None:
    space = load_space(
        tmp_path, scheduler={"name": "asha"}, objectives=["clean_accuracy", "worst_class_accuracy"]
    )
    scheduler = Scheduler((1,), space.scheduler, space.objectives)
    for trial_id, values in {"a": (0.9, 0.1), "b": (0.6, 0.5), "c": (0.1, 0.8)}.items():
        scheduler.record(scheduler.rungs[0], trial_id, values)
    assert [scheduler.rank(scheduler.rungs[0], trial_id).rank for trial_id in "abc"] == [2, 1, 3]


# -------------------------------------------------------------------------------------------- costs


def test_among_equally_accurate_students_the_smallest_alone_is_on_the_front(tmp_path: Path) -> None:
    study = run(tmp_path, load_space(tmp_path, **SIZES, **ALL), trials=3)
    assert [study.trials[t].costs for t in ("t00000", "t00001", "t00002")] == [
        {"parameters": n} for n in (9_930, 1_626, 3_818)
    ]
    for trial in study.trials.values():
        # a worker says so of the network that it has built
        trial.facts["run.parameters"] = trial.costs["parameters"]
        study.ledger.write(trial)
    assert names(study) == ["t00001"]
    measured_anew(study, "t00000", clean_accuracy=0.99)
    assert names(study) == ["t00000", "t00001"]
    assert read(study).volume == pytest.approx(
        volume(read(study).front, ["clean_accuracy", "parameters"])
    )


def test_a_rung_promotes_the_small_before_the_large_where_they_know_as_much(tmp_path: Path) -> None:
    space = load_space(
        tmp_path,
        **{**SIZES, "first": []},
        ladder=[{"epochs": 1}, {"epochs": 4}],
        scheduler={"reduction": 3},
    )
    study = Study(tmp_path, space, 3, {})
    for ordinal, width in enumerate((16, 4, 8)):
        study._add(
            ordinal, "search", "", Proposal({"student.width": width, "optimizer.lr": 0.08}, {})
        )
    FakeWorker().drive(study)
    assert [t.trial_id for t in study.trials.values() if t.full_length] == ["t00001"]


def test_the_sampler_is_told_a_cost_as_a_merit_below_whoever_went_further(tmp_path: Path) -> None:
    study = run(
        tmp_path,
        load_space(tmp_path, **{**SIZES, "first": []}, ladder=[{"epochs": 1}, {"epochs": 4}]),
        trials=6,
    )
    shown = {
        len(t.epochs): [
            frozen_trial(study.space, o, 0).values
            for o in [study._history._observation(t, refuted=False)]
            if o
        ]
        for t in study.trials.values()
    }
    assert set(shown) == {1, 4}
    assert all(-1 <= value <= 0 for values in shown[1] for value in values or ())
    assert all(0 <= value <= 1 for values in shown[4] for value in values or ())


def test_a_limit_that_an_older_study_did_not_know_names_one_front(tmp_path: Path) -> None:
    changes: dict[str, Any] = {**SIZES, "objectives": None}
    assert names(run(tmp_path, load_space(tmp_path, **changes, **ALL), trials=3)) == [
        "t00000",
        "t00001",
        "t00002",
    ]
    assert pd.read_parquet(tmp_path / "trials")["run.multiply_adds"].isna().all()
    again = Study(
        tmp_path,
        load_space(tmp_path, **changes, constraints={"multiply_adds": 50_000}, **ALL),
        3,
        {},
    )
    again.reconcile()
    assert pd.read_parquet(tmp_path / "trials")["run.multiply_adds"].tolist() == [
        t.costs["multiply_adds"] for t in again.trials.values()
    ]
    assert names(again) == ["t00001", "t00002"]


def test_a_stopped_trial_gets_its_cost_and_stays_stopped(tmp_path: Path) -> None:
    run(tmp_path, load_space(tmp_path, first=[]))
    before = pd.read_parquet(tmp_path / "trials")["status"].tolist()
    assert "stopped" in before
    study = Study(
        tmp_path, load_space(tmp_path, first=[], constraints={"parameters": 10**6}), 7, {}
    )
    study.reconcile()
    rows = pd.read_parquet(tmp_path / "trials")
    assert rows["status"].tolist() == before
    assert rows["run.parameters"].notna().all()
    study.close()
    assert pd.read_parquet(tmp_path / "trials")["status"].tolist() == before


def test_a_resumed_search_knows_what_its_students_cost(tmp_path: Path) -> None:
    space = load_space(tmp_path, **SIZES, **ALL)
    before = run(tmp_path, space, trials=3)
    after = Study(tmp_path, space, 3, {})
    after.reconcile()
    assert [(t.trial_id, t.costs) for t in after.trials.values()] == [
        (t.trial_id, t.costs) for t in before.trials.values()
    ]
    assert [one.trial.trial_id for one in front.front(after.trials.values(), after.space)] == [
        one.trial.trial_id for one in front.front(before.trials.values(), before.space)
    ]


def checked(study: Study, trial_id: str, **counts: int) -> None:
    """As if its last epoch had brought these checks, of 200 images."""
    trial = study.trials[trial_id]
    checks = Checks(images=200, right=180, **{"without_gradient": 0, "differing": 0, **counts})
    trial.segment_epochs[-1] = replace(trial.segment_epochs[-1], checks=checks)
    study.ledger.write(trial)


def test_a_flagged_student_is_on_no_front_and_is_named_with_its_reason(tmp_path: Path) -> None:
    study = run(tmp_path, load_space(tmp_path, **ALL), trials=3)
    measured_anew(study, "t00001", clean_accuracy=0.99, robust_accuracy=0.99)
    assert names(study) == ["t00001"]
    checked(study, "t00001", without_gradient=1)  # one image of 200 is no flag
    assert names(study) == ["t00001"]
    checked(study, "t00001", without_gradient=150, differing=200)
    assert "t00001" not in names(study)
    assert names(study)
    (kept,) = kept_off(read(study).trials)
    assert kept["trial_id"] == "t00001"
    assert [sign.partition(":")[0] for sign in kept["signs"]] == ["zero_gradients", "random"]


def test_a_constant_student_is_on_no_front_of_a_search_that_has_learned(tmp_path: Path) -> None:
    study = run(tmp_path, load_space(tmp_path, **ALL), trials=3)
    # all images of one class: better by every number, and no attack moves it
    measured_anew(
        study, "t00001", clean_accuracy=0.99, robust_accuracy=0.99, worst_class_accuracy=0.0
    )
    assert names(study)
    assert "t00001" not in names(study)
    assert kept_off(read(study).trials) == []


def test_of_a_grid_a_point_that_has_learned_is_replicated_before_a_constant_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = {"published": "trades", "grid": {"optimizer.lr": [0.2, 0.01]}}
    space = load_space(tmp_path, **{**ALL, "first": [grid]}, replicates={"seeds": 1})
    study = run(tmp_path, space, trials=2)
    measured_anew(
        study, "t00000", clean_accuracy=0.6, robust_accuracy=0.6, worst_class_accuracy=0.0
    )
    measured_anew(study, "t00001", clean_accuracy=0.75, robust_accuracy=0.28)
    monkeypatch.setattr(front, "contenders", lambda *_: [])  # others are better
    chosen = front.to_replicate(study.trials.values(), study.space)
    assert [t.trial_id for t in chosen] == ["t00001"]


def test_a_flagged_student_is_not_replicated(tmp_path: Path) -> None:
    replicates = {"seeds": 1, "contenders": 2, "baselines": True}
    study = run(tmp_path, load_space(tmp_path, **ALL), trials=3)
    study.space = replace(
        study.space, replicates=study.space.replicates.model_copy(update=replicates)
    )
    for trial_id in ("t00000", "t00001"):
        measured_anew(study, trial_id, clean_accuracy=0.99, robust_accuracy=0.99)
        checked(study, trial_id, differing=200)
    assert [t.trial_id for t in front.to_replicate(study.trials.values(), study.space)] == [
        "t00002"
    ]
    FakeWorker().drive(study)
    assert {t.trial_id for t in study.ledger.replicates} == {"t00002-r1"}
    assert names(study) == ["t00002"]


def test_a_flagged_replicate_keeps_its_configuration_off_the_front(tmp_path: Path) -> None:
    replicates = {"seeds": 2, "contenders": 2, "baselines": False}
    study = run(tmp_path, load_space(tmp_path, replicates=replicates, **ALL), trials=3)
    best, other = (t.trial_id for t in front.contenders(study.trials.values(), study.space))
    for number in (1, 2):
        measured_anew(study, f"{best}-r{number}", clean_accuracy=0.99, robust_accuracy=0.99)
    assert names(study) == [best]
    checked(study, f"{best}-r2", differing=200)
    assert names(study) == [other]
    (kept,) = kept_off(read(study).trials)
    assert kept["trial_id"] == best
    assert kept["signs"][0].startswith(f"{best}-r2: random: ")


@pytest.mark.parametrize("with_checkpoint", [True, False])
def test_flags_are_remembered_by_a_resumed_study(tmp_path: Path, *, with_checkpoint: bool) -> None:
    space = load_space(tmp_path, **ALL)
    study = run(tmp_path, space, trials=2)
    checked(study, "t00001", differing=200)
    last = study.ledger.checkpoints(study.trials["t00001"]) / "last.safetensors"
    if with_checkpoint:
        history = [asdict(epoch) for epoch in study.trials["t00001"].segment_epochs]
        checkpoint.write(last, {"w": torch.zeros(1)}, {"history": history})
    else:
        last.unlink()
    again = Study(study.folder, space, 2, {})
    again.reconcile()
    assert again.trials["t00001"].flags == (Flag.RANDOM,)
    assert again.trials["t00000"].flags == ()
    (row,) = (r for r in records(read(again).trials) if r["trial_id"] == "t00001")
    assert (row["flags"], row["check.differing"]) == ('["random"]', 200)
    assert row["check.probabilities"] is None  # not checked, and not 0

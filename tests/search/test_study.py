import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from rkdsearch.errors import StudyError
from rkdsearch.results.states import Status
from rkdsearch.search import front
from rkdsearch.search.sampler import Observation
from rkdsearch.search.study import Study
from rkdsearch.search.trial import Trial
from tests.search import files
from tests.search.files import CAPPED, SMALL, TRIALS, FakeWorker, checkpoint_of, load_space, run

pytestmark = pytest.mark.usefixtures("unhurried")


# ---------------------------------------------------------------------------------------- the rules


def test_so_many_trials_are_so_many_configurations_and_the_baseline_runs_to_the_end(
    tmp_path: Path,
) -> None:
    study = run(tmp_path, load_space(tmp_path))
    assert len(study.trials) == TRIALS
    baseline = study.trials["t00000"]
    assert (baseline.origin, baseline.label, baseline.status, len(baseline.epochs)) == (
        "baseline",
        "published",
        "finished",
        4,
    )
    assert [d.rule for d in baseline.decisions] == ["baseline: always full length"] * 2
    assert set(study.counts()) == {"finished", "stopped"}


def test_promotion_asks_for_no_new_configuration(tmp_path: Path) -> None:
    study = run(tmp_path, load_space(tmp_path, seed=1), trials=12)
    promoted = [d for t in study.trials.values() for d in t.decisions if d.decision == "promoted"]
    assert promoted
    assert len(study.trials) == 12


@pytest.mark.parametrize("kind", ["promotion", "stopping"])
def test_a_stopped_trial_is_never_on_the_front_nor_observed_at_full_length(
    tmp_path: Path, kind: str
) -> None:
    study = run(tmp_path, load_space(tmp_path, first=[], scheduler={"kind": kind, "reduction": 3}))
    stopped = [t for t in study.trials.values() if t.status == "stopped"]
    assert stopped
    assert all(len(t.epochs) < 4 for t in stopped)
    assert {t.trial_id for t in front.finished(study.trials.values(), study.space)} == {
        t.trial_id for t in study.trials.values() if len(t.epochs) == 4
    }
    shown = {json.dumps(s.hyperparameters): s.rungs_short for s in study.observations()}
    assert all(
        shown[json.dumps(t.hyperparameters)] == (2 if len(t.epochs) == 1 else 1) for t in stopped
    )


def test_without_a_scheduler_everybody_runs_to_the_end(tmp_path: Path) -> None:
    assert run(tmp_path, load_space(tmp_path, scheduler={"name": "none"})).counts() == {
        "finished": TRIALS
    }


def test_only_what_executes_now_is_observed_without_values(tmp_path: Path) -> None:
    study = Study(tmp_path, load_space(tmp_path, first=[]), TRIALS, {})
    assert study.next() is not None
    assert [o.values for o in study.observations()] == [None]
    study.interrupt("t00000")
    assert study.observations() == []


def test_a_short_sampler_history_has_the_longest_trials_and_the_latest(
    tmp_path: Path,
) -> None:
    space = load_space(
        tmp_path, first=[], sampler={"name": "random", "history": 4}, scheduler={"reduction": 2}
    )
    study = run(tmp_path, space, trials=12)
    whole = Study(
        tmp_path, replace(space, sampler=space.sampler.model_copy(update={"history": 100})), 12, {}
    )
    whole.reconcile()
    known, shown = whole.observations(), study.observations()
    full = [s for s in known if s.rungs_short == 0]
    assert (len(known), len(shown)) == (12, 4)
    assert len(full) >= 2
    assert [
        s for s in known if s in full[-2:] or s in [k for k in known if k not in full[-2:]][-2:]
    ] == shown


def test_a_failed_trial_is_on_no_front_and_the_search_goes_on(tmp_path: Path) -> None:
    study = Study(tmp_path, load_space(tmp_path, first=[]), 5, {})
    assignment = study.next()
    assert assignment is not None
    study.fail(assignment.trial_id, "epoch 1, batch 3: the loss is nan")
    FakeWorker().drive(study)
    rows = pd.read_parquet(tmp_path / "trials").set_index("trial_id")
    assert rows.loc["t00000", "status"] == "failed"
    assert rows.loc["t00000", "error"] == "epoch 1, batch 3: the loss is nan"
    assert not rows["status"].isin(["running", "paused"]).any()
    assert len(rows) == 5
    assert "t00000" not in {t.trial_id for t in front.finished(study.trials.values(), study.space)}
    assert len(study.observations()) == 4


def test_a_methods_own_value_is_null_in_the_rows_of_the_others(tmp_path: Path) -> None:
    run(tmp_path, load_space(tmp_path))
    rows = pd.read_parquet(tmp_path / "trials")
    assert set(rows["config.method.name"]) > {"trades"}
    assert (
        rows["config.method.consistency_weight"].notna() == (rows["config.method.name"] == "trades")
    ).all()


def test_accuracies_that_are_asked_for_are_asked_of_finished_trials(tmp_path: Path) -> None:
    study = run(tmp_path, load_space(tmp_path, scheduler={"name": "none"}))
    clean = sorted(
        t.best.clean_accuracy for t in front.finished(study.trials.values(), study.space) if t.best
    )
    limited = run(
        tmp_path,
        load_space(tmp_path, scheduler={"name": "none"}, constraints={"clean_accuracy": clean[3]}),
    )
    assert len(clean) == TRIALS
    assert (
        len(front.finished(limited.trials.values(), limited.space))
        == sum(c >= clean[3] for c in clean)
        < TRIALS
    )


def test_what_was_trained_on_more_devices_keeps_its_price_in_a_resumed_search(
    tmp_path: Path,
) -> None:
    moments: list[str] = []

    def stop_after_three_epochs(moment: str) -> None:
        moments.append(moment)
        if moments.count("reported") == 3:
            raise KeyboardInterrupt

    first = load_space(tmp_path, first=[], scheduler={"name": "none"}, resources={"gpu": 1})
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, first, FakeWorker(stop_after_three_epochs), trials=1)
    quarter = load_space(tmp_path, first=[], scheduler={"name": "none"}, resources={"gpu": 0.25})
    again = Study(tmp_path, quarter, 1, {})
    again.reconcile()
    again.ledger.write(again.trials["t00000"])
    FakeWorker().drive(again)
    assert again.ledger.device_seconds == 3 + 0.25


def test_a_quarter_of_a_gpu_is_a_quarter_of_a_device(tmp_path: Path) -> None:
    for gpu, processes, seconds in ((0.25, 1, 4.0), (1, 2, 32.0), (0, 2, 32.0)):
        space = load_space(
            tmp_path, scheduler={"name": "none"}, resources={"gpu": gpu, "processes": processes}
        )
        study = run(tmp_path / f"{gpu}", space, trials=4)
        again = Study(study.folder, space, 4, {})
        again.reconcile()
        # four trials of four epochs of one second
        assert study.ledger.device_seconds == again.ledger.device_seconds == seconds
        assert pd.read_parquet(study.folder / "trials")["run.device_seconds"].sum() == seconds


def test_device_time_may_say_when_to_stop_asking(tmp_path: Path) -> None:
    study = run(
        tmp_path,
        load_space(tmp_path, first=[], scheduler={"name": "none"}),
        trials=None,
        device_seconds=9.5,
    )
    # four epochs of one second each: after two trials 8 seconds are spent
    assert len(study.trials) == 3
    assert study.ledger.device_seconds == 12


def test_device_time_is_what_every_epoch_took_also_where_one_is_trained_again(
    tmp_path: Path,
) -> None:
    study, worker = (
        Study(tmp_path, load_space(tmp_path, **CAPPED, scheduler={"reduction": 2}), 4, {}),
        FakeWorker(),
    )
    asked = 0
    while not study.done:
        assignment = study.next()
        assert assignment is not None
        for result in worker.run(assignment):
            asked += 1
            if not study.report(assignment.trial_id, replace(result, seconds=0.1 * asked), {}):
                break
            assert study.ledger.device_seconds == math.fsum(
                t.device_seconds for t in study.trials.values()
            )
        assert study.ledger.device_seconds == math.fsum(
            t.device_seconds for t in study.trials.values()
        )
    assert any(len(t.epochs_by_segment) == 2 for t in study.trials.values())


def test_device_time_counts_epochs_whose_checkpoint_was_damaged_while_the_search_ran(
    tmp_path: Path,
) -> None:
    study = Study(tmp_path, load_space(tmp_path), 4, {})
    assignment = study.next()
    assert assignment is not None
    first, second = itertools.islice(FakeWorker().run(assignment), 2)
    # from the first again; the last report is made twice
    for result in (first, second, replace(first, seconds=0.5), second, second):
        study.report(assignment.trial_id, result, {})
    assert study.ledger.device_seconds == 3.5


def test_device_time_counts_rows_that_cannot_be_read_and_epochs_that_are_lost(
    tmp_path: Path,
) -> None:
    space = load_space(tmp_path, first=[], scheduler={"name": "none"}, resources={"processes": 2})
    study = run(tmp_path, space, trials=3)
    study.trials["t00001"].hyperparameters["method.forgotten"] = 1.0
    study.trials["t00002"].status = "running"
    for trial_id in ("t00001", "t00002"):
        study.ledger.write(study.trials[trial_id])
    checkpoint_of(tmp_path, "t00002").write_bytes(b"damaged")
    again = Study(tmp_path, space, 3, {})
    again.reconcile()
    assert again.trials["t00002"].epochs_trained == 0
    # three trials of four epochs of one second, on two processors each
    assert again.ledger.device_seconds == 24
    FakeWorker().drive(again)
    assert again.ledger.device_seconds == 32
    assert pd.read_parquet(tmp_path / "trials")["run.device_seconds"].tolist() == [8, 8, 16]
    assert Study(tmp_path, space, 3, {}).ledger.device_seconds == 0
    last = Study(tmp_path, space, 3, {})
    last.reconcile()
    assert last.ledger.device_seconds == 32


def test_epochs_of_a_trial_that_waits_or_has_ended_are_summed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = run(tmp_path, load_space(tmp_path), trials=4)
    assert study.ledger.device_seconds > 0
    monkeypatch.setattr(
        Trial, "device_seconds", property(lambda _: pytest.fail("it was summed already"))
    )
    assert (
        study.ledger.device_seconds
        == pd.read_parquet(tmp_path / "trials")["run.device_seconds"].sum()
    )


def test_a_warm_start_changes_the_first_proposal(tmp_path: Path) -> None:
    space = load_space(tmp_path, first=[])
    warm = [
        Observation(
            {"method.name": "pgd_at", "optimizer.lr": 0.02 + 0.001 * i},
            (0.9 - 0.1 * i, 0.1 * i),
        )
        for i in range(8)
    ]
    cold, told = (
        Study(tmp_path / "a", space, 4, {}),
        Study(tmp_path / "b", space, 4, {}, warm_start=warm),
    )
    assert cold.feasibility.proposal(0, cold.observations()) != told.feasibility.proposal(
        0, [*told._warm_start, *told.observations()]
    )


# --------------------------------------------------------------------------------------- the ladder


def test_a_cap_that_was_in_force_begins_a_run_afresh_when_it_is_lifted_and_no_other_does(
    tmp_path: Path,
) -> None:
    study = run(tmp_path, load_space(tmp_path, **CAPPED, scheduler={"reduction": 2}), trials=12)
    finished = [t for t in study.trials.values() if t.status == "finished"]
    assert {t.config.attack.steps for t in finished} == {2, 10}
    for trial in finished:
        steps = [[e.training_attack_steps for e in run] for run in trial.epochs_by_segment]
        assert steps == (
            [[2, 2, 2, 2]] if trial.config.attack.steps == 2 else [[2, 2], [10, 10, 10, 10]]
        )
        assert (tmp_path / "checkpoints" / trial.trial_id / "last.safetensors").exists()
        assert trial.device_seconds == sum(len(run) for run in trial.epochs_by_segment)
    rows = pd.read_parquet(tmp_path / "trials").set_index("trial_id")
    baseline = rows.loc["t00000"]
    assert (
        baseline["run.wall_seconds"],
        baseline["fidelity.epochs"],
        baseline["fidelity.training_attack_steps"],
    ) == (6, 4, 10)


def test_a_rung_says_by_what_protocol_its_values_were_measured(tmp_path: Path) -> None:
    run(tmp_path, load_space(tmp_path, **CAPPED))
    rungs = pd.read_parquet(tmp_path / "rungs").groupby("epochs")[
        ["training_attack_steps", "validation_attack_steps", "validation_images"]
    ]
    assert rungs.max().to_numpy().tolist() == [[2, 5, 100], [2, 20, 100]]
    assert rungs.min().equals(rungs.max())


def test_a_baseline_takes_nobodys_place_on_a_rung_before_the_end_of_its_warm_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "measured", lambda config, epoch: (0.1 * epoch, 0.1 * epoch))
    iad = {"label": "published", "method.name": "iad", "method.warm_up": 0.5, "optimizer.lr": 0.08}
    fixed = {**CAPPED["fixed"], "teachers.robust.path": "teacher.pt"}
    space = load_space(tmp_path, **{**CAPPED, "fixed": fixed, "first": [iad]})

    study = run(tmp_path, space, trials=5)
    again = Study(tmp_path, space, 5, {})
    again.reconcile()
    for side in (study, again):
        assert [sorted(rung.values) for rung in side.scheduler.rungs] == [
            ["t00001", "t00002", "t00003", "t00004"],
            ["t00001"],
        ]
    assert study.trials["t00000"].status == "finished"
    rungs = pd.read_parquet(tmp_path / "rungs").set_index("trial_id")
    assert rungs.loc["t00000", "decision"].tolist() == ["continued", "continued"]
    assert rungs.loc["t00000", ["rank", "of"]].isna().all(axis=None)


def test_a_rung_has_every_objective_by_which_it_was_decided(tmp_path: Path) -> None:
    search = {**SMALL["search"], "student.width": {"int": [4, 16]}}
    objectives = ["clean_accuracy", "worst_class_accuracy", "parameters"]
    fixed = {"data.name": "digits", "student.name": "small_cnn"}
    study = run(
        tmp_path, load_space(tmp_path, search=search, fixed=fixed, objectives=objectives, first=[])
    )
    rungs = pd.read_parquet(tmp_path / "rungs")
    assert rungs["parameters"].tolist() == [
        study.trials[name].costs["parameters"] for name in rungs["trial_id"]
    ]
    # of a run that nobody trains they are the same
    assert rungs["worst_class_accuracy"].tolist() == rungs["robust_accuracy"].tolist()
    assert rungs["multiply_adds"].isna().all()  # nobody asked about them


def test_a_trial_may_go_on_from_its_capped_checkpoint_where_the_space_says_so(
    tmp_path: Path,
) -> None:
    worker = FakeWorker()
    study = run(
        tmp_path,
        load_space(tmp_path, **CAPPED, scheduler={"reduction": 2, "capped": "continued"}),
        worker,
        trials=12,
    )
    steps = [
        [e.training_attack_steps for e in t.epochs]
        for t in front.finished(study.trials.values(), study.space)
        if t.config.attack.steps == 10
    ]
    assert steps
    assert all(s == [2, 2, 10, 10] for s in steps)
    assert (
        len(set(worker.trained))
        == len(worker.trained)
        == sum(len(t.epochs) for t in study.trials.values())
    )


def test_without_a_scheduler_no_cap_is_in_force(tmp_path: Path) -> None:
    study = run(tmp_path, load_space(tmp_path, **CAPPED, scheduler={"name": "none"}))
    assert all(
        {e.training_attack_steps for e in t.epochs} == {t.config.attack.steps}
        for t in study.trials.values()
    )


# --------------------------------------------------------------------------------------- replicates


def test_contenders_are_replicated_after_the_search(tmp_path: Path) -> None:
    space = load_space(
        tmp_path, replicates={"seeds": 2, "contenders": 3}, scheduler={"reduction": 2}
    )
    study = run(tmp_path, space, trials=12)
    contenders = [t.trial_id for t in front.contenders(study.trials.values(), study.space)]
    replicates = {t.trial_id: t for t in study.trials.values() if t.origin == "replicate"}
    assert len(contenders) == 3
    assert set(replicates) == {f"{trial_id}-r{n}" for trial_id in contenders for n in (1, 2)}
    for trial_id, replicate in replicates.items():
        original = study.trials[trial_id.split("-")[0]]
        assert replicate.config.training.seed == original.config.training.seed + int(trial_id[-1])
        assert replicate.config.method == original.config.method
        assert (replicate.status, replicate.ordinal, len(replicate.epochs)) == (
            "finished",
            original.ordinal,
            4,
        )
    assert (
        len(study.observations()) == 12
    )  # a replicate teaches the sampler nothing about a new setting
    assert {t.trial_id for t in front.finished(study.trials.values(), study.space)}.isdisjoint(
        replicates
    )


def test_a_replicate_is_trained_as_its_original(tmp_path: Path) -> None:
    for capped, steps in {"continued": [2, 2, 10, 10], "afresh": [10, 10, 10, 10]}.items():
        wanted = {"seeds": 1, "contenders": 12}
        space = load_space(
            tmp_path, **CAPPED, replicates=wanted, scheduler={"reduction": 2, "capped": capped}
        )
        study = run(tmp_path / capped, space, trials=6)
        replicates = [
            t
            for t in study.trials.values()
            if t.origin == "replicate" and t.config.attack.steps == 10
        ]
        assert replicates
        assert all([e.training_attack_steps for e in t.epochs] == steps for t in replicates)
        again = run(tmp_path / capped, space, worker := FakeWorker(), trials=6)
        assert worker.trained == []
        assert all(
            t.trial_id not in rung.values for t in replicates for rung in again.scheduler.rungs
        )


def test_replicates_are_no_configurations_and_wait_for_the_last_of_them(tmp_path: Path) -> None:
    study = Study(
        tmp_path,
        load_space(tmp_path, replicates={"seeds": 1, "contenders": 2}, scheduler={"name": "none"}),
        3,
        {},
    )
    worker, running = FakeWorker(), [study.next(), study.next(), study.next()]
    for assignment in running[:2]:
        assert assignment is not None
        assert not [study.report(assignment.trial_id, r, {}) for r in worker.run(assignment)][-1]
    assert study.next() is None  # one configuration is still executing
    assert not study.done
    assert running[2] is not None
    study.fail(running[2].trial_id, "nan")
    assert [a.trial_id[-3:] for a in (study.next(), study.next()) if a] == ["-r1", "-r1"]
    assert study.next() is None


def test_who_begins_on_a_higher_rung_is_not_on_the_lower_one_not_even_after_a_restart(
    tmp_path: Path,
) -> None:
    space = load_space(tmp_path, scheduler={"reduction": 3, "brackets": 3}, first=None)
    study = run(tmp_path, space, trials=9)
    begun = {t.trial_id: t.segments[0].fidelities[0].epochs for t in study.trials.values()}
    assert sorted(begun.values()) == [1, 1, 1, 1, 1, 1, 2, 2, 4]
    again = Study(study.folder, space, 9, {})
    again.reconcile()
    for side in (study, again):
        assert set(side.scheduler.rungs[0].values) == {
            t for t, first in begun.items() if first == 1
        }
        assert set(side.scheduler.rungs[1].values) >= {
            t for t, first in begun.items() if first == 2
        }
        assert not set(side.scheduler.rungs[1].values) & {
            t for t, first in begun.items() if first == 4
        }
    full = next(t for t, first in begun.items() if first == 4)
    assert study.trials[full].status == "finished"
    assert study.trials[full].decisions == []


# ------------------------------------------------------------------------------------ another space


def unreadable(folder: Path, status: Status) -> Study:
    """A resumed study of four trials, one of which names a field that no longer exists."""
    study = run(folder, load_space(folder), trials=4)
    study.trials["t00002"].hyperparameters["method.forgotten"] = 1.0
    study.trials["t00002"].status = status
    study.ledger.write(study.trials["t00002"])
    return Study(folder, study.space, 5, {})


def test_rows_that_this_space_cannot_read_are_counted_and_their_numbers_not_asked_again(
    tmp_path: Path,
) -> None:
    study, said = unreadable(tmp_path, "stopped"), list[str]()
    study.reconcile(said.append)
    assert said == [
        f"{tmp_path}: 1 of 4 rows cannot be read by this space: kept, and not asked again"
    ]
    assignment = study.next()
    assert assignment is not None
    assert assignment.trial_id == "t00004"


@pytest.mark.parametrize("status", ["running", "paused"])
def test_a_trial_that_is_not_over_and_cannot_be_read_ends_the_start_with_a_way_out(
    tmp_path: Path, status: Status
) -> None:
    law = (
        r"a trial that is not over cannot be read by this space: t00002: .*forgotten.*; go on with"
        r" the space and the version that asked"
    )
    with pytest.raises(StudyError, match=law):
        unreadable(tmp_path, status).reconcile()

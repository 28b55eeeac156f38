import errno
import itertools
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest

from rkdsearch.errors import DiskError, SpaceError
from rkdsearch.search import study as study_module
from rkdsearch.search.journal import Journal
from rkdsearch.search.searcher import Seen
from rkdsearch.search.space import SearchSpace
from rkdsearch.search.study import Study
from tests.search.files import CAPPED, FakeWorker, checkpoint_of, load_space, on_disk

TRIALS = 8


class Killed(BaseException):
    """SIGKILL, as far as a process can play it to itself."""


def run(folder: Path, space: SearchSpace, worker: FakeWorker | None = None, trials: int | None = TRIALS, **more: Any) -> Study:
    study = Study(folder, space, trials, {}, **more)
    study.reconcile()
    (worker or FakeWorker()).drive(study)
    return study


def kill_at(number: int, moments: list[str]) -> Callable[[str], None]:
    def moment(name: str) -> None:
        moments.append(name)
        if len(moments) == number:
            raise Killed

    return moment


def watched(study: Study, moment: Callable[[str], None]) -> Study:
    """Every write of a row is two moments: before it and after it."""
    for name in ("write_trial", "write_epochs", "write_rungs"):
        write = getattr(study.store, name)

        def both(*arguments: Any, name: str = name, write: Callable[..., None] = write) -> None:
            moment(f"before {name}")
            write(*arguments)
            moment(f"after {name}")

        setattr(study.store, name, both)
    return study


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module, "EPOCHS_EVERY_SECONDS", 1e9)  # which rows are written must not depend on this machine's speed


# -------------------------------------------------------------------------------------------------------------------- the rules


def test_so_many_trials_are_so_many_configurations_and_the_baseline_runs_to_the_end(tmp_path: Path) -> None:
    study = run(tmp_path, load_space(tmp_path))
    assert len(study.trials) == TRIALS
    baseline = study.trials["t00000"]
    assert (baseline.origin, baseline.label, baseline.status, len(baseline.epochs)) == ("first", "published", "finished", 4)
    assert [d["rule"] for d in baseline.decisions] == ["baseline: always full length"] * 2
    assert set(study.counts()) == {"finished", "stopped"}


def test_promotion_asks_for_no_new_configuration(tmp_path: Path) -> None:
    study = run(tmp_path, load_space(tmp_path, seed=1), trials=12)
    promoted = [d for t in study.trials.values() for d in t.decisions if d["decision"] == "promoted"]
    assert promoted
    assert len(study.trials) == 12


@pytest.mark.parametrize("kind", ["promotion", "stopping"])
def test_a_stopped_trial_is_never_on_the_front_nor_shown_at_full_length(tmp_path: Path, kind: str) -> None:
    study = run(tmp_path, load_space(tmp_path, first=[], scheduler={"kind": kind, "reduction": 3}))
    stopped = [t for t in study.trials.values() if t.status == "stopped"]
    assert stopped
    assert all(len(t.epochs) < 4 for t in stopped)
    assert {t.trial_id for t in study.finished()} == {t.trial_id for t in study.trials.values() if len(t.epochs) == 4}
    shown = {json.dumps(s.params): s.rungs_short for s in study.seen()}
    assert all(shown[json.dumps(t.overrides)] == (2 if len(t.epochs) == 1 else 1) for t in stopped)


def test_without_a_scheduler_everybody_runs_to_the_end(tmp_path: Path) -> None:
    assert run(tmp_path, load_space(tmp_path, scheduler={"name": "none"})).counts() == {"finished": TRIALS}


def test_only_what_executes_now_is_shown_as_running(tmp_path: Path) -> None:
    study = Study(tmp_path, load_space(tmp_path, first=[]), TRIALS, {})
    assert study.next() is not None
    assert [s.state for s in study.seen()] == ["running"]
    study.interrupt("t00000")
    assert study.seen() == []


def test_a_sampler_with_little_room_is_shown_who_went_farthest_and_the_latest(tmp_path: Path) -> None:
    space = load_space(tmp_path, first=[], sampler={"name": "random", "history": 4}, scheduler={"reduction": 2})
    study = run(tmp_path, space, trials=12)
    whole = Study(tmp_path, replace(space, sampler=space.sampler.model_copy(update={"history": 100})), 12, {})
    whole.reconcile()
    known, shown = whole.seen(), study.seen()
    full = [s for s in known if s.rungs_short == 0]
    assert (len(known), len(shown)) == (12, 4)
    assert len(full) >= 2
    assert [s for s in known if s in full[-2:] or s in [k for k in known if k not in full[-2:]][-2:]] == shown


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
    assert "t00000" not in {t.trial_id for t in study.finished()}
    assert len(study.seen()) == 4


def test_a_methods_own_value_is_null_in_the_rows_of_the_others(tmp_path: Path) -> None:
    run(tmp_path, load_space(tmp_path))
    rows = pd.read_parquet(tmp_path / "trials")
    assert set(rows["config.method.name"]) > {"trades"}
    assert (rows["config.method.consistency_weight"].notna() == (rows["config.method.name"] == "trades")).all()


def test_accuracies_that_are_asked_for_are_asked_of_finished_trials(tmp_path: Path) -> None:
    study = run(tmp_path, load_space(tmp_path, scheduler={"name": "none"}))
    clean = sorted(t.best.clean_accuracy for t in study.finished() if t.best)
    limited = run(tmp_path, load_space(tmp_path, scheduler={"name": "none"}, constraints={"clean_accuracy": clean[3]}))
    assert len(clean) == TRIALS
    assert len(limited.finished()) == sum(c >= clean[3] for c in clean) < TRIALS


def test_students_that_are_too_large_are_refused_at_the_ask(tmp_path: Path) -> None:
    search = {"student.width": {"int": [4, 32]}, "optimizer.lr": {"float": [0.01, 0.3]}}
    fixed = {"data.name": "digits", "student.name": "small_cnn", "method.name": "natural"}
    space = load_space(tmp_path, search=search, fixed=fixed, first=[], constraints={"parameters": 12_000})
    weights = []
    study = Study(tmp_path / "s", space, 6, {})
    for _ in range(6):
        assignment = study.next()
        assert assignment is not None
        weights.append(study_module._weights(assignment.config))
        study.fail(assignment.trial_id, "not trained here")
    assert len(weights) == 6
    assert max(weights) <= 12_000
    free = Study(tmp_path / "free", replace(space, constraints=space.constraints.model_copy(update={"parameters": None})), 6, {})
    assert max(study_module._weights(free._add(n, "search", "", free._proposal(n)).config) for n in range(6)) > 12_000


def test_where_no_student_is_small_enough_the_ask_ends_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module, "ATTEMPTS", 3)
    study = Study(tmp_path, load_space(tmp_path, first=[], constraints={"parameters": 1}), 2, {})
    with pytest.raises(SpaceError, match=r"constraints.parameters must be >= the student's weights, got 1: 3 proposals in a row had more"):
        study.next()


def test_device_time_may_say_when_to_stop_asking(tmp_path: Path) -> None:
    study = run(tmp_path, load_space(tmp_path, first=[], scheduler={"name": "none"}), trials=None, device_seconds=9.5)
    assert len(study.trials) == 3  # four epochs of one second each: after two trials 8 seconds are spent
    assert study.device_seconds == 12


def test_an_earlier_study_is_shown_to_the_sampler_before_our_own_trials(tmp_path: Path) -> None:
    space = load_space(tmp_path, first=[])
    warm = [Seen({"method.name": "pgd_at", "optimizer.lr": 0.02 + 0.001 * i}, "measured", (0.9 - 0.1 * i, 0.1 * i)) for i in range(8)]
    cold, told = Study(tmp_path / "a", space, 4, {}), Study(tmp_path / "b", space, 4, {}, warm=warm)
    assert cold._proposal(0) != told._proposal(0)


# ------------------------------------------------------------------------------------------------------------------- the ladder


def test_a_cap_that_was_in_force_begins_a_run_afresh_when_it_is_lifted_and_no_other_does(tmp_path: Path) -> None:
    study = run(tmp_path, load_space(tmp_path, **CAPPED, scheduler={"reduction": 2}), trials=12)
    finished = [t for t in study.trials.values() if t.status == "finished"]
    assert {t.config.attack.steps for t in finished} == {2, 10}
    for trial in finished:
        steps = [[e.training_attack_steps for e in run] for run in trial.runs]
        assert steps == ([[2, 2, 2, 2]] if trial.config.attack.steps == 2 else [[2, 2], [10, 10, 10, 10]])
        assert (tmp_path / "checkpoints" / trial.trial_id / "last.safetensors").exists()
        assert trial.device_seconds == sum(len(run) for run in trial.runs)
    rows = pd.read_parquet(tmp_path / "trials").set_index("trial_id")
    baseline = rows.loc["t00000"]
    assert (baseline["run.wall_seconds"], baseline["fidelity.epochs"], baseline["fidelity.training_attack_steps"]) == (6, 4, 10)


def test_a_rung_says_by_what_protocol_its_values_were_measured(tmp_path: Path) -> None:
    run(tmp_path, load_space(tmp_path, **CAPPED))
    rungs = pd.read_parquet(tmp_path / "rungs").groupby("rung")[["training_attack_steps", "attack_steps", "images"]]
    assert rungs.max().to_numpy().tolist() == [[2, 5, 100], [2, 20, 100]]
    assert rungs.min().equals(rungs.max())


def test_a_trial_may_go_on_from_its_capped_checkpoint_where_the_space_says_so(tmp_path: Path) -> None:
    worker = FakeWorker()
    study = run(tmp_path, load_space(tmp_path, **CAPPED, scheduler={"reduction": 2, "capped": "continued"}), worker, trials=12)
    steps = [[e.training_attack_steps for e in t.epochs] for t in study.finished() if t.config.attack.steps == 10]
    assert steps
    assert all(s == [2, 2, 10, 10] for s in steps)
    assert len(set(worker.trained)) == len(worker.trained) == sum(len(t.epochs) for t in study.trials.values())


def test_without_a_scheduler_no_cap_is_in_force(tmp_path: Path) -> None:
    study = run(tmp_path, load_space(tmp_path, **CAPPED, scheduler={"name": "none"}))
    assert all({e.training_attack_steps for e in t.epochs} == {t.config.attack.steps} for t in study.trials.values())


# ------------------------------------------------------------------------------------------------------------------- replicates


def test_contenders_are_repeated_with_fresh_seeds_after_the_search(tmp_path: Path) -> None:
    space = load_space(tmp_path, replicates={"seeds": 2, "contenders": 3}, scheduler={"reduction": 2})
    study = run(tmp_path, space, trials=12)
    contenders = [t.trial_id for t in study.contenders()]
    repeats = {t.trial_id: t for t in study.trials.values() if t.origin == "replicate"}
    assert len(contenders) == 3
    assert set(repeats) == {f"{trial_id}-r{n}" for trial_id in contenders for n in (1, 2)}
    for trial_id, repeat in repeats.items():
        original = study.trials[trial_id.split("-")[0]]
        assert repeat.config.training.seed == original.config.training.seed + int(trial_id[-1])
        assert repeat.config.method == original.config.method
        assert (repeat.status, repeat.ordinal, len(repeat.epochs)) == ("finished", original.ordinal, 4)
    assert len(study.seen()) == 12  # a repeat teaches the sampler nothing about a new setting
    assert {t.trial_id for t in study.finished()}.isdisjoint(repeats)


def test_a_repeat_is_trained_as_the_run_that_it_repeats(tmp_path: Path) -> None:
    for capped, steps in {"continued": [2, 2, 10, 10], "afresh": [10, 10, 10, 10]}.items():
        replicates = {"seeds": 1, "contenders": 12}
        space = load_space(tmp_path, **CAPPED, replicates=replicates, scheduler={"reduction": 2, "capped": capped})
        study = run(tmp_path / capped, space, trials=6)
        repeats = [t for t in study.trials.values() if t.origin == "replicate" and t.config.attack.steps == 10]
        assert repeats
        assert all([e.training_attack_steps for e in t.epochs] == steps for t in repeats)
        again = run(tmp_path / capped, space, worker := FakeWorker(), trials=6)
        assert worker.trained == []
        assert all(t.trial_id not in rung.values for t in repeats for rung in again.rungs.rungs)


def test_a_mean_that_misses_a_constraint_is_on_no_front(tmp_path: Path) -> None:
    study = run(tmp_path, load_space(tmp_path, scheduler={"name": "none"}, replicates={"seeds": 1, "contenders": 2}), trials=3)
    contenders = [t.trial_id for t in study.contenders()]
    assert {t.trial_id for t, _, _ in study.judged()} == set(contenders)
    lowest = min(clean for _, clean, _ in study.judged())
    repeat = study.trials[f"{contenders[0]}-r1"]
    assert repeat.best is not None
    repeat.run[-1] = replace(repeat.run[-1], best=replace(repeat.best, clean_accuracy=lowest - 0.1))
    limits = study.space.constraints.model_copy(update={"clean_accuracy": lowest - 0.05})
    study.space = replace(study.space, constraints=limits)
    assert [t.trial_id for t, _, _ in study.judged()] == contenders[1:]


def test_repeats_are_no_configurations_and_wait_for_the_last_of_them(tmp_path: Path) -> None:
    study = Study(tmp_path, load_space(tmp_path, replicates={"seeds": 1, "contenders": 2}, scheduler={"name": "none"}), 3, {})
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


# --------------------------------------------------------------------------------------------------------------------- survival


KINDS: dict[str, dict[str, Any]] = {
    "promotion": {},
    "stopping": {"scheduler": {"kind": "stopping", "reduction": 3}},
    "capped": {**CAPPED, "replicates": {"seeds": 2, "contenders": 2}, "scheduler": {"reduction": 2}},
}


@pytest.fixture(scope="module", params=list(KINDS))
def uninterrupted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SearchSpace, dict[str, Any], list[str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_module, "EPOCHS_EVERY_SECONDS", 1e9)
        folder = tmp_path_factory.mktemp("whole")
        space = load_space(folder, **KINDS[request.param])
        moments: list[str] = []
        moment = kill_at(0, moments)
        FakeWorker(moment).drive(watched(Study(folder / "study", space, TRIALS, {}), moment))
        return space, on_disk(folder / "study"), moments


def killed_and_taken_up(folder: Path, space: SearchSpace, number: int) -> tuple[dict[str, Any], list[tuple[str, int]], str]:
    moments: list[str] = []
    moment = kill_at(number, moments)
    first, second = FakeWorker(moment), FakeWorker()
    with pytest.raises(Killed):
        first.drive(watched(Study(folder, space, TRIALS, {}), moment))
    run(folder, space, second)
    return on_disk(folder), first.trained + second.trained, moments[-1]


def first_of_each(moments: list[str]) -> list[int]:
    """Every kind of moment in every kind of company, once: the moment with the one before it."""
    found: dict[tuple[str, ...], int] = {}
    for number in range(1, len(moments) + 1):
        found.setdefault(tuple(moments[max(0, number - 2) : number]), number)
    return list(found.values())


def agree(tmp_path: Path, uninterrupted: tuple[SearchSpace, dict[str, Any], list[str]], numbers: list[int]) -> None:
    space, whole, _ = uninterrupted
    for number in numbers:
        found, trained, name = killed_and_taken_up(tmp_path / str(number), space, number)
        place = f"killed at moment {number}, {name}"
        assert found["trials"] == whole["trials"], place
        assert found["rungs"] == whole["rungs"], place
        assert found["epochs"] == whole["epochs"], place
        assert len(set(trained)) == len(trained), f"{place}: an epoch was repeated"


def test_a_search_killed_at_any_kind_of_moment_ends_as_if_it_never_was(
    tmp_path: Path, uninterrupted: tuple[SearchSpace, dict[str, Any], list[str]]
) -> None:
    names = set(uninterrupted[2])
    assert names >= {"asked, not begun", "checkpoint written, not reported", "before write_trial", "after write_rungs", "assignment over"}
    agree(tmp_path, uninterrupted, first_of_each(uninterrupted[2]))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_search_killed_at_every_moment_ends_as_if_it_never_was(
    tmp_path: Path, uninterrupted: tuple[SearchSpace, dict[str, Any], list[str]]
) -> None:
    agree(tmp_path, uninterrupted, list(range(1, len(uninterrupted[2]) + 1)))


def test_a_finished_search_has_nothing_to_do_when_taken_up(tmp_path: Path) -> None:
    space, worker = load_space(tmp_path), FakeWorker()
    run(tmp_path, space)
    before = on_disk(tmp_path)
    run(tmp_path, space, worker)
    assert worker.trained == []
    assert on_disk(tmp_path) == before


def test_more_trials_go_on_from_what_was_stopped(tmp_path: Path) -> None:
    space, worker = load_space(tmp_path), FakeWorker()
    run(tmp_path / "a", space, worker)
    run(tmp_path / "a", space, worker, trials=14)
    assert len(set(worker.trained)) == len(worker.trained)
    assert len(on_disk(tmp_path / "a")["trials"]) == 14


def test_a_damaged_checkpoint_starts_that_trial_afresh_and_no_other(tmp_path: Path) -> None:
    space, worker = load_space(tmp_path, scheduler={"name": "none"}), FakeWorker()
    moments: list[str] = []
    first = FakeWorker(lambda name: kill_at(7, moments)(name) if name.startswith("checkpoint") else None)
    with pytest.raises(Killed):  # in the third epoch of the second trial
        first.drive(Study(tmp_path / "a", space, 3, {}))
    file = checkpoint_of(tmp_path / "a", "t00001")
    file.write_bytes(file.read_bytes()[:40])
    run(tmp_path / "a", space, worker, trials=3)
    run(tmp_path / "b", space, trials=3)
    assert worker.trained == [(t, e) for t in ("t00001", "t00002") for e in range(1, 5)]
    assert on_disk(tmp_path / "a") == on_disk(tmp_path / "b")
    assert file.with_name("last.safetensors.damaged").exists()


def test_a_finished_trial_without_checkpoint_keeps_its_values_from_its_rows(tmp_path: Path) -> None:
    space, worker = load_space(tmp_path), FakeWorker()
    study = run(tmp_path, space)
    front = {t.trial_id: t.best for t in study.finished()}
    for trial_id in study.trials:
        checkpoint_of(tmp_path, trial_id).unlink()
    again = run(tmp_path, space, worker)
    assert worker.trained == []
    assert {t.trial_id: t.best for t in again.finished()} == front
    assert again.seen() == study.seen()


def test_a_finished_trial_whose_decisions_are_lost_is_its_full_run_and_not_its_capped_one(tmp_path: Path) -> None:
    space, worker = load_space(tmp_path, **CAPPED, scheduler={"reduction": 2}), FakeWorker()
    study = run(tmp_path, space, trials=6)
    values = {t.trial_id: (clean, robust) for t, clean, robust in study.judged()}
    assert any(len(t.runs) == 2 for t in study.finished())
    for file in (tmp_path / "rungs").glob("*.parquet"):
        file.unlink()
    again = run(tmp_path, space, worker, trials=6)
    assert {t.trial_id: (clean, robust) for t, clean, robust in again.judged()} == values
    assert not {name for name, _ in worker.trained} & set(values)


def test_values_of_another_protocol_are_no_best_epoch_where_only_rows_are_left(tmp_path: Path) -> None:
    ladder = [{"epochs": 2, "validation_steps": 2}, {"epochs": 4}]
    study = run(tmp_path, load_space(tmp_path, first=[], ladder=ladder, scheduler={"reduction": 2}), trials=4)
    trial = study.finished()[0]
    row = {"clean_accuracy": 0.99, "robust_accuracy": 0.99, "worst_class_accuracy": 0.99}  # an easy exam, passed with glory
    trial.runs[0][1] = replace(trial.runs[0][1], **row)
    study._write(trial)
    checkpoint_of(tmp_path, trial.trial_id).unlink()
    again = Study(tmp_path, study.space, 4, {})
    again.reconcile()
    best = again.trials[trial.trial_id].best
    assert best is not None
    assert best.epoch in (3, 4)


def test_a_damaged_row_is_asked_again_under_its_own_number_and_the_others_stay(tmp_path: Path) -> None:
    space, worker = load_space(tmp_path), FakeWorker()
    run(tmp_path, space)
    before = on_disk(tmp_path)
    row = tmp_path / "trials" / "t00003.parquet"
    row.write_bytes(row.read_bytes()[:100])
    run(tmp_path, space, worker)
    after = on_disk(tmp_path)
    assert set(after["trials"]) == set(before["trials"])
    assert {t for t, _ in worker.trained} >= {"t00003"}
    kept = [t for t in before["trials"] if before["trials"][t]["status"] == "finished" and t != "t00003"]
    assert all(after["trials"][t] == before["trials"][t] for t in kept)
    assert len(pd.read_parquet(tmp_path / "trials")) == TRIALS
    assert list((tmp_path / "trials").glob(".t00003.parquet.damaged-*"))


# ---------------------------------------------------------------------------------------------------------------------- journal


def states(folder: Path) -> dict[str, str]:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "optuna.journal")))
    (summary,) = optuna.get_all_study_summaries(storage)
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    assert study.metric_names == ["clean_accuracy", "robust_accuracy"]
    found = [(t.user_attrs["trial_id"], t.state.name) for t in study.trials]
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_journal_shows_every_ended_trial_once_as_what_it_is(tmp_path: Path) -> None:
    space = load_space(tmp_path)
    study = run(tmp_path / "s", space, journal=Journal(tmp_path / "s", space))
    names = {"finished": "COMPLETE", "stopped": "PRUNED"}
    expected = {t.trial_id: names[t.status] for t in study.trials.values()}
    assert states(tmp_path / "s") == expected
    for content in (None, b'{"op_code": 0, "wor'):
        file = tmp_path / "s" / "optuna.journal"
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        Journal(tmp_path / "s", space).sync(study.trials.values())
        assert states(tmp_path / "s") == expected


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_journal_that_is_no_longer_true_is_written_anew(tmp_path: Path) -> None:
    space = load_space(tmp_path)
    study = run(tmp_path, space, journal=Journal(tmp_path, space))
    stopped = next(t for t in study.trials.values() if t.status == "stopped")
    stopped.status = "finished"
    Journal(tmp_path, space).sync(study.trials.values())
    assert states(tmp_path)[stopped.trial_id] == "COMPLETE"


# ----------------------------------------------------------------------------------------------------------------------- the disk


def full_at(number: int) -> Callable[[Path, Path], None]:
    """`os.replace` on a disk that is full from the `number`th file on."""
    replace, asked = os.replace, itertools.count(1)

    def refuse(source: Path, target: Path) -> None:
        if next(asked) >= number:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    return refuse


def test_a_disk_that_is_full_ends_the_search_in_a_sentence_and_room_is_all_that_it_needs(
    tmp_path: Path, uninterrupted: tuple[SearchSpace, dict[str, Any], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    space, whole, _ = uninterrupted
    refused = set()
    for number in (1, 2, 3, 4, 5, 6, 7, 12, 19, 26, 33):
        folder, first, second = tmp_path / str(number), FakeWorker(), FakeWorker()
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", full_at(number))
            with pytest.raises(DiskError, match=r"could not be written: No space left on device") as error:
                first.drive(Study(folder, space, TRIALS, {}))
        refused.add(Path(str(error.value).partition(":")[0]).parent.name)
        assert not list(folder.rglob(".*")), "what was half written is gone"
        run(folder, space, second)
        assert on_disk(folder) == whole, f"full from file {number} on"
        trained = first.trained + second.trained
        assert len(trained) - len(set(trained)) <= 1, "only the epoch whose checkpoint found no room is repeated"
    assert refused >= {"trials", "rungs", "t00000"}

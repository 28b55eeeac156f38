import errno
import itertools
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from rkdsearch.errors import DiskError, Failure, FileError
from rkdsearch.search import front, ledger
from rkdsearch.search.study import Study
from rkdsearch.space.space import SearchSpace
from tests.search.files import (
    CAPPED,
    TRIALS,
    AheadWorker,
    FakeWorker,
    checkpoint_of,
    load_space,
    on_disk,
    run,
)

pytestmark = pytest.mark.usefixtures("unhurried")


class Killed(BaseException):
    """SIGKILL, as far as a process can play it to itself."""


def kill_at(number: int, moments: list[str]) -> Callable[[str], None]:
    def moment(name: str) -> None:
        moments.append(name)
        if len(moments) == number:
            raise Killed

    return moment


def watched(study: Study, moment: Callable[[str], None]) -> Study:
    """Every write of a row is two moments: before it and after it."""
    for name in ("write_trial", "write_epochs", "write_rungs"):
        write = getattr(study.ledger.store, name)

        def both(*arguments: Any, name: str = name, write: Callable[..., None] = write) -> None:
            moment(f"before {name}")
            write(*arguments)
            moment(f"after {name}")

        setattr(study.ledger.store, name, both)
    return study


KINDS: dict[str, tuple[type[FakeWorker], dict[str, Any]]] = {
    "promotion": (FakeWorker, {}),
    "stopping": (FakeWorker, {"scheduler": {"kind": "stopping", "reduction": 3}}),
    "capped": (
        FakeWorker,
        {**CAPPED, "replicates": {"seeds": 2, "contenders": 2}, "scheduler": {"reduction": 2}},
    ),
    "asked ahead": (
        AheadWorker,
        {**CAPPED, "sampler": {"name": "tpe", "startup": 2}, "scheduler": {"reduction": 2}},
    ),
}


@dataclass(frozen=True)
class Remains:
    """What SIGKILL leaves of a search at one moment: its folder, and what its worker trained."""

    moment: str
    folder: Path
    trained: list[tuple[str, int]]


@dataclass(frozen=True)
class Uninterrupted:
    """A whole search, and what it would have left behind at some of its moments."""

    kind: type[FakeWorker]
    space: SearchSpace
    on_disk: dict[str, Any]
    moments: set[str]
    remains: list[Remains]


def content(folder: Path) -> dict[Path, bytes]:
    """Every file of a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def uninterrupted_search(folder: Path, name: str, *, at_every_moment: bool) -> Uninterrupted:
    """Search of this name in `KINDS`.

    Its remains are of every moment, or of every kind of moment in every kind of company, once: the
    moment with the one before it. Moments between which no file changed and nothing was trained
    leave the same remains.
    """
    kind, changes = KINDS[name]
    space = load_space(folder, **changes)
    remains, pairs, last = list[Remains](), set[tuple[str, str]](), ""
    before: tuple[dict[Path, bytes], int] | None = None

    def moment(name: str) -> None:
        nonlocal last, before
        pair, last = (last, name), name
        if at_every_moment or pair not in pairs:
            pairs.add(pair)
            now = content(folder / "study"), len(worker.trained)
            if now == before:
                return
            before, left = now, folder / str(len(remains)) / "study"
            if (folder / "study").exists():
                shutil.copytree(folder / "study", left)
            remains.append(Remains(name, left, [*worker.trained]))

    worker = kind(moment)
    worker.drive(watched(Study(folder / "study", space, TRIALS, {}), moment))
    moments = {moment for _, moment in pairs}
    return Uninterrupted(kind, space, on_disk(folder / "study"), moments, remains)


@pytest.fixture(scope="module", params=list(KINDS))
def uninterrupted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Uninterrupted:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "EPOCHS_EVERY_SECONDS", 1e9)
        folder = tmp_path_factory.mktemp("whole")
        return uninterrupted_search(folder, request.param, at_every_moment=False)


def resume_each(search: Uninterrupted) -> None:
    """Check that a search that was killed at any of these moments ends as if it never was."""
    for remains in search.remains:
        worker = search.kind()
        run(remains.folder, search.space, worker)
        found, place = on_disk(remains.folder), f"killed at {remains.moment}, {remains.folder}"
        assert found["trials"] == search.on_disk["trials"], place
        assert found["rungs"] == search.on_disk["rungs"], place
        assert found["epochs"] == search.on_disk["epochs"], place
        trained = remains.trained + worker.trained
        assert len(set(trained)) == len(trained), f"{place}: an epoch was repeated"


def test_a_search_killed_at_any_kind_of_moment_ends_as_if_it_never_was(
    uninterrupted: Uninterrupted,
) -> None:
    begun = "asked, not begun" if uninterrupted.kind is FakeWorker else "begun, and asked ahead"
    assert uninterrupted.moments >= {
        begun,
        "checkpoint written, not reported",
        "before write_trial",
        "after write_rungs",
        "assignment over",
    }
    resume_each(uninterrupted)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", KINDS)
def test_a_search_killed_at_every_moment_ends_as_if_it_never_was(tmp_path: Path, name: str) -> None:
    resume_each(uninterrupted_search(tmp_path, name, at_every_moment=True))


def test_a_finished_search_has_nothing_to_do_when_resumed(tmp_path: Path) -> None:
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
    first = FakeWorker(
        lambda name: kill_at(7, moments)(name) if name.startswith("checkpoint") else None
    )
    with pytest.raises(Killed):  # in the third epoch of the second trial
        first.drive(Study(tmp_path / "a", space, 3, {}))
    file = checkpoint_of(tmp_path / "a", "t00001")
    file.write_bytes(file.read_bytes()[:40])
    run(tmp_path / "a", space, worker, trials=3)
    run(tmp_path / "b", space, trials=3)
    assert worker.trained == [(t, e) for t in ("t00001", "t00002") for e in range(1, 5)]
    assert on_disk(tmp_path / "a") == on_disk(tmp_path / "b")
    assert file.with_name("last.safetensors.damaged").exists()


def failing(study: Study, trial_id: str, failure: Failure, *, after: int) -> None:
    """One worker to the study's end; this trial fails after so many epochs."""
    worker = FakeWorker()
    while not study.done:
        assignment = study.next()
        assert assignment is not None
        for number, result in enumerate(worker.run(assignment)):
            if assignment.trial_id == trial_id and number == after:
                study.fail(trial_id, "as it happens", failure)
                break
            if not study.report(assignment.trial_id, result, {}):
                break
    study.close()


@pytest.mark.parametrize("failure", ["memory", "worker", "files"])
def test_a_failure_of_the_machine_is_retried_from_the_last_epoch_once_a_session(
    tmp_path: Path, failure: Failure
) -> None:
    space, worker = load_space(tmp_path, scheduler={"name": "none"}), FakeWorker()
    failing(Study(tmp_path, space, 3, {}), "t00001", failure, after=2)
    row = pd.read_parquet(tmp_path / "trials" / "t00001.parquet").iloc[0]
    assert (row["status"], row["failure"], row["error"]) == ("failed", failure, "as it happens")
    second = Study(
        tmp_path,
        replace(space, constraints=space.constraints.model_copy(update={"parameters": 10**6})),
        3,
        {},
    )
    second.reconcile()
    assert second.retried == ["t00001"]
    # no reader takes it for over
    assert pd.read_parquet(tmp_path / "trials" / "t00001.parquet")["status"].tolist() == ["running"]
    failing(second, "t00001", failure, after=0)
    assert second.counts() == {"finished": 2, "failed": 1}
    study = run(tmp_path, space, worker, trials=3)
    assert worker.trained == [("t00001", 4)]
    assert study.counts() == {"finished": 3}
    row = pd.read_parquet(tmp_path / "trials" / "t00001.parquet").iloc[0]
    assert row["status"] == "finished"
    assert row[["failure", "error"]].isna().all()


def test_a_trial_that_went_up_before_the_machine_failed_it_is_on_its_rungs_as_before(
    tmp_path: Path,
) -> None:
    for name, changes in (("by length", {}), ("capped", CAPPED)):
        space, folder, worker = load_space(tmp_path, **changes), tmp_path / name, FakeWorker()
        run(tmp_path / f"whole {name}", space, trials=1)
        study = Study(folder, space, 1, {})
        failing(study, "t00000", "worker", after=2)
        assert study.counts() == {"failed": 1}
        run(folder, space, worker, trials=1)
        assert worker.trained == [("t00000", 4)]
        assert on_disk(folder) == on_disk(tmp_path / f"whole {name}")


@pytest.mark.parametrize("failure", ["loss", "error"])
def test_what_a_method_failed_stays_failed(tmp_path: Path, failure: Failure) -> None:
    space, worker = load_space(tmp_path, scheduler={"name": "none"}), FakeWorker()
    failing(Study(tmp_path, space, 3, {}), "t00001", failure, after=2)
    assert run(tmp_path, space, worker, trials=3).counts() == {"finished": 2, "failed": 1}
    assert worker.trained == []


def test_a_finished_trial_without_checkpoint_keeps_its_values_from_its_rows(tmp_path: Path) -> None:
    space, worker = load_space(tmp_path), FakeWorker()
    study = run(tmp_path, space)
    finished = {t.trial_id: t.best for t in front.finished(study.trials.values(), study.space)}
    for trial_id in study.trials:
        checkpoint_of(tmp_path, trial_id).unlink()
    again = run(tmp_path, space, worker)
    assert worker.trained == []
    assert {
        t.trial_id: t.best for t in front.finished(again.trials.values(), again.space)
    } == finished
    assert again.observations() == study.observations()


def test_a_finished_trial_whose_decisions_are_lost_is_its_full_run_and_not_its_capped_one(
    tmp_path: Path,
) -> None:
    space, worker = load_space(tmp_path, **CAPPED, scheduler={"reduction": 2}), FakeWorker()
    study = run(tmp_path, space, trials=6)
    values = {
        one.trial.trial_id: (one.clean_accuracy, one.robust_accuracy)
        for one in front.judged(study.trials.values(), study.space)
    }
    assert any(
        len(t.epochs_by_segment) == 2 for t in front.finished(study.trials.values(), study.space)
    )
    for file in (tmp_path / "rungs").glob("*.parquet"):
        file.unlink()
    again = run(tmp_path, space, worker, trials=6)
    assert {
        one.trial.trial_id: (one.clean_accuracy, one.robust_accuracy)
        for one in front.judged(again.trials.values(), again.space)
    } == values
    assert not {name for name, _ in worker.trained} & set(values)


def test_values_of_another_protocol_are_no_best_epoch_where_only_rows_are_left(
    tmp_path: Path,
) -> None:
    ladder = [{"epochs": 2, "validation_attack_steps": 2}, {"epochs": 4}]
    study = run(
        tmp_path,
        load_space(tmp_path, first=[], ladder=ladder, scheduler={"reduction": 2}),
        trials=4,
    )
    trial = front.finished(study.trials.values(), study.space)[0]
    # an easy exam, passed with glory
    row = {"clean_accuracy": 0.99, "robust_accuracy": 0.99, "worst_class_accuracy": 0.99}
    trial.epochs_by_segment[0][1] = replace(trial.epochs_by_segment[0][1], **row)
    study.ledger.write(trial)
    checkpoint_of(tmp_path, trial.trial_id).unlink()
    again = Study(tmp_path, study.space, 4, {})
    again.reconcile()
    best = again.trials[trial.trial_id].best
    assert best is not None
    assert best.epoch in (3, 4)


@pytest.mark.parametrize("kind", ["promotion", "stopping"])
def test_whose_decisions_are_damaged_stands_on_its_rungs_as_before(
    tmp_path: Path, kind: str
) -> None:
    space = load_space(tmp_path, **CAPPED, scheduler={"kind": kind, "reduction": 2})
    run(tmp_path / "whole", space)
    shutil.copytree(tmp_path / "whole", tmp_path / "damaged")
    files = sorted((tmp_path / "damaged" / "rungs").glob("*.parquet"))
    for file in files:
        file.write_bytes(file.read_bytes()[:100])
    studies = [Study(tmp_path / name, space, 14, {}) for name in ("whole", "damaged")]
    for study in studies:
        study.reconcile()
    whole, damaged = (
        [(rung.values, rung.promoted) for rung in study.scheduler.rungs] for study in studies
    )
    assert damaged == whole
    held = {t.trial_id for t in studies[1].trials.values() if t.status in ("paused", "stopped")}
    assert len(held) >= 2
    # as everywhere, readers see what was decided
    again = pd.read_parquet(tmp_path / "damaged" / "rungs")
    assert set(again["trial_id"]) == held
    assert set(again["decision"]) == {"paused" if kind == "promotion" else "stopped"}
    ended = [run(tmp_path / name, space, trials=14) for name in ("whole", "damaged")]
    assert on_disk(ended[1].folder)["trials"] == on_disk(ended[0].folder)["trials"]


def test_a_search_that_now_stops_instead_of_pausing_leaves_nobody_paused(tmp_path: Path) -> None:
    pausing = Study(tmp_path, load_space(tmp_path, first=[]), TRIALS, {})
    for _ in range(2):
        assignment = pausing.next()
        assert assignment is not None
        assert not pausing.report(assignment.trial_id, next(FakeWorker().run(assignment)), {})
    assert pd.read_parquet(tmp_path / "trials")["status"].tolist() == ["paused", "paused"]
    study = run(
        tmp_path, load_space(tmp_path, first=[], scheduler={"kind": "stopping", "reduction": 3})
    )
    rows = pd.read_parquet(tmp_path / "trials").set_index("trial_id")["status"]
    assert rows.to_dict() == {t.trial_id: t.status for t in study.trials.values()}
    assert set(rows) == {"finished", "stopped"}


def test_decisions_of_an_earlier_version_without_the_later_columns_are_read_and_kept(
    tmp_path: Path,
) -> None:
    space = load_space(tmp_path)
    run(tmp_path, space)
    before = on_disk(tmp_path)
    for file in (tmp_path / "rungs").glob("*.parquet"):
        table = pq.ParquetFile(file).read()
        pq.write_table(
            table.drop_columns(["worst_class_accuracy", "parameters", "multiply_adds"]), file
        )
    run(tmp_path, space, trials=14)
    after = on_disk(tmp_path)
    assert set(after["rungs"]) >= set(before["rungs"])
    assert (
        pd.read_parquet(tmp_path / "rungs" / "t00010.parquet")["worst_class_accuracy"].notna().all()
    )


def test_a_damaged_row_is_asked_again_under_its_own_number_and_the_others_stay(
    tmp_path: Path,
) -> None:
    space, worker = load_space(tmp_path), FakeWorker()
    run(tmp_path, space)
    before = on_disk(tmp_path)
    row = tmp_path / "trials" / "t00003.parquet"
    row.write_bytes(row.read_bytes()[:100])
    run(tmp_path, space, worker)
    after = on_disk(tmp_path)
    assert set(after["trials"]) == set(before["trials"])
    assert {t for t, _ in worker.trained} >= {"t00003"}
    kept = [
        t for t in before["trials"] if before["trials"][t]["status"] == "finished" and t != "t00003"
    ]
    assert all(after["trials"][t] == before["trials"][t] for t in kept)
    assert len(pd.read_parquet(tmp_path / "trials")) == TRIALS
    assert list((tmp_path / "trials").glob(".t00003.parquet.damaged-*"))


@pytest.mark.parametrize("table", ["trials", "epochs", "rungs"])
def test_a_row_that_the_system_refuses_ends_the_resume_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    space, worker = load_space(tmp_path), FakeWorker()
    run(tmp_path / "a", space)
    before, file = content(tmp_path / "a"), tmp_path / "a" / table / "t00003.parquet"
    read_bytes = Path.read_bytes

    def read(path: Path) -> bytes:
        if path == file:
            raise PermissionError(errno.EACCES, "Permission denied")
        return read_bytes(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read)
        with pytest.raises(
            FileError,
            match=r"t00003.parquet: cannot be read: Permission denied; nothing was changed, mend",
        ):
            run(tmp_path / "a", space, worker)
    assert content(tmp_path / "a") == before
    run(tmp_path / "a", space, worker)
    assert worker.trained == []


def test_what_is_put_aside_at_a_resume_is_told(tmp_path: Path) -> None:
    space, said = load_space(tmp_path), list[str]()
    run(tmp_path / "a", space)
    for table, name in (("trials", "t00003"), ("rungs", "t00001")):
        file = tmp_path / "a" / table / f"{name}.parquet"
        file.write_bytes(file.read_bytes()[:100])
    torn = checkpoint_of(tmp_path / "a", "t00005")
    torn.write_bytes(torn.read_bytes()[:40])
    Study(tmp_path / "a", space, TRIALS, {}).reconcile(said.append)
    trial, rungs, checkpoint = said
    assert checkpoint == (f"{torn} was damaged and is put aside as last.safetensors.damaged")
    assert "trials/t00003.parquet: is damaged, and put aside as .t00003.parquet.damaged-" in trial
    assert trial.endswith("; trained again, with their checkpoints put aside too: t00003")
    assert "rungs/t00001.parquet: is damaged, and put aside as .t00001.parquet.damaged-" in rungs
    assert "trained again" not in rungs


# ----------------------------------------------------------------------------------------- the disk


def full_at(number: int) -> Callable[[Path, Path], None]:
    """`os.replace` on a disk that is full from the `number`th file on."""
    replace, asked = os.replace, itertools.count(1)

    def refuse(source: Path, target: Path) -> None:
        if next(asked) >= number:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    return refuse


def test_a_disk_that_is_full_ends_the_search_in_a_sentence_and_room_is_all_that_it_needs(
    tmp_path: Path, uninterrupted: Uninterrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, space, whole = uninterrupted.kind, uninterrupted.space, uninterrupted.on_disk
    refused = set()
    for number in (1, 2, 3, 4, 5, 6, 7, 12, 19, 26, 33):
        folder, first, second = tmp_path / str(number), kind(), kind()
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", full_at(number))
            with pytest.raises(
                DiskError, match=r"could not be written: No space left on device"
            ) as error:
                first.drive(Study(folder, space, TRIALS, {}))
        refused.add(Path(str(error.value).partition(":")[0]).relative_to(folder).parts[0])
        assert not list(folder.rglob(".*")), "what was half written is gone"
        run(folder, space, second)
        assert on_disk(folder) == whole, f"full from file {number} on"
        trained = first.trained + second.trained
        assert len(trained) - len(set(trained)) <= 1, (
            "only the epoch whose checkpoint found no room is repeated"
        )
    assert refused >= {"trials", "rungs", "checkpoints"}

"""The driver of a long search: its memory changes no answer and stays small."""

import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from rkdsearch.search.assignment import Assignment
from rkdsearch.search.sampler import Observation
from rkdsearch.search.study import Study
from rkdsearch.training.epoch import EpochResult
from tests.search.files import CAPPED, FakeWorker, load_space


def seen_by_one_without_memory(study: Study) -> list[Observation]:
    other = Study(
        study.folder, study.space, study.max_trials, {}, device_seconds=study.max_device_seconds
    )
    other.ledger.trials = study.trials
    other.ledger.changed |= study.trials.keys()
    return other.observations()


def steps(study: Study) -> Iterator[None]:
    """Three trials at a time, an epoch of each in turn; yields after each event.

    One trial fails and one is interrupted before it reports.
    """
    worker = FakeWorker()
    busy: list[tuple[Assignment, Iterator[EpochResult]]] = []
    accidents = {
        "t00002": lambda: study.fail("t00002", "as it happens"),
        "t00003": lambda: study.interrupt("t00003"),
    }
    while busy or not study.done:
        while len(busy) < 3 and (assignment := study.next()) is not None:
            busy.append((assignment, worker.run(assignment)))
            yield
        assignment, epochs = busy.pop(0)
        if assignment.trial_id in accidents:
            accidents.pop(assignment.trial_id)()
        elif study.report(assignment.trial_id, next(epochs), {"run.processes": 1}):
            busy.append((assignment, epochs))
        yield


@pytest.mark.parametrize("ladder", ["by length", "capped"])
def test_what_is_seen_is_what_a_driver_without_memory_would_see(
    tmp_path: Path, ladder: str
) -> None:
    study = Study(
        tmp_path / "study", load_space(tmp_path, **(CAPPED if ladder == "capped" else {})), 14, {}
    )
    states = set[str]()
    for _ in steps(study):
        seen = study.observations()
        assert seen == seen_by_one_without_memory(study)
        states |= {
            f"{'running' if one.values is None else 'measured'}, {one.rungs_short} short"
            for one in seen
        }
    assert states == {
        "running, 0 short",
        "measured, 2 short",
        "measured, 1 short",
        "measured, 0 short",
    }
    assert study.counts()["failed"] == 1


def test_the_sampler_is_handed_only_what_it_looks_at(tmp_path: Path) -> None:
    long, short = (
        Study(
            tmp_path / name,
            load_space(tmp_path, sampler={"name": "tpe", "startup": 3, "history": n}),
            12,
            {},
        )
        for name, n in (("long", 1000), ("short", 5))
    )
    FakeWorker().drive(long)
    short.ledger.trials = long.trials
    short.ledger.changed |= long.trials.keys()
    assert [one.hyperparameters for one in long.observations()] == [
        long.trials[f"t{n:05d}"].hyperparameters for n in range(12)
    ]
    assert len(short.observations()) == 5
    assert short.observations()[-3:] == long.observations()[-3:]


def test_a_trial_that_failed_when_it_was_retried_is_in_the_history_no_more(tmp_path: Path) -> None:
    study = Study(tmp_path / "study", load_space(tmp_path), 3, {})
    assignment = study.next()
    assert assignment is not None
    # a baseline goes on
    assert study.report(assignment.trial_id, next(FakeWorker().run(assignment)))
    study.interrupt(assignment.trial_id)
    assert [one.values is not None for one in study.observations()] == [True]
    again = study.next()
    assert again is not None
    assert again.trial_id == assignment.trial_id
    study.fail(assignment.trial_id, "as it happens")
    assert study.observations() == []


@pytest.mark.long
def test_a_trial_that_is_over_leaves_some_kilobytes_with_the_driver(tmp_path: Path) -> None:
    study = Study(tmp_path / "study", load_space(tmp_path), 120, {})
    held: dict[int, int] = {}

    def weigh(moment: str) -> None:
        if moment == "asked, not begun" and len(study.trials) in (40, 120):
            gc.collect()
            held.setdefault(len(study.trials), tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        FakeWorker(weigh).drive(study)
    finally:
        tracemalloc.stop()
    # bytes; its resolved configuration is half of it
    assert 1_000 < (held[120] - held[40]) / 80 < 30_000

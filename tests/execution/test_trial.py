from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from rkdsearch import config as run
from rkdsearch.config.fidelity import Fidelity
from rkdsearch.errors import RkdError, WorkerError
from rkdsearch.execution.trial import Gang, Worker, run_trial

CONFIG = run.build(
    {
        "data.name": "digits", "student": {"name": "small_cnn", "width": 4}, "method.name": "natural", "attack.steps": 0,
        "training": {"epochs": 3, "batch_size": 512, "device": "cpu"}, "validation": {"images": 50, "every": 3, "attack.steps": 1},
    }
)  # fmt: skip


def test_a_trial_taken_up_reports_its_last_epoch_once_more_and_trains_on(tmp_path: Path) -> None:
    fidelities = (Fidelity(epochs=1), Fidelity(epochs=3))
    trial = run_trial(CONFIG, tmp_path, fidelities)
    first, facts = next(trial)
    trial.close()  # type: ignore[attr-defined]  # it is a generator
    assert (first.epoch, first.clean_accuracy is not None) == (1, True)
    assert facts["run.processes"] == 1
    assert facts["run.ray"] == ray.__version__
    again = [epoch for epoch, _ in run_trial(CONFIG, tmp_path, fidelities)]
    assert [e.epoch for e in again] == [1, 2, 3]
    assert again[0] == first
    assert [e.clean_accuracy is not None for e in again] == [True, False, True]


def test_a_process_of_a_gang_raises_sentences_alone() -> None:
    def epochs() -> Iterator[dict[str, Any]]:
        raise IndexError("too far")
        yield {}

    worker = Worker()
    worker._reports = epochs()
    with pytest.raises(RkdError, match=r"IndexError: too far \(test_trial.py:"):
        worker.step()


class Silent:
    """The handle of a process that never answers."""

    def __getattr__(self, name: str) -> Any:
        return self

    def remote(self, *_: object) -> str:
        return "an answer to come"


def test_a_gang_that_ends_no_epoch_within_the_limit_is_the_trials_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def get(_: object, timeout: float | None = None) -> list[str]:
        if timeout is not None:
            raise ray.exceptions.GetTimeoutError
        return ["10.0.0.1", "10.0.0.2"]

    monkeypatch.setattr(ray, "get", get)
    gang = Gang.__new__(Gang)
    gang._workers = [Silent(), Silent()]
    sentence = (
        r"^an epoch of its 2 processes must end within 6 hours \(STEP_TIMEOUT_SECONDS of"
        r" rkdsearch/execution/trial.py\), and did not: one of them hangs"
    )
    with pytest.raises(WorkerError, match=sentence) as raised:
        next(gang.reports({}))
    # no RayError: Ray would start the trial again, and wait as long again
    assert raised.value.failure == "worker"

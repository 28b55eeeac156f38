from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from rkdsearch.errors import RkdError, WorkerError
from rkdsearch.execution.gang import Gang, GangProcess
from rkdsearch.execution.messages import EpochReport
from tests.execution.orders import REPORT, order_of


def test_a_process_of_a_gang_raises_sentences_alone() -> None:
    def epochs() -> Iterator[EpochReport]:
        raise IndexError("too far")
        yield REPORT

    worker = GangProcess()
    worker._reports = epochs()
    with pytest.raises(RkdError, match=r"IndexError: too far \(test_gang.py:"):
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
    gang._processes = [Silent(), Silent()]
    sentence = (
        r"^an epoch of its 2 processes must end within 6 hours \(STEP_TIMEOUT_SECONDS in"
        r" rkdsearch/execution/gang.py\), and did not: a process hangs"
    )
    with pytest.raises(WorkerError, match=sentence) as raised:
        next(gang.run(order_of(Path())))
    # no RayError: Ray would start the trial again, and wait as long again
    assert raised.value.failure == "worker"

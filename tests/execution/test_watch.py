import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from rkdsearch.errors import LostHeadError
from rkdsearch.execution.interruption import Interruption, Signal
from rkdsearch.execution.watch import Watch

Wait = Callable[[float], bool]


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A head that answers until it is closed."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        context = SimpleNamespace(gcs_address=address)
        monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
        yield listener


@pytest.fixture
def interruption(tmp_path: Path) -> Interruption:
    return Interruption(tmp_path)


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch, interruption: Interruption, head: socket.socket) -> Wait:
    """Let so many seconds pass, with a look a second; returns the last look."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watch = Watch(interruption)
    watch.begin()

    def waited(seconds: float, step: float = 1.0) -> bool:
        nonlocal now
        found = False
        for _ in range(int(seconds / step)):
            now += step
            found = watch.look()
        return found

    return waited


def test_a_search_whose_head_answers_is_left_alone(wait: Wait, interruption: Interruption) -> None:
    assert not wait(300)
    assert interruption.reason is None


def test_a_head_that_is_silent_for_20_seconds_is_lost_and_5_later_the_process_is_left(
    wait: Wait, interruption: Interruption, head: socket.socket
) -> None:
    wait(100)
    head.close()
    assert not wait(20)
    assert interruption.reason is None
    assert not wait(5)
    assert isinstance(interruption.reason, LostHeadError)
    assert str(interruption.reason).startswith("Ray's head at 127.0.0.1:")
    assert " has not answered for 21 s; start another" in str(interruption.reason)
    assert wait(2)


def test_sigterm_has_20_seconds_with_ray_and_5_without(
    wait: Wait, interruption: Interruption, head: socket.socket
) -> None:
    interruption.reason = Signal(signal.SIGTERM)
    assert not wait(20)
    head.close()
    assert wait(2)


def test_sigterm_of_all_processes_at_once_has_5_seconds(
    wait: Wait, interruption: Interruption, head: socket.socket
) -> None:
    head.close()
    interruption.reason = Signal(signal.SIGTERM)
    assert not wait(5)
    assert wait(2)


def test_a_driver_that_was_paused_does_not_take_its_head_for_lost(
    wait: Callable[..., bool], interruption: Interruption, head: socket.socket
) -> None:
    head.close()
    assert not wait(15)
    assert not wait(120, step=120)
    assert interruption.reason is None

"""Ray's start and end, without Ray: what is tried again, what is said, what is put back."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import ray_constants, utils
from ray._private.node import Node

from rkdsearch.errors import StudyError, Terminated
from rkdsearch.execution import ray_session
from rkdsearch.execution.ray_session import connected

BUSY = "The current node timed out during startup. This could happen because ..."


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of every `ray.init`, which starts nothing here; pauses take no time."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "init", lambda **more: asked.append(more))
    return asked


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Could not find any running Ray instance.\nMore."),
        ValueError("Invalid address format: x"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_sentence(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    first = str(error).splitlines()[0]
    law = (
        rf"^--address x: there is no Ray cluster to join \({first}\); start one"
        r" \(docs/cluster.md\), or leave --address out to use this machine$"
    )
    with pytest.raises(StudyError, match=law), connected("x"):
        pass


@pytest.mark.parametrize(
    ("ray_version", "python", "way"),
    [
        ("2.59.0", "3.11.7", "install one lock with one Python on all machines"),
        ("2.60.0", "3.12.1", "install one lock with one Python on all machines"),
        ("2.60.0", "3.11.2", "install one Python, or set RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL="),
    ],
)
def test_a_cluster_of_other_versions_is_told_with_all_four(
    ray_version: str, python: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = {"ray_version": "2.60.0", "python_version": "3.11.7"}

    def refuse(**_: object) -> None:
        monkeypatch.setattr(utils, "compute_version_info", lambda: tuple(mine.values()))
        theirs = {"ray_version": ray_version, "python_version": python}
        utils.check_version_info(theirs, "10.77.0.1", python_version_match_level="patch")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(StudyError) as raised, connected("x"):
        pass
    assert str(raised.value).startswith(
        f"--address x: the cluster runs Ray {ray_version} and Python {python}, this machine Ray"
        f" 2.60.0 and Python 3.11.7: {way}"
    )


def failing(times: int, begun: Callable[..., None]) -> Callable[..., None]:
    """`ray.init` that fails so often, as on a busy machine, and then is `begun`."""
    failed = []

    class Started(Node):  # type: ignore[misc]  # Ray is untyped
        def __init__(self) -> None:
            if len(failed) < times:
                failed.append(self)
                raise Exception(BUSY)  # noqa: TRY002 - as Ray does

    def init(**more: object) -> None:
        begun(**more)
        Started()

    return init


def test_a_ray_that_does_not_start_is_started_again_and_what_it_left_is_ended(
    starts: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[Node] = []
    monkeypatch.setattr(Node, "kill_all_processes", lambda node, **_: ended.append(node))
    monkeypatch.setattr(Node, "get_logs_dir_path", lambda _: "/tmp/ray/session/logs")
    monkeypatch.setattr(ray, "init", failing(2, lambda **more: starts.append(more)))
    said: list[str] = []
    with connected(None, said.append):
        assert len(starts) == 3
    assert len(ended) == 2
    assert said[0].startswith("starting Ray on this machine")
    assert said[1:] == [f"Ray did not start ({BUSY}); try {n} of 5" for n in (2, 3)]


def test_a_ray_that_never_starts_is_one_sentence_with_its_log(
    starts: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Node, "kill_all_processes", lambda _, **__: None)
    monkeypatch.setattr(Node, "get_logs_dir_path", lambda _: "/tmp/ray/session/logs")
    monkeypatch.setattr(ray, "init", failing(99, lambda **more: starts.append(more)))
    with pytest.raises(StudyError) as error, connected(None):
        pass
    assert len(starts) == 5
    assert str(error.value) == (
        f"Ray did not start on this machine in 5 tries ({BUSY}); nothing is lost: repeat the"
        " command when the machine is less busy, or look for the cause in /tmp/ray/session/logs"
    )


def test_this_machine_is_this_machine_whatever_ray_address_says(
    starts: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with connected(None):
        assert starts[0]["address"] == "local"


def test_loopback_is_asked_for_while_ray_starts_and_no_longer(
    monkeypatch: pytest.MonkeyPatch, starts: list[dict[str, Any]]
) -> None:
    seen = []

    def init(**_: object) -> None:
        seen.append((ray_constants.ENABLE_RAY_CLUSTER, os.environ[ray_session._LOOPBACK]))

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv(ray_session._LOOPBACK, raising=False)
    with connected(None):
        assert seen == [(False, "0")]
        assert ray_constants.ENABLE_RAY_CLUSTER
        assert ray_session._LOOPBACK not in os.environ


def test_the_environment_is_as_before_and_the_token_is_the_users_alone(
    monkeypatch: pytest.MonkeyPatch, starts: list[dict[str, Any]], tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.delenv("RAY_AIR_NEW_OUTPUT", raising=False)
    before, file = dict(os.environ), tmp_path / ".ray" / "auth_token"

    def init(**_: object) -> None:  # as Ray does where there is no token
        os.environ["RAY_AUTH_MODE"] = "token"
        if not file.exists():
            file.write_text("a token")
            file.chmod(0o644)

    monkeypatch.setattr(ray, "init", init)
    with connected(None):
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert os.environ["RAY_AIR_NEW_OUTPUT"] == "0"
        assert os.environ["PYTHONWARNINGS"] == "error"
    assert dict(os.environ) == before
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    file.chmod(0o640)  # the user's own choice stays
    with connected(None):
        pass
    assert file.stat().st_mode & 0o777 == 0o640


def test_ray_does_not_take_the_signal_of_slurm(
    monkeypatch: pytest.MonkeyPatch, starts: list[dict[str, Any]]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(
        ray, "init", lambda **_: signal.signal(signal.SIGTERM, signal.default_int_handler)
    )
    with connected(None):
        assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
def test_sigterm_while_ray_starts_is_no_failed_start(
    monkeypatch: pytest.MonkeyPatch, starts: list[dict[str, Any]], address: str | None
) -> None:
    def init(**more: Any) -> None:
        starts.append(more)
        sys.exit(int(signal.SIGTERM))  # as Ray's own handler does

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray_session, "reach", lambda *_: None)
    with pytest.raises(Terminated), connected(address):
        pass
    assert len(starts) == 1

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray

from rkdsearch.errors import RkdError, WorkerError
from rkdsearch.execution.gang import Gang, GangProcess, interface_of, network_of, rendezvous
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


def test_processes_meet_at_the_interface_that_bears_the_address_of_their_node() -> None:
    def bears(*addresses: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(address=address) for address in addresses]

    known = {
        "lo": bears("127.0.0.1", "::1"),
        "docker0": bears("172.17.0.1"),
        "eth1": bears("10.77.0.2", "fe80::5%eth1"),
    }
    assert interface_of("10.77.0.2", known) == "eth1"
    assert interface_of("fe80::5", known) == "eth1"
    assert interface_of("127.0.1.1", known) == "lo"
    assert interface_of("203.0.113.9", known) is None  # the address that a router shows


def test_what_the_user_says_of_the_network_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        psutil, "net_if_addrs", lambda: {"eth1": [SimpleNamespace(address="10.77.0.2")]}
    )
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    assert network_of("10.77.0.2") == {
        "GLOO_SOCKET_IFNAME": "eth1",
        "NCCL_SOCKET_IFNAME": "=eth1",
    }
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    assert network_of("10.77.0.2") == {"NCCL_SOCKET_IFNAME": "=eth1"}


def test_ranks_are_told_their_places_as_torchrun_tells_them() -> None:
    told = rendezvous(["10.0.0.1", "10.0.0.2", "10.0.0.1"], 5000)
    assert [(e["RANK"], e["LOCAL_RANK"], e["LOCAL_WORLD_SIZE"]) for e in told] == [
        ("0", "0", "2"),
        ("1", "0", "1"),
        ("2", "1", "2"),
    ]
    assert {(e["MASTER_ADDR"], e["MASTER_PORT"], e["WORLD_SIZE"]) for e in told} == {
        ("10.0.0.1", "5000", "3")
    }


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

"""Set-up of all tests: one thread, no network, and reasons for skipped tests."""

import gc
import ipaddress
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from typing_extensions import override

# The libraries read these when they load, which is after this file.
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_worker_niceness="0",  # Ray's default of 15 starves its workers beside other tests
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
)

# A million objects are imported and stay: the collector looks through them once, and no more.
gc.disable()


def is_public(address: object) -> bool:
    """True where a connection would leave the machine and its private network.

    `address`: a host and port, or the path of a local socket.
    """
    if not isinstance(address, tuple):
        return False
    host = str(address[0])
    if host in {"", "localhost", socket.gethostname()}:
        return False
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return True  # a name that DNS would have to resolve


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Tests use no network: a connection fails here as on a machine without one."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        # Connecting a datagram socket sends nothing: Ray finds the node's own address that way.
        if self.type != socket.SOCK_DGRAM and is_public(address):
            raise OSError(f"tests use no network, got a connection to {address}")
        connect(self, address)  # type: ignore[arg-type]  # whatever the socket family takes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


# files whose tests share one Ray: the fixture `one_ray`
ONE_RAY = ("tests/execution/test_search.py", "tests/execution/test_evaluation.py")
LONGEST = ("tests/execution/test_kills.py", *ONE_RAY, "tests/search/test_survival.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, so that no worker is left with one of them at the end."""
    rank = {file: place for place, file in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.nodeid.split("::")[0], len(rank)))


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests on one worker, as `--dist loadfile`; those of one Ray, too."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        @override
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return ONE_RAY[0] if file in ONE_RAY else file

    return Scheduling(config, log) if config.option.dist == "loadfile" else None


def pytest_collection_finish() -> None:
    """Garbage is collected from here on, among what tests make."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if torch := sys.modules.get("torch"):
        # the same numbers in any order of tests: a failure is reproducible
        torch.manual_seed(0)
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device, and this machine shows none")
    if item.get_closest_marker("browser") is not None and shutil.which("chromium") is None:
        pytest.skip("needs the program `chromium`, and this machine has none")

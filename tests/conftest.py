"""Set-up of all tests: one thread, no network, and reasons for skipped tests."""

import gc
import ipaddress
import os
import shutil
import socket
import sys
from collections.abc import Iterator

import pytest

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run real searches first, so that no worker is left with the longest file at the end."""
    items.sort(key=lambda item: item.path.stem not in ("test_kills", "test_search"))


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

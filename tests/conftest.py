"""What every test stands on: one thread, no network, and honest skips."""

import ipaddress
import os
import shutil
import socket
import sys
from collections.abc import Iterator

import pytest

# Read by the libraries when they load, which is after this file: nothing needs to import torch to
# be held to one thread.
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_worker_niceness="0",  # Ray's own 15 lets its workers starve beside other tests
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
)


def is_public(address: object) -> bool:
    """Whether a connection would leave the machine and its private network: a host and port, or a path of a local socket."""
    if not isinstance(address, tuple):
        return False
    host = str(address[0])
    if host in {"", "localhost", socket.gethostname()}:
        return False
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return True  # a name that must be asked of the network


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Tests need no network: reaching for it fails here as it would on a node without one."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        # A datagram socket is only aimed, nothing is sent: Ray finds the node's own address that
        # way.
        if self.type != socket.SOCK_DGRAM and is_public(address):
            raise OSError(f"tests use no network, and this one asked for {address}")
        connect(self, address)  # type: ignore[arg-type]  # whatever the socket family takes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real searches first: of two workers, none may be left with the longest file at the end."""
    items.sort(key=lambda item: item.path.stem not in ("test_kills", "test_tuner"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if torch := sys.modules.get("torch"):
        # a test meets the same numbers in any order and company: one that fails, fails again
        torch.manual_seed(0)
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device, and this machine shows none")
    if item.get_closest_marker("browser") is not None and shutil.which("chromium") is None:
        pytest.skip("needs the program `chromium`, and this machine has none")

"""The skip of all tests here where a machine has no network of its own to give."""

import sys

import pytest

from tests.cluster.nodes import namespaces


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("needs Linux, whose loopback has many addresses")
    if item.get_closest_marker("namespaces") is not None and not namespaces():
        pytest.skip("needs network namespaces, which root may make on Linux with iproute2")

"""The skip of all tests here where a machine has no network of its own to give, and a cluster."""

import sys
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.nodes import Cluster, namespaces


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("needs Linux, whose loopback has many addresses")
    if item.get_closest_marker("namespaces") is not None and not namespaces():
        pytest.skip("needs network namespaces, which root may make on Linux with iproute2")


Record = Callable[[str, object], None]


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Record:
    """A note of seconds, or of a sentence, under a name, for `--junitxml`."""
    return lambda name, value: request.node.user_properties.append((name, value))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head without CPUs and two workers of one CPU; tests add others, and may kill them."""
    made = Cluster(tmp_path_factory.mktemp("cluster") / "witness.jsonl")
    try:
        made.stand(1, 2)
        yield made
    finally:
        made.down()

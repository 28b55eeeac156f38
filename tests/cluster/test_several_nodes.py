"""Searches on several Ray nodes: what is refused before compute is spent, and what survives.

Kills come after recorded epochs. Seconds to recovery are properties of each test, which
`--junitxml` writes.
"""

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.nodes import Cluster, until
from tests.cluster.searches import ClusterSearch, slow_space
from tests.execution.test_kills import Remains

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
Record = Callable[[str, object], None]


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Record:
    """A note of seconds under a name, for `--junitxml`."""
    return lambda name, value: request.node.user_properties.append((name, value))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head without CPUs and two workers of one CPU; tests add others, and may kill them."""
    made = Cluster(tmp_path_factory.mktemp("cluster") / "witness.jsonl")
    try:
        made.start_head()
        made.start_workers(1, 2)
        yield made
    finally:
        made.down()


def said(process: subprocess.Popen[str], log: Path, code: int, within: float = 240.0) -> str:
    process.wait(within)
    text = log.read_text()
    assert process.returncode == code, text
    assert "Traceback" not in text, text
    return text


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"RAY_AUTH_MODE": None}, "and RAY_AUTH_MODE is not set here: set RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_TOKEN": "0" * 64}, "and the token here is another one: copy the head's"),
        ({"RAY_AUTH_TOKEN": None, "HOME": "/nowhere"}, "and there is no token here: copy the"),
    ],
    ids=["no mode", "another token", "no token"],
)
def test_a_cluster_that_asks_for_another_token_says_so_at_once(
    cluster: Cluster,
    tmp_path: Path,
    environment: dict[str, str | None],
    sentence: str,
    measured: Record,
) -> None:
    log, began = tmp_path / "said", time.monotonic()
    text = said(cluster.command("doctor", log=log, **environment), log, 2)
    measured("seconds", time.monotonic() - began)
    assert sentence in text
    assert text.count("\n") == 1


def test_the_doctor_looks_at_every_node_and_lets_two_of_them_meet(
    cluster: Cluster, tmp_path: Path, measured: Record
) -> None:
    file, log = tmp_path / "space.yaml", tmp_path / "said"
    file.write_text(yaml.safe_dump(slow_space(3, cpu=1, processes=2), sort_keys=False))
    words = [str(file), "--study", str(tmp_path / "study"), "--allow-import", "tests.search"]
    began = time.monotonic()
    text = said(cluster.command("doctor", *words, log=log), log, 0)
    measured("seconds", time.monotonic() - began)
    assert {line.partition(" ")[0] for line in text.splitlines() if "torch" in line} == {
        cluster.address(1),
        cluster.address(2),
    }
    assert text.endswith("nothing found that would stop a search\n")
    assert not (tmp_path / "study").exists()


@pytest.mark.namespaces
def test_a_node_that_does_not_see_the_study_is_named_before_anything_is_trained(
    cluster: Cluster, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    cluster.start_worker(4, hidden=shared)
    try:
        (shared / "search").mkdir()
        search = ClusterSearch(shared / "search", 2, slow_space(3), cluster=cluster)
        text = said(search.tune(), search.log, 2)
    finally:
        cluster.kill(4)
    assert f"node {cluster.address(4)} (node4) does not see {search.study} as the search" in text
    assert search.rows() == {}


def test_a_gang_spans_two_nodes_and_survives_the_loss_of_one(
    cluster: Cluster, tmp_path: Path, measured: Record
) -> None:
    search = ClusterSearch(
        tmp_path, 2, slow_space(12, cpu=1, processes=2, max_failures=5), cluster=cluster
    )
    remains, driver = [], search.tune()
    search.more(driver, 5)
    ranks = {(s["rank"], s["node"].rpartition(":")[2]) for s in search.seen()[-4:]}
    assert ranks in ({("0", "1"), ("1", "2")}, {("0", "2"), ("1", "1")})
    cluster.kill(2)
    lost = time.time()
    remains.append(Remains.of(search))
    cluster.start_worker(3)  # joins late
    measured("gang's node killed: seconds to its next epoch", search.more(driver, 3))
    text = said(driver, search.log, 0)
    assert search.nodes(lost) >= {"1", "3"}
    assert "lost its worker, started again (1 of 5)" in text
    search.complete(remains, 12)
    cluster.start_worker(2)
    cluster.kill(3)


def test_a_search_survives_the_loss_of_nodes_driver_and_head(
    cluster: Cluster, tmp_path: Path, measured: Record
) -> None:
    # Trials must be longer than the start of a worker: a worker that has ended its trial takes the
    # one that waits, and Tune ends the worker that was starting for it.
    epochs = 120
    search, remains = ClusterSearch(tmp_path, 4, slow_space(epochs), cluster=cluster), []
    driver = search.tune()
    search.more(driver, 6)

    killed = time.monotonic()
    cluster.kill(1)
    remains.append(Remains.of(search))
    until(lambda: "lost its worker, started again" in search.log.read_text(), alive=driver)
    measured("worker node killed: seconds to the notice", time.monotonic() - killed)
    cluster.start_worker(3)  # joins late
    joined = time.time()
    measured(
        "late node joined: seconds to its first step",
        until(lambda: "3" in search.nodes(joined), alive=driver),
    )

    search.more(driver)
    driver_pids = cluster.pids("driver")
    for pid in driver_pids:
        cluster.send(pid, signal.SIGSTOP)
    time.sleep(120)
    remains.append(Remains.of(search))
    for pid in driver_pids:
        cluster.send(pid, signal.SIGCONT)
    measured("driver paused for 120 s: seconds to 4 more epochs", search.more(driver))

    cluster.kill("driver")
    driver.wait()
    remains.append(Remains.of(search))
    driver = search.tune()
    measured("driver killed: seconds from its next start to an epoch", search.more(driver, 1))

    drained = cluster.node_id(2)
    cluster.ray(
        "drain-node",
        f"--address={cluster.head}",
        f"--node-id={drained}",
        "--reason=DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message=spot interruption",
        "--deadline-remaining-seconds=20",
    )
    cluster.kill(2, signal.SIGTERM)
    time.sleep(20)
    cluster.kill(2)
    remains.append(Remains.of(search))
    measured("node drained and ended: seconds to 4 more epochs", search.more(driver))

    cluster.kill(0)
    began = time.monotonic()
    driver.wait(300)
    measured("head killed: seconds to the driver's end", time.monotonic() - began)
    text = search.log.read_text()
    assert "Traceback" not in text, text
    assert driver.returncode == 2, text
    assert re.search(r"Ray's head at .* has not answered for \d+ s", text), text
    assert re.search(r"Continue with: rkdsearch tune .* --resume", text), text
    remains.append(Remains.of(search))
    cluster.kill("driver")
    for node in (1, 2, 3):
        cluster.kill(node)
    cluster.start_head()
    cluster.start_workers(1, 2)
    driver = search.tune()
    measured("new head: seconds from the next start to an epoch", search.more(driver, 1))
    said(driver, search.log, 0, within=600)
    search.complete(remains, epochs)


@pytest.mark.namespaces
def test_a_full_disk_ends_the_search_and_room_lets_it_go_on(
    cluster: Cluster, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1100m", "none", str(disk)], check=True)
    try:
        # a node sees the mounts that were there when it started
        for node in (1, 2):
            cluster.kill(node)
        cluster.start_workers(1, 2)
        (disk / "search").mkdir()
        search = ClusterSearch(disk / "search", 3, slow_space(8), cluster=cluster)
        driver = search.tune()
        search.more(driver, 3)
        with (disk / "ballast").open("wb") as ballast:
            try:
                while ballast.write(b"0" * 65536):
                    ballast.flush()
            except OSError:
                pass
        driver.wait(120)
        remains = Remains.of(search)
        (disk / "ballast").unlink()
        text = search.log.read_text()
        assert driver.returncode == 2, text
        assert "No space left on device" in text
        said(search.tune(), search.log, 0)
        search.complete([remains], 8)
    finally:
        cluster.kill("driver")
        subprocess.run(["umount", "-l", str(disk)], check=True)

"""Searches on several Ray nodes that lose nodes, driver, head and disk.

Kills come after recorded epochs. Seconds to recovery and what was said are properties of each test,
which `--junitxml` writes.
"""

import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cluster.conftest import Record
from tests.cluster.nodes import Cluster
from tests.cluster.searches import ClusterSearch, slow_space
from tests.execution.test_kills import Remains

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

EPOCHS = {1: 250, 2: 150}  # by processes; two gangs share the nodes one after the other
PAUSE = 120.0


@dataclass
class Story:
    """One search through all losses, one after the other."""

    search: ClusterSearch
    processes: int
    measured: Record
    driver: subprocess.Popen[str]
    remains: list[Remains] = field(default_factory=list)

    @property
    def cluster(self) -> Cluster:
        return self.search.cluster

    def training_on(self, node: int) -> str:
        """A trial that is trained on this node now; of a gang rank 0 may be on another."""
        search = self.search
        unfinished = {t: e for t, e in search.last_epochs().items() if e < EPOCHS[self.processes]}
        if self.processes == 1:
            unfinished = {t: e for t, e in unfinished.items() if t in search.on_node(node)}
        ended = search.epochs()
        return max(unfinished, key=lambda t: ended[t, unfinished[t]])

    def spread(self) -> None:
        """Check that the ranks of a gang are on two nodes."""
        if self.processes == 2:
            ranks = dict(self.search.ranks())
            assert set(ranks) == {"0", "1"}
            assert ranks["0"] != ranks["1"]

    def recovers(self, what: str, trial_id: str, since: float) -> None:
        """Wait for the trial's next recorded epoch, and note the seconds since its loss."""
        known = self.search.last_epochs()[trial_id]
        self.search.until(self.driver, lambda: self.search.last_epochs()[trial_id] > known)
        self.measured(f"{what}: seconds to the trial's next epoch", time.monotonic() - since)

    def told(self, what: str, pattern: str) -> None:
        """Wait for a sentence of the driver, which must be the only one of its kind."""
        began = time.monotonic()
        self.search.until(self.driver, lambda: self.search.sentences(pattern))
        self.measured(f"{what}: seconds to the sentence", time.monotonic() - began)
        (sentence,) = self.search.sentences(pattern)
        self.measured(f"{what}: said", sentence)

    def worker_killed(self) -> None:
        self.spread()
        trial_id, at = self.training_on(1), time.monotonic()
        self.cluster.kill(1)
        self.remains.append(Remains.of(self.search))
        self.told("node killed", rf"trial {trial_id} lost its worker, started again \(1 of 9\)")
        self.cluster.start_worker(3)  # joins late: until it has, no node has room
        joined = time.time(), time.monotonic()
        self.search.until(self.driver, lambda: "3" in self.search.nodes(joined[0]))
        late = time.monotonic() - joined[1]
        self.measured("node joined late: seconds to its first step", late)
        self.recovers("node killed, another joined late", trial_id, at)
        self.spread()

    def driver_paused(self) -> None:
        pids = self.cluster.pids("driver")
        for pid in pids:
            self.cluster.send(pid, signal.SIGSTOP)
        time.sleep(PAUSE)  # the length is the event
        self.remains.append(Remains.of(self.search))
        lost = len(self.search.sentences("lost"))
        for pid in pids:
            self.cluster.send(pid, signal.SIGCONT)
        self.measured("driver paused: seconds to 4 more epochs", self.search.more(self.driver))
        assert len(self.search.sentences("lost")) == lost

    def driver_killed(self) -> None:
        self.cluster.kill("driver")
        self.driver.wait()
        self.remains.append(Remains.of(self.search))
        self.driver = self.search.tune()
        self.measured(
            "driver killed: seconds from its next start to an epoch",
            self.search.more(self.driver, 1),
        )
        assert self.search.sentences("resuming .* trials are known|resuming")

    def node_drained(self) -> None:
        """A spot interruption: Ray drains the node, SIGTERM comes, then the machine is gone."""
        self.cluster.start_worker(1)  # room for the trial
        self.search.more(self.driver, 1)
        trial_id = self.training_on(2)
        answer = self.cluster.ray(
            "drain-node",
            f"--address={self.cluster.head}",
            f"--node-id={self.cluster.node_id(2)}",
            "--reason=DRAIN_NODE_REASON_PREEMPTION",
            "--reason-message=spot interruption",
            "--deadline-remaining-seconds=10",
        )
        assert "has been drained" in answer or "Drain" in answer, answer
        time.sleep(10)  # until the deadline that was told to Ray, the node may still train
        at = time.monotonic()
        self.cluster.kill(2, signal.SIGTERM)
        while self.cluster.pids(2) and time.monotonic() - at < 20:
            time.sleep(0.2)
        self.measured("node drained: processes 20 s after SIGTERM", len(self.cluster.pids(2)))
        self.cluster.kill(2)
        self.remains.append(Remains.of(self.search))
        self.told("node drained", rf"trial {trial_id} lost its worker, started again")
        self.recovers("node drained", trial_id, at)
        self.spread()

    def head_killed(self) -> None:
        self.cluster.kill(0)
        began = time.monotonic()
        self.driver.wait(300)
        self.measured("head killed: seconds to the driver's end", time.monotonic() - began)
        text = self.search.said
        assert "Traceback" not in text, text
        assert self.driver.returncode == 2, text
        (sentence,) = self.search.sentences(r"Ray's head at .* has not answered for \d+ s")
        self.measured("head killed: said", sentence)
        assert len(self.search.sentences(r"Continue with: rkdsearch tune .* --resume")) == 1
        assert not (self.search.study / ".ray").exists()
        self.remains.append(Remains.of(self.search))
        for node in ("driver", 1, 2, 3):
            self.cluster.kill(node)
        self.cluster.start_head()
        self.cluster.start_workers(1, 2)
        self.driver = self.search.tune()
        self.measured(
            "new head: seconds from the next start to an epoch", self.search.more(self.driver, 1)
        )


@pytest.mark.parametrize("processes", [1, 2], ids=["one process", "gang over two nodes"])
def test_a_search_survives_the_loss_of_nodes_driver_and_head(
    cluster: Cluster, tmp_path: Path, measured: Record, processes: int
) -> None:
    epochs = EPOCHS[processes]
    search = ClusterSearch(
        tmp_path,
        2,
        slow_space(epochs, cpu=1, processes=processes, max_failures=9),
        cluster=cluster,
    )
    story = Story(search, processes, measured, search.tune())
    search.more(story.driver, 6)
    story.worker_killed()
    story.driver_paused()
    story.driver_killed()
    story.node_drained()
    story.head_killed()
    code = story.driver.wait(900)
    assert code == 0, search.said
    assert "Traceback" not in search.said
    search.complete(story.remains, epochs)


@pytest.fixture
def disk(cluster: Cluster, tmp_path: Path) -> Iterator[Path]:
    """A small disk that all nodes see: a node sees the mounts that were there when it started."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1100m", "none", str(mounted)], check=True)
    try:
        for node in (1, 2):
            cluster.kill(node)
        cluster.start_workers(1, 2)
        yield mounted
    finally:
        cluster.kill("driver")
        subprocess.run(["umount", "-l", str(mounted)], check=True)


@pytest.mark.namespaces
@pytest.mark.parametrize("processes", [1, 2], ids=["one process", "gang over two nodes"])
def test_a_full_disk_ends_the_search_and_room_lets_it_go_on(
    disk: Path, cluster: Cluster, measured: Record, processes: int
) -> None:
    (disk / "search").mkdir()
    search = ClusterSearch(
        disk / "search", 2, slow_space(12, cpu=1, processes=processes), cluster=cluster
    )
    driver = search.tune()
    search.more(driver, 3)
    full = time.monotonic()
    with (disk / "ballast").open("wb") as ballast:
        try:
            while ballast.write(b"0" * 65536):
                ballast.flush()
        except OSError:
            pass
    driver.wait(120)
    measured("disk full: seconds to the driver's end", time.monotonic() - full)
    assert driver.returncode == 2, search.said
    (sentence,) = search.sentences("No space left on device")
    measured("disk full: said", sentence)
    remains = Remains.of(search)
    (disk / "ballast").unlink()
    driver = search.tune()
    measured("room again: seconds from the next start to an epoch", search.more(driver, 1))
    assert driver.wait(240) == 0, search.said
    search.complete([remains], 12)

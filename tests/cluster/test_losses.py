"""Searches on several Ray nodes that lose nodes, driver, head and disk, one loss a test.

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

# by processes: trials of one process train beside each other, gangs one after the other
EPOCHS = {1: 150, 2: 60}
PAUSE = 120.0


@dataclass
class Story:
    """A search of two trials on two nodes, which is in its first epochs when something is lost."""

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

    def lost(self) -> None:
        """Note what is on disk after a loss: none of it may be lost or replaced later."""
        self.remains.append(Remains.of(self.search))

    def recovers(self, what: str, trial_id: str, since: float) -> None:
        """Wait for the trial's next recorded epoch, and note the seconds since its loss."""
        known = self.search.last_epochs()[trial_id]
        self.search.until(self.driver, lambda: self.search.last_epochs()[trial_id] > known)
        self.measured(f"{what}: seconds to the trial's next epoch", time.monotonic() - since)
        self.spread()

    def told(self, what: str, pattern: str) -> None:
        """Wait for a sentence of the driver, which must be the only one of its kind."""
        began = time.monotonic()
        self.search.until(self.driver, lambda: self.search.sentences(pattern))
        self.measured(f"{what}: seconds to the sentence", time.monotonic() - began)
        (sentence,) = self.search.sentences(pattern)
        self.measured(f"{what}: said", sentence)

    def goes_on(self, what: str) -> None:
        """Start the same command again, and note the seconds to its next recorded epoch."""
        self.driver = self.search.tune()
        seconds = self.search.more(self.driver, 1)
        self.measured(f"{what}: seconds from the next start to an epoch", seconds)
        self.spread()

    def ends(self) -> None:
        """Let the trials hurry to their end, and check that all is there, once."""
        self.search.hurry()
        code = self.driver.wait(400)
        assert code == 0, self.search.said
        assert "Traceback" not in self.search.said
        self.search.complete(self.remains, EPOCHS[self.processes])


@pytest.fixture(params=[1, 2], ids=["one process", "gang over two nodes"])
def processes(request: pytest.FixtureRequest) -> int:
    """Processes of a trial."""
    return int(request.param)


@pytest.fixture
def story(cluster: Cluster, tmp_path: Path, measured: Record, processes: int) -> Iterator[Story]:
    cluster.stand(1, 2)
    space = slow_space(EPOCHS[processes], cpu=1, processes=processes, max_failures=9)
    search = ClusterSearch(tmp_path, 2, space, cluster=cluster)
    story = Story(search, processes, measured, search.tune())
    try:
        measured("seconds from the start to 6 epochs", search.more(story.driver, 6))
        story.spread()
        yield story
    finally:
        cluster.kill("driver")


def test_a_killed_nodes_trial_goes_on_on_a_node_that_joins_late(story: Story) -> None:
    trial_id, at = story.training_on(1), time.monotonic()
    story.cluster.kill(1)
    story.lost()
    story.told("node killed", rf"trial {trial_id} lost its worker, started again \(1 of 9\)")
    story.cluster.start_worker(3)  # until it has joined, no node has room
    joined = time.time(), time.monotonic()
    story.search.until(story.driver, lambda: "3" in story.search.nodes(joined[0]))
    late = time.monotonic() - joined[1]
    story.measured("node joined late: seconds to its first step", late)
    story.recovers("node killed, another joined late", trial_id, at)
    story.ends()


def test_a_search_whose_driver_is_paused_for_two_minutes_loses_nothing(story: Story) -> None:
    pids = story.cluster.pids("driver")
    for pid in pids:
        story.cluster.send(pid, signal.SIGSTOP)
    time.sleep(PAUSE)  # the length is the event
    story.lost()
    for pid in pids:
        story.cluster.send(pid, signal.SIGCONT)
    story.measured("driver paused: seconds to 4 more epochs", story.search.more(story.driver))
    assert story.search.sentences("lost") == []
    story.ends()


def test_a_killed_driver_is_continued_by_its_command(story: Story) -> None:
    story.cluster.kill("driver")
    story.driver.wait()
    story.lost()
    story.goes_on("driver killed")
    story.ends()


def test_a_drained_nodes_trial_goes_on_elsewhere(story: Story) -> None:
    """A spot interruption: Ray drains the node, SIGTERM comes, then the machine is gone."""
    story.cluster.start_worker(3)  # room for the trial
    trial_id = story.training_on(2)
    story.cluster.ray(
        "drain-node",
        f"--address={story.cluster.head}",
        f"--node-id={story.cluster.node_id(2)}",
        "--reason=DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message=spot interruption",
        "--deadline-remaining-seconds=10",
    )
    time.sleep(10)  # until the deadline that was told to Ray, the node may still train
    at = time.monotonic()
    story.cluster.kill(2, signal.SIGTERM)
    while story.cluster.pids(2) and time.monotonic() - at < 20:
        time.sleep(0.2)
    story.measured("node drained: processes 20 s after SIGTERM", len(story.cluster.pids(2)))
    story.cluster.kill(2)
    story.lost()
    story.told("node drained", rf"trial {trial_id} lost its worker, started again")
    story.recovers("node drained", trial_id, at)
    story.ends()


def test_a_lost_head_ends_the_search_which_goes_on_under_another_head(story: Story) -> None:
    search = story.search
    story.cluster.kill(0)
    began = time.monotonic()
    story.driver.wait(300)
    story.measured("head killed: seconds to the driver's end", time.monotonic() - began)
    assert "Traceback" not in search.said, search.said
    assert story.driver.returncode == 2, search.said
    (sentence,) = search.sentences(r"Ray's head at .* has not answered for \d+ s")
    story.measured("head killed: said", sentence)
    assert len(search.sentences(r"Continue with: rkdsearch tune .* --resume")) == 1
    assert not (search.study / ".ray").exists()
    story.lost()
    story.cluster.stand(1, 2)
    story.goes_on("new head")
    story.ends()


@pytest.fixture
def disk(cluster: Cluster, tmp_path: Path) -> Iterator[Path]:
    """A small disk that all nodes see: a node sees the mounts that were there when it started."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1100m", "none", str(mounted)], check=True)
    try:
        cluster.stand()
        cluster.stand(1, 2)
        yield mounted
    finally:
        cluster.kill("driver")
        subprocess.run(["umount", "-l", str(mounted)], check=True)


@pytest.mark.namespaces
def test_a_full_disk_ends_the_search_and_room_lets_it_go_on(
    disk: Path, cluster: Cluster, measured: Record, processes: int
) -> None:
    (disk / "search").mkdir()
    search = ClusterSearch(
        disk / "search", 2, slow_space(40, cpu=1, processes=processes), cluster=cluster
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
    search.hurry()
    assert driver.wait(240) == 0, search.said
    search.complete([remains], 40)

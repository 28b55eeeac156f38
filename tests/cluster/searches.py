"""A search on a cluster of several nodes, and what it leaves on disk."""

import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from rkdsearch.results.cells import records
from rkdsearch.results.store import Store
from tests.cluster.nodes import WAIT, Cluster
from tests.execution.real import WITNESS, Search, space
from tests.execution.test_kills import Remains


def slow_space(epochs: int, **resources: Any) -> dict[str, Any]:
    """A space of trials that all train so many epochs, of half a second and more."""
    return {
        **space(ladder=(epochs,), resources=resources, scheduler={"name": "none"}),
        "first": [],
        "search": {
            "method.name": {"choice": [WITNESS]},
            "optimizer.lr": {"float": [0.01, 0.3], "log": True},
            "method.mood": {"choice": ["slow"]},
        },
    }


@dataclass(kw_only=True)
class ClusterSearch(Search):
    """A search on a cluster. The same command begins and continues it."""

    cluster: Cluster

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        self.hurry(False)  # an earlier search on the cluster may have ended so

    @property
    @override
    def witness(self) -> Path:
        return self.cluster.witness

    def tune(self, **environment: str | None) -> subprocess.Popen[str]:
        words = [str(self.file), "--trials", str(self.trials), "--study", str(self.study)]
        words += ["--resume", "--allow-import", "tests.search"]
        return self.cluster.command("tune", *words, log=self.log, **environment)

    def hurry(self, hurry: bool = True) -> None:
        """Let slow trials hurry from now on, or take their time."""
        note = self.witness.with_suffix(".hurry")
        if hurry:
            note.touch()
        else:
            note.unlink(missing_ok=True)

    @property
    def said(self) -> str:
        """What the driver has printed so far."""
        return self.log.read_text()

    @override
    def epochs(self) -> dict[tuple[str, int], Any]:
        return super().epochs() if (self.study / "epochs").exists() else {}

    def until(self, driver: subprocess.Popen[str], condition: Callable[[], object]) -> float:
        """Wait for the condition, while the driver runs; returns the seconds that it took."""
        began = time.monotonic()
        while not condition():
            assert driver.poll() is None, f"it ended early: {self.said}"
            assert time.monotonic() - began < WAIT, f"waited in vain: {self.said}"
            time.sleep(0.2)
        return time.monotonic() - began

    def more(self, driver: subprocess.Popen[str], epochs: int = 4) -> float:
        """Wait for so many more recorded epochs; returns the seconds that it took."""
        before = len(self.epochs())
        return self.until(driver, lambda: len(self.epochs()) >= before + epochs)

    def last_epochs(self) -> dict[str, int]:
        """The last recorded epoch of each trial."""
        return dict(sorted(self.epochs()))

    def on_node(self, node: int) -> set[str]:
        """Trials whose last recorded epoch was trained there (by rank 0)."""
        last, address = self.last_epochs(), self.cluster.address(node)
        return {
            row["trial_id"]
            for row in records(Store(self.study).epochs())
            if row["epoch"] == last.get(row["trial_id"]) and row["node"].endswith(f" {address}")
        }

    def nodes(self, since: float = 0.0) -> set[str]:
        """Nodes on which steps were trained since then."""
        return {s["node"].rpartition(":")[2] for s in self.seen() if s["time"] >= since}

    def ranks(self) -> set[tuple[str, str]]:
        """Rank and node of the last two steps of each rank."""
        last = {s["rank"]: s["node"].rpartition(":")[2] for s in self.seen()[-8:]}
        return set(last.items())

    def complete(self, remains: Sequence[Remains], epochs: int) -> None:
        """Check that every trial finished, with each of its epochs recorded once and trained once.

        `remains` are what was on disk after each event: nothing of it was lost or replaced.
        """
        after = Remains.of(self)
        for before in remains:
            before.stand_in(after)
        rows = records(Store(self.study).trials())
        assert [r["trial_id"] for r in rows] == [f"t{n:05d}" for n in range(self.trials)]
        assert {r["status"] for r in rows} == {"finished"}, [r["error"] for r in rows]
        assert sorted(after.epochs) == [
            (f"t{n:05d}", e) for n in range(self.trials) for e in range(1, epochs + 1)
        ]
        assert len(Store(self.study).epochs()) == self.trials * epochs

    def sentences(self, pattern: str) -> list[str]:
        """Lines of the driver in which the pattern is found."""
        return [line for line in self.said.splitlines() if re.search(pattern, line)]

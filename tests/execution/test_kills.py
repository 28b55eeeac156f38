"""A real search whose worker and driver are killed, and which is stopped by Ctrl-C."""

import itertools
import os
import random
import re
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rkdsearch.results.store import Store
from tests.execution.real import Search, space, until

pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Remains:
    """Rows that a session left on disk."""

    ended: dict[str, str]
    epochs: dict[tuple[str, int], Any]
    proposed: dict[str, str]

    @staticmethod
    def of(search: Search) -> "Remains":
        assert not Store(search.study).damaged
        return Remains(search.ended(), search.epochs(), search.proposed())

    def stand_in(self, later: "Remains") -> None:
        """Check that finished rows are unchanged.

        No epoch was repeated, and no proposal was replaced.
        """
        assert self.ended.items() <= later.ended.items()
        assert self.epochs.items() <= later.epochs.items()
        assert self.proposed.items() <= later.proposed.items()


@dataclass(frozen=True)
class Story:
    """One search: a killed worker, a killed driver, Ctrl-C, and an undisturbed end."""

    search: Search
    remains: list[Remains]
    outputs: list[str]
    peace: int  # witnessed steps before the last session


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    search = Search(
        tmp_path_factory.mktemp("killed"),
        trials=10,
        space=space({"slow": "slow"}, resources={"cpu": 1.5}),
    )
    remains, outputs = [], []

    driver = search.start()
    until(lambda: any(s["mood"] == "slow" and s["epoch"] == 1 for s in search.seen()), driver)
    worker = next(s["pid"] for s in search.seen() if s["mood"] == "slow")
    assert "ray::" in Path(f"/proc/{worker}/cmdline").read_text(), "the witness sits in a worker"
    os.kill(worker, signal.SIGKILL)
    until(lambda: "lost its worker" in search.log.read_text() and len(search.ended()) >= 1, driver)
    driver.kill()
    driver.wait()
    remains.append(Remains.of(search))
    outputs.append(search.log.read_text())

    driver, steps = search.start(), search.steps
    until(lambda: search.steps >= steps + 3, driver)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: Ray's own processes are sent it too
    outputs.append(search.output(driver, 130))
    remains.append(Remains.of(search))

    steps = search.steps
    outputs.append(search.finish())
    return Story(search, remains, outputs, steps)


def test_a_real_search_survives_three_kills_and_ends_whole(story: Story) -> None:
    story.search.whole()
    assert {r["status"] for r in story.search.labelled().values()} == {"finished"}


def test_no_finished_row_is_lost_and_no_written_epoch_repeated(story: Story) -> None:
    for before, after in itertools.pairwise([*story.remains, Remains.of(story.search)]):
        before.stand_in(after)


def test_a_killed_worker_is_one_sentence_and_no_traceback(story: Story) -> None:
    assert story.outputs[0].count("trial t00001 lost its worker, started again (1 of 3)\n") == 1
    assert not any("Traceback" in output or "raylet" in output for output in story.outputs), (
        story.outputs
    )


def test_ctrl_c_exits_130_and_says_how_to_go_on(story: Story) -> None:
    assert re.search(
        r"stopped; every finished epoch is kept. Continue with: rkdsearch tune .*"
        r" --trials 10 --study"
        r" .* --resume --allow-import tests.search\n$",
        story.outputs[1],
    )


def test_workers_are_reused_from_trial_to_trial(
    story: Story, record_property: Callable[[str, object], None]
) -> None:
    seen, by_pid = story.search.seen(), dict[int, list[dict[str, Any]]]()
    # as many as run at once here
    assert len({step["pid"] for step in seen[story.peace :]}) <= (os.cpu_count() or 1)
    for step in seen:
        by_pid.setdefault(step["pid"], []).append(step)
    gaps = [
        b["time"] - a["time"]
        for steps in by_pid.values()
        for a, b in itertools.pairwise(steps)
        if b["epoch"] == 0 != a["epoch"]
    ]
    assert gaps, "no process had a second trial"
    record_property(
        "seconds from one trial's last step to the next one's first", statistics.median(gaps)
    )


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_twenty_kills_of_the_driver_at_random_moments(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    # one trial at a time
    searched = space(
        ladder=(1, 3), resources={"cpu": os.cpu_count()}, sampler={"name": "tpe", "startup": 4}
    )
    for name in ("killed", "left alone"):
        (tmp_path / name).mkdir()
    search, chance = Search(tmp_path / "killed", trials=60, space=searched), random.Random(0)
    before, seconds_to_first_step = Remains({}, {}, {}), 0.0
    for kill in range(20):
        driver, steps, started = search.start(), search.steps, time.monotonic()
        # anywhere in a start: while it imports, reads the folder, waits for Ray, or asks
        if kill % 4 == 3:
            time.sleep(chance.random() * seconds_to_first_step)
        else:
            until(lambda steps=steps: search.steps > steps, driver)  # type: ignore[misc]  # a default binds it
            seconds_to_first_step = time.monotonic() - started
            time.sleep(chance.random() * 1.5)
        assert driver.poll() is None, search.log.read_text()
        driver.kill()
        driver.wait()
        after = Remains.of(search)
        before.stand_in(after)
        before = after
    assert len(before.proposed) < 60, "it was over before the last kill"
    record_property("seconds from the last start to its first step", seconds_to_first_step)
    search.finish(within=900)
    search.whole()
    before.stand_in(Remains.of(search))

    left_alone = Search(tmp_path / "left alone", trials=60, space=searched)
    left_alone.finish(within=900)
    assert search.proposed() == left_alone.proposed()

"""A real search on real processes, killed for real: its driver, its worker, and by Ctrl-C."""

import itertools
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from rkdsearch.errors import StudyError
from rkdsearch.results.store import Store
from rkdsearch.results.summary import records
from rkdsearch.search.space import Resources
from rkdsearch.search.tuner import _fits, placement

ROOT = Path(__file__).parents[2]
TRIALS = 12
WAIT = 240.0  # seconds for anything: a stuck search fails, a loaded machine does not
pytestmark = pytest.mark.timeout(900)
SPACE = {
    "fixed": {
        "data": {"name": "digits"},
        "student": {"name": "small_cnn", "width": 4},
        "attack.steps": 0,
        "training": {"batch_size": 256, "device": "cpu"},
        "validation": {"images": 100, "attack.steps": 2},
    },
    "search": {
        "method.name": {"choice": ["tests.search.witness"]},
        "optimizer.lr": {"float": [0.01, 0.3], "log": True},
        "method.mood": {"choice": ["calm"]},
    },
    "first": [
        {"label": "natural", "method.name": "natural"},
        {"label": "nan", "method.name": "tests.search.witness", "method.mood": "nan"},
        {"label": "broken", "method.name": "tests.search.witness", "method.mood": "broken"},
    ],
    "ladder": [{"epochs": 1}, {"epochs": 3}],
}


@dataclass
class Search:
    """One study, started and ended as often as a test likes."""

    folder: Path
    space: dict[str, Any] = field(default_factory=lambda: SPACE)
    trials: int = TRIALS

    @property
    def study(self) -> Path:
        return self.folder / "study"

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "RKD_WITNESS": str(self.folder / "witness.jsonl"), "COLUMNS": "200"}
        # A file, not a pipe: orphaned workers would hold a pipe open after their driver was killed.
        with self.log.open("w", encoding="utf-8") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "rkdsearch", *arguments, "--allow-import", "tests.search"],
                cwd=self.folder, env=env, text=True, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def log(self) -> Path:
        return self.folder / "output.txt"

    def output(self, process: subprocess.Popen[str], code: int = 0) -> str:
        """What the command said, after its end."""
        process.wait(timeout=WAIT)
        text = self.log.read_text()
        assert process.returncode == code, text
        return text

    def start(self) -> subprocess.Popen[str]:
        file = self.folder / "space.yaml"
        file.write_text(yaml.safe_dump(self.space, sort_keys=False), encoding="utf-8")
        return self.command("tune", str(file), "--trials", str(self.trials), "--study", str(self.study), "--resume")

    def finish(self) -> str:
        return self.output(self.start())

    def seen(self) -> list[dict[str, Any]]:
        """Every step that a witness saw."""
        file = self.folder / "witness.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def rows(self) -> dict[str, dict[str, Any]]:
        return {r["trial_id"]: r for r in records(Store(self.study).trials())}

    def epochs(self) -> dict[tuple[str, int], Any]:
        """When each epoch ended: one that is repeated ends at another time."""
        return {(r["trial_id"], r["epoch"]): r["finished"] for r in records(Store(self.study).epochs())}

    def ended(self) -> dict[str, str]:
        return {t: r["status"] for t, r in self.rows().items() if r["status"] in ("finished", "failed")}


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert process.poll() is None, "it ended early"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.03)


def whole(search: Search) -> None:
    """All trials ended; their epochs are there once each, from the first to the last."""
    rows = search.rows()
    assert sorted(rows) == [f"t{n:05d}" for n in range(search.trials)]
    assert {r["status"] for r in rows.values()} <= {"finished", "stopped", "failed"}
    epochs = [(r["trial_id"], r["epoch"]) for r in records(Store(search.study).epochs())]
    assert sorted(epochs) == [(t, e) for t, r in sorted(rows.items()) for e in range(1, r["fidelity.epochs"] + 1)]


@dataclass(frozen=True)
class Story:
    """What one search lived through."""

    search: Search
    before: list[tuple[dict[str, str], dict[tuple[str, int], Any]]]
    interrupted: tuple[int, str]
    last_words: str
    last_session: int  # witnessed steps before the last start


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Driver killed; worker killed, then Ctrl-C; then left in peace."""
    search = Search(tmp_path_factory.mktemp("real"))
    before = []
    driver = search.start()
    until(lambda: len(search.ended()) >= 1 and len(search.seen()) > 12, driver)
    driver.kill()
    driver.wait()
    before.append((search.ended(), search.epochs()))

    steps = len(search.seen())
    driver = search.start()
    until(lambda: len(search.seen()) >= steps + 3, driver)
    worker = search.seen()[-1]["pid"]
    assert "ray::" in Path(f"/proc/{worker}/cmdline").read_text(), "the witness sits in a worker"
    os.kill(worker, signal.SIGKILL)
    until(lambda: any(s["pid"] != worker for s in search.seen()[steps + 3 :]), driver)
    time.sleep(0.3)
    driver.send_signal(signal.SIGINT)
    output = search.output(driver, 130)
    before.append((search.ended(), search.epochs()))
    steps = len(search.seen())
    return Story(search, before, (driver.returncode, output), search.finish(), steps)


def test_a_real_search_survives_three_kills_and_ends_whole(story: Story) -> None:
    whole(story.search)
    assert story.search.rows()["t00000"]["status"] == "finished"


def test_no_finished_row_is_lost_and_no_written_epoch_repeated(story: Story) -> None:
    ended, epochs = story.search.ended(), story.search.epochs()
    for ended_before, epochs_before in story.before:
        assert ended_before.items() <= ended.items()
        assert epochs_before.items() <= epochs.items()


def test_ctrl_c_exits_130_and_says_how_to_go_on(story: Story) -> None:
    code, output = story.interrupted
    assert code == 130, output
    assert re.search(r"stopped; every finished epoch is kept. Go on with: rkdsearch tune .* --trials 12 --study .* --resume", output)
    assert "Traceback" not in output.partition("stopped;")[2]  # above it, Ray may tell of the killed worker in its own words


def test_nan_and_a_bug_in_one_method_are_failed_trials_and_no_more(story: Story) -> None:
    rows = {r["label"]: r for r in story.search.rows().values() if r["label"]}
    assert rows["nan"]["status"] == rows["broken"]["status"] == "failed"
    assert "the loss is nan" in rows["nan"]["error"]
    assert rows["broken"]["error"].startswith("ZeroDivisionError: a bug in one method (witness.py:")
    assert "t00001 failed" in story.last_words


def test_workers_are_reused_from_trial_to_trial(story: Story, record_property: Callable[[str, object], None]) -> None:
    seen = story.search.seen()[story.last_session :]
    by_pid: dict[int, list[dict[str, Any]]] = {}
    for step in seen:
        by_pid.setdefault(step["pid"], []).append(step)
    assert len(by_pid) <= 4  # as many as run at once here, and one or two whose predecessor failed
    gaps = [b["time"] - a["time"] for steps in by_pid.values() for a, b in itertools.pairwise(steps) if b["epoch"] == 0 != a["epoch"]]
    if gaps:
        record_property("seconds from one trial's last step to the next one's first", statistics.median(gaps))
        assert statistics.median(gaps) < 2.0


def test_a_finished_study_is_left_as_it_is(story: Story) -> None:
    before = {p: p.stat().st_mtime_ns for p in (story.search.study / "trials").iterdir()}
    assert "nothing to do: all 12 trials" in story.search.finish()
    assert {p: p.stat().st_mtime_ns for p in (story.search.study / "trials").iterdir()} == before


def test_the_exam_uses_test_images_alone_the_same_for_all_and_once(story: Story) -> None:
    arguments = ("evaluate", str(story.search.study), "--images", "60", "--attacks", "clean", "pgd20", "--allow-import", "tests")
    story.search.output(story.search.command(*arguments))
    rows = records(Store(story.search.study).evaluations())
    finished = {t for t, s in story.search.ended().items() if s == "finished"}
    assert {(r["trial_id"], r["attack"]) for r in rows} == {(t, a) for t in finished for a in ("clean", "pgd20")}
    assert {r["split"] for r in rows} == {"test"}
    assert {r["images"] for r in rows} == {60}
    assert len({r["subset_sha256"] for r in rows}) == 1
    assert all(len(r["per_image"]) == 60 and r["per_image"].count("1") == r["correct"] for r in rows)
    output = story.search.output(story.search.command(*arguments))
    assert f"{len(rows)} sittings stand in" in output
    assert records(Store(story.search.study).evaluations()) == rows


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_twenty_kills_of_the_driver_at_random_moments(tmp_path: Path) -> None:
    search, rng = Search(tmp_path, trials=60), random.Random(0)
    for _ in range(20):
        driver, steps = search.start(), len(search.seen())
        until(lambda steps=steps: len(search.seen()) > steps or len(search.ended()) == 60, driver)  # type: ignore[misc]  # a default binds it
        time.sleep(rng.random() * 1.5)
        driver.kill()
        driver.wait()
        ended, epochs = search.ended(), search.epochs()
        assert not Store(search.study).damaged
    search.finish()
    whole(search)
    assert ended.items() <= search.ended().items()
    assert epochs.items() <= search.epochs().items()


def test_two_processes_train_one_student(tmp_path: Path) -> None:
    space = {**SPACE, "first": SPACE["first"][:1], "ladder": [{"epochs": 2}], "resources": {"cpu": 0.9, "processes": 2}}  # type: ignore[index]
    search = Search(tmp_path, space, trials=2)
    search.finish()
    whole(search)
    rows = search.rows().values()
    assert {r["status"] for r in rows} == {"finished"}
    assert {r["run.processes"] for r in rows} == {2}
    assert len({s["pid"] for s in search.seen()}) == 2


def test_a_trial_that_can_never_be_placed_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    _fits(Resources(cpu=1))
    with pytest.raises(StudyError, match=r"resources: a trial of 2 processes asks 2.01 CPU, which must be <= 2"):
        _fits(Resources(processes=2))
    with pytest.raises(StudyError, match=r"asks 1 GPU, which must be <= 0"):
        _fits(Resources(gpu=1))


def test_a_gang_is_one_atomic_group_of_its_actor_and_its_processes() -> None:
    assert placement(Resources(cpu=2, gpu=0.25)).bundles == [{"CPU": 2.0, "GPU": 0.25}]
    assert placement(Resources(cpu=2, gpu=1, processes=2)).bundles == [{"CPU": 0.01}, {"CPU": 2.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 1.0}]

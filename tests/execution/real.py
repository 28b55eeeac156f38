"""A real search in processes of its own, and the files that it leaves."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rkdsearch.results.cells import records
from rkdsearch.results.store import Store
from tests.search.witness import VARIABLE

ROOT = Path(__file__).parents[2]
WAIT = 240.0  # seconds for anything: a stuck search fails, a loaded machine does not
WITNESS = "tests.search.witness"
# planted in the environment of Ray's processes: no file may hold it
SECRET = "planted-secret-5f1c"
SECRET_NAMES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "HF_TOKEN",
    "WANDB_API_KEY",
)
FIXED = {
    "data": {"name": "digits", "train_images": 600},
    "student": {"name": "small_cnn", "width": 4},
    "attack.steps": 0,
    "training": {"batch_size": 200, "device": "cpu"},
    "validation": {"images": 50, "attack.steps": 1},
}


def space(
    first: dict[str, str] | None = None, ladder: tuple[int, ...] = (1, 3), **more: Any
) -> dict[str, Any]:
    """A space of witnesses. Its baselines: a natural run, and a run of each mood in `first`.

    `resources.cpu: 1.5` in place of 2 gives a trial one thread: two of them wait for each other
    whenever another process needs a core, which makes a trial of milliseconds take seconds.
    """
    return {
        "fixed": FIXED,
        "search": {
            "method.name": {"choice": [WITNESS]},
            "optimizer.lr": {"float": [0.01, 0.3], "log": True},
            "method.mood": {"choice": ["calm"]},
        },
        "first": [
            {"label": "natural", "method.name": "natural"},
            *(
                {
                    "label": label,
                    "method.name": WITNESS,
                    "method.mood": mood,
                    "optimizer.lr": 0.05 + number / 100,  # two of one mood are two configurations
                }
                for number, (label, mood) in enumerate((first or {}).items())
            ),
        ],
        "ladder": [{"epochs": epochs} for epochs in ladder],
        **more,
    }


@dataclass
class Search:
    """One study, which a test can start several times."""

    folder: Path
    trials: int
    space: dict[str, Any] = field(default_factory=space)

    def __post_init__(self) -> None:
        self.file.write_text(yaml.safe_dump(self.space, sort_keys=False), encoding="utf-8")

    @property
    def file(self) -> Path:
        return self.folder / "space.yaml"

    @property
    def study(self) -> Path:
        return self.folder / "study"

    @property
    def log(self) -> Path:
        return self.folder / "output.txt"

    @property
    def witness(self) -> Path:
        return self.folder / "witness.jsonl"

    def start(self) -> subprocess.Popen[str]:
        """`rkdsearch tune` in a process of its own, with its output in `log`."""
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            VARIABLE: str(self.witness),
            "COLUMNS": "200",
        }
        tune = [
            "tune",
            str(self.file),
            "--trials",
            str(self.trials),
            "--study",
            str(self.study),
            "--resume",
            "--allow-import",
            "tests.search",
        ]
        # A file, not a pipe: orphaned workers would hold a pipe open after their driver was killed.
        with self.log.open("w", encoding="utf-8") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "rkdsearch", *tune],
                cwd=self.folder,
                env=env,
                text=True,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self, process: subprocess.Popen[str], code: int = 0, within: float = WAIT) -> str:
        """Output of the command, after its end."""
        process.wait(timeout=within)
        text = self.log.read_text()
        assert process.returncode == code, text
        return text

    def finish(self, within: float = WAIT) -> str:
        return self.output(self.start(), within=within)

    def seen(self) -> list[dict[str, Any]]:
        """Every step that a witness recorded."""
        return (
            [json.loads(line) for line in self.witness.read_text().splitlines()]
            if self.witness.exists()
            else []
        )

    @property
    def steps(self) -> int:
        """Number of recorded steps; cheap enough for polling."""
        return self.witness.read_bytes().count(b"\n") if self.witness.exists() else 0

    def rows(self) -> dict[str, dict[str, Any]]:
        return {r["trial_id"]: r for r in records(Store(self.study).trials())}

    def labelled(self) -> dict[str, dict[str, Any]]:
        return {r["label"]: r for r in self.rows().values() if r["label"]}

    def epochs(self) -> dict[tuple[str, int], Any]:
        """End of each epoch: a repeated epoch has another."""
        return {
            (r["trial_id"], r["epoch"]): r["finished"] for r in records(Store(self.study).epochs())
        }

    def ended(self) -> dict[str, str]:
        return {
            t: r["status"] for t, r in self.rows().items() if r["status"] in ("finished", "failed")
        }

    def proposed(self) -> dict[str, str]:
        return {t: r["hyperparameters"] for t, r in self.rows().items()}

    def whole(self) -> None:
        """Check that all trials ended, and that each of their epochs has one row."""
        rows = self.rows()
        assert sorted(rows) == [f"t{n:05d}" for n in range(self.trials)]
        assert {r["status"] for r in rows.values()} <= {"finished", "stopped", "failed"}
        epochs = [(r["trial_id"], r["epoch"]) for r in records(Store(self.study).epochs())]
        assert sorted(epochs) == [
            (t, e) for t, r in sorted(rows.items()) for e in range(1, r["fidelity.epochs"] + 1)
        ]


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for the condition; fail where the process ends before."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert process.poll() is None, "it ended early"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.03)

"""A stranger's method that says where and when it is asked, takes its time, and has moods."""

import errno
import json
import os
import signal
import time
from pathlib import Path
from typing import ClassVar, Literal

import torch
from typing_extensions import override

from rkdsearch.methods import AttackDefaults, Loss, Method, Step

# names the file in which it is written down; faults that come and go are files beside it
VARIABLE = "RKD_WITNESS"
GREED = 4 * 10**9  # bytes of memory that a greedy one takes
NODE = "RKD_TEST_NODE"  # in tests of a cluster, the node on which a process runs


class Witness(Method):
    """Natural training under observation."""

    attack_defaults: ClassVar[AttackDefaults] = AttackDefaults(start="none")
    mood: Literal[
        *("calm", "slow", "nan", "broken", "alone", "hungry", "unlucky", "lost", "full", "told"),
        "greedy",
    ] = "calm"

    @override
    def teachers(self) -> tuple[str, ...]:
        return ()

    @override
    def loss(self, step: Step) -> Loss:
        said = Path(os.environ[VARIABLE])
        seen = {
            "pid": os.getpid(),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "node": os.environ.get(NODE, ""),
            "rank": os.environ.get("RANK"),
            "folder": os.getcwd(),  # noqa: PTH109 - as a text
            "mood": self.mood,
            "epoch": step.epoch,
            "time": time.time(),
        }
        with said.open("a", encoding="utf-8") as log:
            log.write(json.dumps(seen) + "\n")
        slow = self.mood == "slow" and not said.with_suffix(".hurry").exists()
        time.sleep(0.2 if slow else 0.05)
        match self.mood:
            case "broken":
                raise ZeroDivisionError("a bug in one method")
            case "alone" if os.environ.get("RANK") == "1":
                raise ZeroDivisionError("a bug in one process")
            case "hungry" if step.epoch == 1 and said.with_suffix(".hungry").exists():
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            case "greedy" if step.epoch == 1 and not said.with_suffix(".greedy").exists():
                said.with_suffix(".greedy").touch()
                held = torch.ones(GREED // 4)  # until Ray kills this process
                time.sleep(60)
                del held
            case "lost" if step.epoch == 1 and said.with_suffix(".lost").exists():
                raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
            case "unlucky" if step.epoch == 1 and not said.with_suffix(".unlucky").exists():
                said.with_suffix(".unlucky").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            case "told":
                patience = time.monotonic() + 60
                while not said.with_suffix(".told").exists():
                    assert time.monotonic() < patience, "nobody said go on within 60 s"
                    time.sleep(0.05)
            case "full":
                fill_disk(said.with_suffix(".full"))
        weight = float("nan") if self.mood == "nan" else 1.0
        return Loss.weighted(label=(weight, step.label_loss(step.student(step.x))))


def fill_disk(while_there: Path) -> None:
    """Make `os.replace` fail in this process as long as the file `while_there` exists."""
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if while_there.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    os.replace = refuse

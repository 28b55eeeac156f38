"""A stranger's method that says where and when it is asked, takes its time, and has moods."""

import json
import os
import time
from pathlib import Path
from typing import ClassVar, Literal

from typing_extensions import override

from rkdsearch.methods import Loss, Method, Step
from rkdsearch.methods.base import AttackDefaults


class Witness(Method):
    """Natural training under observation."""

    attack_defaults: ClassVar[AttackDefaults] = AttackDefaults(start="none")
    mood: Literal["calm", "nan", "broken"] = "calm"

    @override
    def teachers(self) -> tuple[str, ...]:
        return ()

    @override
    def loss(self, step: Step) -> Loss:
        with Path(os.environ["RKD_WITNESS"]).open("a", encoding="utf-8") as log:
            log.write(json.dumps({"pid": os.getpid(), "epoch": step.epoch, "time": time.time()}) + "\n")
        time.sleep(0.05)
        if self.mood == "broken":
            raise ZeroDivisionError("a bug in one method")
        weight = float("nan") if self.mood == "nan" else 1.0
        return Loss.weighted(label=(weight, step.label_loss(step.student(step.x))))

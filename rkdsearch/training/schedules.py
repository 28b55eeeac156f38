"""The learning rate, as a fraction of its initial value."""

import math

from rkdsearch.config import ScheduleConfig


def lr_factor(schedule: ScheduleConfig, *, epoch: int, within: float, epochs: int) -> float:
    """The factor at `within` (fraction of 1) of `epoch` (from 0) of `epochs`.

    A milestone at fraction f of the run begins with epoch round(f * epochs), so that 215/300 is epoch 215, and before 1 with the last epoch at
    the latest: every milestone is taken, however short the run (but for a single epoch, which begins at the full rate).
    """
    progress = (epoch + within) / epochs
    if schedule.name == "onecycle":
        climb = schedule.warm_up or 0.3
        return progress / climb if progress < climb else (1 - progress) / (1 - climb)
    if progress < schedule.warm_up:
        return progress / schedule.warm_up
    match schedule.name:
        case "constant":
            return 1.0
        case "cosine":
            left = (progress - schedule.warm_up) / (1 - schedule.warm_up)
            return 0.5 * (1 + math.cos(math.pi * left))
        case "multistep" | "multistep_once":
            last = max(1, epochs - 1)
            passed = sum(epoch >= min(round(f * epochs), last if f < 1 else epochs) for f in schedule.milestones)
            return schedule.factor ** (min(passed, 1) if schedule.name == "multistep_once" else passed)

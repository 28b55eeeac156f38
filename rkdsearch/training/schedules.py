"""The learning rate, as a fraction of its initial value."""

import math

from rkdsearch.config import ScheduleConfig


def lr_factor(
    schedule: ScheduleConfig, *, epoch: int, within: float, epochs: int, step: float = 0.0
) -> float:
    """The factor for the step that begins at `within` of `epoch` (from 0) of `epochs`, and is `step` long: fractions of an epoch.

    A climb counts the step that is being taken, so that no step has rate 0. A milestone at fraction
    f of the run begins with epoch round(f * epochs), so that 215/300 is epoch 215; before 1 with
    the last epoch at the latest, and with the second at the earliest: every milestone is taken,
    however short the run (but for a single epoch, which has the full rate).
    """
    progress = (epoch + within) / epochs
    climbed = progress + step / epochs
    if schedule.name == "onecycle":
        climb = schedule.warm_up or 0.3
        return min(1.0, climbed / climb) if progress < climb else (1 - progress) / (1 - climb)
    if progress < schedule.warm_up:
        return min(1.0, climbed / schedule.warm_up)
    match schedule.name:
        case "constant":
            return 1.0
        case "cosine":
            left = (progress - schedule.warm_up) / (1 - schedule.warm_up)
            return 0.5 * (1 + math.cos(math.pi * left))
        case "multistep" | "multistep_once":
            last = max(1, epochs - 1)
            passed = sum(
                epoch >= min(max(1, round(f * epochs)), last if f < 1 else epochs)
                for f in schedule.milestones
            )
            return schedule.factor ** (
                min(passed, 1) if schedule.name == "multistep_once" else passed
            )

"""Learning-rate schedules, as factors on the initial rate."""

import math

from rkdsearch.config import ScheduleConfig


def lr_factor(
    schedule: ScheduleConfig, *, epoch: int, within: float, epochs: int, step: float = 0.0
) -> float:
    """Factor of one optimizer step, which begins at the fraction `within` of `epoch` (from 0).

    `step` is the step's length, as a fraction of an epoch.

    - Warm-up counts the current step, so that no step has rate 0.
    - A milestone at fraction f of the run takes effect with epoch round(f * epochs): 215 for
      215/300.
    - A milestone before 1 takes effect between the second and the last epoch, so that short runs
      take every milestone.
    - Without a warm-up a run of one epoch has the full rate.
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

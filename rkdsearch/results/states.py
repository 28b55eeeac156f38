"""The states of a trial, as rows hold them. Each value is the text in the column of that name."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

# Attacks of the test evaluation, as the column `attack` names them.
EvaluationAttack = Literal[
    "clean", "pgd20", "pgd100", "margin", "targeted", "square", "autoattack", "transfer"
]

# Their names for people, in the order of columns.
ATTACKS: Mapping[str, str] = {
    "clean": "clean",
    "pgd20": "PGD-20",
    "pgd100": "PGD-100",
    "margin": "margin attack",
    "targeted": "targeted margin",
    "square": "Square",
    "transfer": "transfer",
    "autoattack": "AutoAttack",
}

# The others are weaker by their making, or measure something else.
GRADIENT_ATTACKS = frozenset({"pgd20", "pgd100", "margin", "targeted"})


# End of the label of a baseline that the space has lost.
NOT_IN_SPACE = " (not in the space any more)"


class Status(StrEnum):
    """State of a trial. Only `FINISHED` trials can be on the front."""

    RUNNING = "running"  # is being trained, or was interrupted and will be resumed
    PAUSED = "paused"  # waits at a rung; it may still be promoted
    STOPPED = "stopped"  # ended before full length: by the scheduler, or no longer in the space
    FINISHED = "finished"  # trained to full length
    FAILED = "failed"  # ended by an error; the column `failure` says of which kind


class Decision(StrEnum):
    """Decision of the scheduler about one trial at one rung."""

    CONTINUED = "continued"  # ranked high enough on arrival, so it trains on at once
    PROMOTED = "promoted"  # was paused, and trains on because it is now among the best
    PAUSED = "paused"  # waits; later arrivals decide whether it is promoted
    STOPPED = "stopped"  # ends here: the `stopping` kind of scheduler pauses nobody


class Origin(StrEnum):
    """Origin of a trial's configuration."""

    BASELINE = "baseline"  # listed by the space under `first`
    SEARCH = "search"  # proposed by the sampler
    REPLICATE = "replicate"  # an earlier configuration with another training seed


class ProposedBy(StrEnum):
    """Source of a trial's hyperparameters."""

    BASELINE = "baseline"  # listed by the space under `first`
    QUEUE = "queue"  # `rkdsearch enqueue`
    BELIEF = "belief"  # near a baseline that is believed: `sampler.beliefs`
    MINIMUM = "minimum"  # owed to a choice: `sampler.minimum_per`
    MODEL = "model"  # the sampler's model of what was measured
    CHANCE = "chance"  # at random, or from a sequence or a grid

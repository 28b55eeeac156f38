"""Everything known of a network that is exported, and the forms in which the files print it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkdsearch.attacks import BALLS
from rkdsearch.config import TrainConfig, ValidationAttack
from rkdsearch.models import ModelConfig
from rkdsearch.plugins import is_dotted
from rkdsearch.results.cells import radius_text
from rkdsearch.results.seed_means import SeedMean
from rkdsearch.task import ImageTask

WEIGHTS = "student.safetensors"  # the file of the weights, beside the card
Row = Mapping[str, Any]


@dataclass(frozen=True)
class ExportedNetwork:
    """A trial's best network, with the rows of its study."""

    home: Path  # the study's folder
    study: str
    trial: Row
    config: TrainConfig
    task: ImageTask
    classes: tuple[str, ...]  # their names, in the order of the logits
    preprocessing: str  # how files became pixels; empty where they are read as they are
    sha256: str
    evaluations: Sequence[Row]
    # The next two describe the exported segment: distinct values, in the order of its epochs.
    training_attack_steps: Sequence[int]
    processes: Sequence[int]
    on_rungs: bool  # whether the scheduler compared it on the way
    teachers: Mapping[str, Row]
    # Of its configuration: seeds, means and deviations over replicates (`replicated`), and the test
    # results over those that were evaluated; None and empty where it has none.
    replicates: Row | None = None
    over_seeds: Sequence[SeedMean] = ()
    # Openings of the study's test images by `evaluate`: their number, and the sentence about them.
    openings: int = 0
    opened: str | None = None

    @property
    def tests(self) -> list[Row]:
        """Rows of the test evaluations of this network."""
        mine = (row for row in self.evaluations if row["trial_id"] == self.trial["trial_id"])
        return [row for row in mine if row["split"] == "test" and row["checkpoint"] == "best"]


def own_packages(*names: str) -> list[str]:
    """The user's own packages that contain these networks and methods, each once."""
    return list(dict.fromkeys(name.partition(".")[0] for name in names if is_dotted(name)))


def join_then(numbers: Sequence[int]) -> str:
    """`4, then 10`."""
    return ", then ".join(str(n) for n in numbers)


def ball_text(attack: ValidationAttack) -> str:
    """The attack's ball in words."""
    title = BALLS[attack.norm].title
    return f"the {title} ball of radius {radius_text(attack.eps)} (pixels of [0, 1])"


def network_text(network: ModelConfig) -> str:
    """A network's name and size, such as `wide_resnet (depth 34, width 10)`."""
    size = [
        f"{name} {value}"
        for name in ("depth", "width")
        if (value := getattr(network, name)) is not None
    ]
    return network.name + (f" ({', '.join(size)})" if size else "")

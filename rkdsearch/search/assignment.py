"""One training run that a study asks for.

Workers import this module, so it imports neither Optuna nor the rest of the search.
"""

from dataclasses import dataclass
from pathlib import Path

from rkdsearch.config import TrainConfig
from rkdsearch.config.fidelity import Fidelity


@dataclass(frozen=True)
class Assignment:
    """One segment of a trial: its config, the folder of its checkpoints, and its fidelities."""

    trial_id: str
    config: TrainConfig
    folder: Path
    fidelities: tuple[Fidelity, ...]

"""A work order of a small run, and a report of its first epoch."""

from pathlib import Path

from rkdsearch.config import TrainConfig
from rkdsearch.config.fidelity import Fidelity
from rkdsearch.execution.messages import EpochReport, WorkOrder
from rkdsearch.search.assignment import Assignment
from rkdsearch.space.settings import Resources
from rkdsearch.training.epoch import Best, EpochResult
from tests.execution.test_trial import CONFIG

REPORT = EpochReport(
    EpochResult(
        epoch=1,
        epochs=3,
        loss=1.0,
        terms={},
        lr=0.1,
        seconds=1.0,
        images_per_second=1.0,
        training_attack_steps=0,
        clean_accuracy=0.9,
        robust_accuracy=0.5,
        worst_class_accuracy=0.4,
        best=Best(1, 0.9, 0.5, 0.4),
        images=50,
    ),
    {},
)


def order_of(
    folder: Path,
    config: TrainConfig = CONFIG,
    *,
    trial_id: str = "t00000",
    lengths: tuple[int, ...] = (1, 3),
) -> WorkOrder:
    """An order of one process whose fidelities end after these epochs."""
    fidelities = tuple(Fidelity(epochs=epochs) for epochs in lengths)
    return WorkOrder(Assignment(trial_id, config, folder, fidelities), (), Resources())

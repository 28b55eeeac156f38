"""The trial function: one assignment in, its epochs out.

A trial of one process calls it in Tune's actor (`trainable.py`); each process of a gang calls it
too (`gang.py`). This module does not import Tune, which would make the gang's processes slow to
start.
"""

from collections.abc import Iterator

import ray
import torch

from rkdsearch.execution.messages import EpochReport, WorkOrder
from rkdsearch.plugins import allow_import
from rkdsearch.search.assignment import Assignment
from rkdsearch.training.allocator import keep_memory
from rkdsearch.training.rows import facts_of
from rkdsearch.training.trainer import Trainer


def run_trial(assignment: Assignment) -> Iterator[EpochReport]:
    """The epochs that are left to train.

    A resumed run first reports its last finished epoch again: that report may have been lost
    together with the driver that waited for it.
    """
    trainer = Trainer(assignment.config, assignment.folder, fidelities=assignment.fidelities)
    facts = facts_of(trainer) | {"run.ray": ray.__version__}
    for epoch in trainer.resume()[-1:]:
        yield EpochReport(epoch, facts)
    for epoch in trainer.epochs():
        yield EpochReport(epoch, facts)


def run_order(order: WorkOrder) -> Iterator[EpochReport]:
    """The epochs of an order, after setting up this process for it."""
    allow_import(*order.packages)
    keep_memory()
    torch.set_num_threads(max(1, int(order.resources.cpu)))
    yield from run_trial(order.assignment)

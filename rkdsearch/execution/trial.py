"""The trial function: one assignment in, its epochs out.

A trial of one process calls it in Tune's actor (`trainable.py`); each process of a gang calls it
too (`gang.py`). This module does not import Tune, which would make the gang's processes slow to
start.
"""

import platform
from collections.abc import Iterator
from pathlib import Path

import ray
import torch

from rkdsearch.errors import WorkerError
from rkdsearch.execution.messages import EpochReport, WorkOrder
from rkdsearch.file_lock import writer_of
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
    trainer = Trainer(
        assignment.config, assignment.folder, fidelities=assignment.fidelities, node=_node()
    )
    facts = facts_of(trainer) | {"run.ray": ray.__version__}
    for epoch in trainer.resume()[-1:]:
        yield EpochReport(epoch, facts)
    for epoch in trainer.epochs():
        yield EpochReport(epoch, facts)


def see_study(study: Path, writer: str) -> None:
    """Raise WorkerError where the study's folder on this node is not the one that is searched.

    A node that joined late, or lost a mount, would train into its own disk.
    """
    if writer and writer_of(study) != writer:
        raise WorkerError(
            f"node {ray.util.get_node_ip_address()} does not see {study} as the search does: mount"  # type: ignore[no-untyped-call]  # Ray is untyped
            " the shared file system at the same path on every node"
        )


def _node() -> str:
    """This machine's name, with its address where it is one of a cluster."""
    address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]  # Ray is untyped
    name = platform.node()
    return name if address == "127.0.0.1" else f"{name} {address}"


def run_order(order: WorkOrder) -> Iterator[EpochReport]:
    """The epochs of an order, after setting up this process for it."""
    see_study(order.study, order.writer)
    allow_import(*order.packages)
    keep_memory()
    torch.set_num_threads(max(1, int(order.resources.cpu)))
    yield from run_trial(order.assignment)

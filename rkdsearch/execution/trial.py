"""The trial function: one configuration in, its epochs out; in one process, or in a gang of them.

`run_trial` is the trial function, `reports` its epochs as what Ray carries. A gang is worker actors
in the trial's own placement group, with torchrun's environment and an `Accelerator()` in each; its
workers do without Tune and do not wait for its import: what Tune calls stands in
`search/trainable.py`.
"""

import json
import os
import re
import socket
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from rkdsearch import config as run
from rkdsearch.config import TrainConfig
from rkdsearch.config.fidelity import Fidelity
from rkdsearch.errors import FileError, OutOfMemoryError, RkdError, WorkerError, is_out_of_memory
from rkdsearch.plugins import allow_import
from rkdsearch.training.all_gather import leave_group
from rkdsearch.training.allocator import keep_memory
from rkdsearch.training.epoch import EpochResult
from rkdsearch.training.rows import facts_of
from rkdsearch.training.trainer import Trainer

# of who talks to a process that is no more
_PEER = re.compile("gloo|nccl|closed by peer", re.IGNORECASE)
STEP_TIMEOUT_SECONDS = 6 * 3600.0  # a gang whose collective hangs must not hold its GPUs for ever


def run_trial(
    config: TrainConfig, folder: Path, fidelities: Sequence[Fidelity]
) -> Iterator[tuple[EpochResult, dict[str, object]]]:
    """The trial function: the epochs that are left to do, each with the facts of the run (`run.*`).

    A run that is taken up again first reports its last finished epoch once more: the report may
    have been lost with its reader.
    """
    trainer = Trainer(config, folder, fidelities=fidelities)
    facts = facts_of(trainer) | {"run.ray": ray.__version__}
    yield from ((epoch, facts) for epoch in trainer.resume()[-1:])
    for epoch in trainer.epochs():
        yield epoch, facts


def reports(assignment: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A trial's epochs as what Ray carries: an epoch number, and JSON text."""
    allow_import(*assignment["allow_imports"])
    keep_memory()
    torch.set_num_threads(max(1, int(assignment["cpu"])))
    config = run.build(assignment["config"], assignment["trial_id"])
    fidelities = [Fidelity(**fidelity) for fidelity in assignment["fidelities"]]
    for epoch, facts in run_trial(config, Path(assignment["folder"]), fidelities):
        yield {
            "epoch": epoch.epoch,
            "result": json.dumps(asdict(epoch)),
            "facts": json.dumps(facts),
        }


def told(error: Exception) -> RkdError:
    """The error as a sentence, with its place where it was not one of ours: the machine's, or a bug."""
    if isinstance(error, RkdError):
        return error
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"({Path(last.filename).name}:{last.lineno})"
    if is_out_of_memory(error):
        return OutOfMemoryError(f"{type(error).__name__}: {error} {place}")
    if isinstance(error, torch.AcceleratorError):
        # the rest is CUDA's advice to whoever wrote the kernel
        said = str(error).partition("\n")[0]
        return WorkerError(
            f"{said} {place}: its process can use the device no more, later trials get a new one;"
            " CUDA_LAUNCH_BLOCKING=1 finds the true place"
        )
    if isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and _PEER.search(str(error))
    ):
        return WorkerError(
            f"{type(error).__name__}: {error} {place}; another process of its gang is lost, or"
            " cannot be reached"
        )
    kind = FileError if isinstance(error, OSError) else RkdError
    return kind(f"{type(error).__name__}: {error} {place}")


class Worker:
    """One process of a gang."""

    def address(self) -> str:
        """This node's IP address."""
        return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]  # Ray's own

    def free_port(self) -> int:
        """A port that nobody listens on, for the gang's meeting."""
        with socket.socket() as listener:
            listener.bind(("", 0))
            return int(listener.getsockname()[1])

    def begin(self, environment: dict[str, str], assignment: dict[str, Any]) -> None:
        """Join the gang of a new trial; the last trial's group is left first."""
        leave_group()
        os.environ.update(environment)
        self._reports = reports(assignment)

    def step(self) -> dict[str, Any] | None:
        """One epoch, or None after the last. Raises RkdError alone: another package's error may not survive the way to another process."""
        try:
            return next(self._reports, None)
        except Exception as error:  # noqa: BLE001 - one method's bug must not end a search of many
            raise told(error) from None


class Gang:
    """N worker actors in this trial's placement group, warm between trials. Bundle 0 is the trial actor's own."""

    def __init__(self, processes: int, cpu: float, gpu: float) -> None:
        group = ray.util.get_current_placement_group()
        remote = ray.remote(Worker)
        self._workers: list[Any] = [  # handles: Ray adds `.remote` to what it wraps
            remote.options(
                num_cpus=cpu,
                num_gpus=gpu,
                scheduling_strategy=(
                    PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=i + 1)
                    if group
                    else "DEFAULT"
                ),
            ).remote()
            for i in range(processes)
        ]

    def reports(self, assignment: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The epochs of one trial, as rank 0 reports them. Raises WorkerError where one takes longer than STEP_TIMEOUT_SECONDS."""
        addresses = ray.get([w.address.remote() for w in self._workers])
        port = ray.get(self._workers[0].free_port.remote())
        beginnings = []
        for rank, (worker, address) in enumerate(zip(self._workers, addresses, strict=True)):
            environment = {
                "RANK": str(rank),
                "WORLD_SIZE": str(len(addresses)),
                "LOCAL_RANK": str(addresses[:rank].count(address)),
                "LOCAL_WORLD_SIZE": str(addresses.count(address)),
                "MASTER_ADDR": addresses[0],
                "MASTER_PORT": str(port),
            }
            beginnings.append(worker.begin.remote(environment, assignment))
        ray.get(beginnings)
        while True:
            try:
                found = ray.get(
                    [w.step.remote() for w in self._workers], timeout=STEP_TIMEOUT_SECONDS
                )
            except ray.exceptions.GetTimeoutError:
                raise WorkerError(
                    f"an epoch of its {len(self._workers)} processes must end within"
                    f" {STEP_TIMEOUT_SECONDS / 3600:g} hours (STEP_TIMEOUT_SECONDS of"
                    " rkdsearch/execution/trial.py), and did not: one of them hangs, or the epoch is longer;"
                    " look at their nodes, or train on fewer images"
                ) from None
            if found[0] is None:
                return
            yield found[0]

    def close(self) -> None:
        """End the workers; their GPUs are free before the next trial asks."""
        for worker in self._workers:
            ray.kill(worker)

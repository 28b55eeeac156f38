"""The trial function: one configuration in, its epochs out; and what drives it under Ray Tune.

`run_trial` is the trial function. `RayTrial` is the thin class that Ray Tune calls: it steps the generator, one epoch a call, and stays
warm between trials (torch imported, images and teachers loaded). With more than one process a trial is a gang: worker actors in the trial's own
placement group, with torchrun's environment and an `Accelerator()` in each.
"""

import json
import os
import socket
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from typing_extensions import override

from rkdsearch import config as run
from rkdsearch.config import TrainConfig
from rkdsearch.errors import DiskError, RkdError
from rkdsearch.plugins import allow_import
from rkdsearch.training.across import leave_group
from rkdsearch.training.allocator import keep_memory
from rkdsearch.training.rows import facts_of
from rkdsearch.training.stages import Stage
from rkdsearch.training.trainer import EpochResult, Trainer

STEP_TIMEOUT_SECONDS = 6 * 3600.0  # a gang whose collective hangs must not hold its GPUs for ever


def run_trial(config: TrainConfig, folder: Path, stages: Sequence[Stage]) -> Iterator[tuple[EpochResult, dict[str, object]]]:
    """The trial function: the epochs that are left to do, each with the facts of the run (`run.*`).

    A run that is taken up again first reports its last finished epoch once more: the report may have been lost with its reader.
    """
    trainer = Trainer(config, folder, stages=stages)
    facts = facts_of(trainer) | {"run.ray": ray.__version__}
    yield from ((epoch, facts) for epoch in trainer.resume()[-1:])
    for epoch in trainer.epochs():
        yield epoch, facts


class RayTrial(tune.Trainable):
    """Ray Tune's side of a trial. Its config is JSON text under `assignment`: Ray has nothing to merge, flatten or print."""

    @override
    def setup(self, config: dict[str, Any]) -> None:
        self._gang: Gang | None = None
        self._take(config)

    @override
    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._take(new_config)
        return True

    def _take(self, config: dict[str, Any]) -> None:
        self._assignment = json.loads(config["assignment"])
        self._epochs: Iterator[dict[str, Any]] | None = None

    @override
    def step(self) -> dict[str, Any]:
        try:
            if self._epochs is None:
                self._epochs = self._begin()
            return next(self._epochs)
        except ray.exceptions.RayTaskError as error:
            self.cleanup()  # the gang's other processes may wait for the one that raised
            return self._failure(error.cause)
        except ray.exceptions.RayError:
            raise  # a worker or a node is gone: Ray starts the trial again, and it goes on from its checkpoint
        except StopIteration:
            return self._failure(RkdError("the trial was asked for an epoch beyond its last"))
        except Exception as error:  # noqa: BLE001 - one method's bug must not end a search of many; it is recorded, not retried
            return self._failure(_told(error))

    def _failure(self, error: RkdError) -> dict[str, Any]:
        """What ends the trial; or, where the disk is full, the whole search: nothing is wrong with the trial then."""
        self._epochs = None
        return {"disk" if isinstance(error, DiskError) else "failure": " ".join(str(error).split())}

    def _begin(self) -> Iterator[dict[str, Any]]:
        if self._assignment["processes"] == 1:
            return reports(self._assignment)
        if self._gang is None:
            self._gang = Gang(self._assignment["processes"], self._assignment["cpu"], self._assignment["gpu"])
        return self._gang.reports(self._assignment)

    @override
    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial keeps its own checkpoints, by its own name."""

    @override
    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing: a trial finds its own checkpoints, by its own name."""

    @override
    def cleanup(self) -> None:
        if self._gang is not None:
            self._gang.close()
            self._gang = None


def _told(error: Exception) -> RkdError:
    """The error as a sentence: where it is a bug, with its place."""
    if isinstance(error, RkdError):
        return error
    last = traceback.extract_tb(error.__traceback__)[-1]
    return RkdError(f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})")


def reports(assignment: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A trial's epochs as what Ray carries: an epoch number, and JSON text."""
    allow_import(*assignment["allow_imports"])
    keep_memory()
    torch.set_num_threads(max(1, int(assignment["cpu"])))
    config = run.build(assignment["config"], assignment["trial_id"])
    stages = [Stage(**stage) for stage in assignment["stages"]]
    for epoch, facts in run_trial(config, Path(assignment["folder"]), stages):
        yield {"epoch": epoch.epoch, "result": json.dumps(asdict(epoch)), "facts": json.dumps(facts)}


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
        except Exception as error:  # noqa: BLE001 - as in RayTrial.step
            raise _told(error) from None


class Gang:
    """N worker actors in this trial's placement group, warm between trials. Bundle 0 is the trial actor's own."""

    def __init__(self, processes: int, cpu: float, gpu: float) -> None:
        group = ray.util.get_current_placement_group()
        remote = ray.remote(Worker)
        self._workers: list[Any] = [  # handles: Ray adds `.remote` to what it wraps
            remote.options(
                num_cpus=cpu,
                num_gpus=gpu,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=i + 1) if group else "DEFAULT",
            ).remote()
            for i in range(processes)
        ]

    def reports(self, assignment: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The epochs of one trial, as rank 0 reports them."""
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
            found = ray.get([w.step.remote() for w in self._workers], timeout=STEP_TIMEOUT_SECONDS)
            if found[0] is None:
                return
            yield found[0]

    def close(self) -> None:
        """End the workers; their GPUs are free before the next trial asks."""
        for worker in self._workers:
            ray.kill(worker)

"""A gang: the processes that train one student together.

They are Ray actors in the placement group of the trial. Each has the environment variables that
torchrun sets, and its own `Accelerator()`.
"""

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from rkdsearch.errors import WorkerError
from rkdsearch.execution.failures import as_rkd_error
from rkdsearch.execution.messages import EpochReport, WorkOrder
from rkdsearch.execution.trial import run_order
from rkdsearch.space.settings import Resources
from rkdsearch.training.accelerator import SHARED_DEVICE
from rkdsearch.training.all_gather import reset_group

# A gang whose collective operation hangs must not hold its GPUs for ever.
STEP_TIMEOUT_SECONDS = 6 * 3600.0
# Ray declares a node dead after about a minute without an answer.
LOST_SECONDS = 120.0


def interface_of(address: str, interfaces: Mapping[str, Sequence[Any]]) -> str | None:
    """Name of the network interface that bears this address; None where none of them does.

    `interfaces` as `psutil.net_if_addrs` returns them.
    """
    bears = [
        name
        for name, known in interfaces.items()
        # IPv6 addresses carry their interface behind a %
        if any(one.address.partition("%")[0] == address for one in known)
    ]
    if not bears and address.startswith("127."):  # all of 127/8 is the loopback's
        bears = [
            name
            for name, known in interfaces.items()
            if any(a.address == "127.0.0.1" for a in known)
        ]
    return bears[0] if bears else None


def network_of(address: str) -> dict[str, str]:
    """Environment variables that bind Gloo and NCCL to the interface of this node's Ray address.

    Left alone, Gloo asks for the address of the host's name, which Debian and Ubuntu map to
    127.0.1.1: processes of two nodes would never meet. A variable that the user set stays.
    """
    interface = interface_of(address, psutil.net_if_addrs())
    if interface is None:
        return {}
    # NCCL takes a name for a prefix unless = stands before it
    wanted = {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": f"={interface}"}
    return {name: value for name, value in wanted.items() if name not in os.environ}


def rendezvous(addresses: Sequence[str], port: int) -> list[dict[str, str]]:
    """Environment variables of each rank, as torchrun sets them, by the nodes of the ranks."""
    return [
        {
            "RANK": str(rank),
            "WORLD_SIZE": str(len(addresses)),
            "LOCAL_RANK": str(addresses[:rank].count(address)),
            "LOCAL_WORLD_SIZE": str(addresses.count(address)),
            "MASTER_ADDR": addresses[0],
            "MASTER_PORT": str(port),
        }
        for rank, address in enumerate(addresses)
    ]


def meeting(processes: Sequence[Any]) -> list[dict[str, str]]:
    """`rendezvous` of these actors, which are asked for their addresses and rank 0 for a port."""
    addresses = ray.get([process.address.remote() for process in processes])
    return rendezvous(addresses, ray.get(processes[0].free_port.remote()))


@contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - one method's bug must not end a search of many
        raise as_rkd_error(error) from None


class GangProcess:
    """One process of a gang."""

    def address(self) -> str:
        """This node's IP address."""
        address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]  # Ray is untyped
        return str(address)

    def free_port(self) -> int:
        """A free port, at which the gang's processes can meet."""
        with socket.socket() as listener:
            listener.bind(("", 0))
            return int(listener.getsockname()[1])

    def begin(self, environment: dict[str, str], order: WorkOrder) -> None:
        """Leave the process group of the last trial, and prepare that of this one.

        Raises RkdError only, as `step`.
        """
        with _own_errors():
            reset_group()
            os.environ.update(environment | network_of(self.address()))
            self._reports = run_order(order)

    def step(self) -> EpochReport | None:
        """Train one epoch; None after the last.

        Raises RkdError only: the error of another package may not survive pickling.
        """
        with _own_errors():
            return next(self._reports, None)


class Gang:
    """The processes of one trial. They stay for the next trial of the same actor."""

    def __init__(self, resources: Resources) -> None:
        group = ray.util.get_current_placement_group()
        remote = ray.remote(GangProcess)
        self._processes: list[Any] = [  # handles: Ray adds `.remote` to each method
            remote.options(
                num_cpus=resources.cpu,
                num_gpus=resources.gpu,
                scheduling_strategy=(
                    PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
                    if group
                    else "DEFAULT"
                ),
            ).remote()
            for rank in range(resources.processes)
        ]

    def run(self, order: WorkOrder) -> Iterator[EpochReport]:
        """The epochs of one order, as rank 0 reports them.

        Raises WorkerError where an epoch takes longer than STEP_TIMEOUT_SECONDS.
        """
        # Ray shows each process its own share: a part of one GPU may be another's too.
        shared = {SHARED_DEVICE: str(int(0 < order.resources.gpu < 1))}
        begun = [
            process.begin.remote({**environment, **shared}, order)
            for process, environment in zip(self._processes, meeting(self._processes), strict=True)
        ]
        ray.get(begun)
        while True:
            try:
                reports = ray.get(
                    [p.step.remote() for p in self._processes], timeout=STEP_TIMEOUT_SECONDS
                )
            except ray.exceptions.GetTimeoutError:
                raise WorkerError(
                    f"an epoch of its {len(self._processes)} processes must end within"
                    f" {STEP_TIMEOUT_SECONDS / 3600:g} hours (STEP_TIMEOUT_SECONDS in"
                    " rkdsearch/execution/gang.py), and did not: a process hangs, or the epoch is"
                    " longer; look at their nodes, or train on fewer images"
                ) from None
            if reports[0] is None:
                return
            yield reports[0]

    def loss(self) -> Exception | None:
        """Ray's error where a process, or its node, is gone. It waits until Ray knows."""
        try:
            ray.get([p.address.remote() for p in self._processes], timeout=LOST_SECONDS)
        except ray.exceptions.GetTimeoutError:
            return ray.exceptions.WorkerCrashedError()
        except ray.exceptions.RayError as error:  # of a lost actor, or of one killed for memory
            return error
        return None

    def close(self) -> None:
        """End the processes, so that their GPUs are free for the next trial."""
        for process in self._processes:
            ray.kill(process)

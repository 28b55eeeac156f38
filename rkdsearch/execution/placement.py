"""Resources of a trial as a placement group, and how many of them a cluster holds."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray
import torch
from ray import tune

from rkdsearch.errors import StudyError
from rkdsearch.execution.ray_session import connected
from rkdsearch.space.settings import Resources

Node = Mapping[str, float]  # resources of a node by Ray's names: CPU, GPU

_UNIT = 10_000  # Ray counts resources in steps of 1/10,000


def process_bundle(resources: Resources) -> dict[str, float]:
    """Resources of one process of a trial, by Ray's names."""
    asked = {"CPU": float(resources.cpu), "GPU": float(resources.gpu)}
    return {kind: amount for kind, amount in asked.items() if amount}


def placement(resources: Resources) -> tune.PlacementGroupFactory:
    """The placement group of one trial: a bundle per process. Ray grants all of them or none.

    A single process trains in the trial's actor. The actor of a gang only waits for its processes:
    it asks nothing, and lives in the bundle of rank 0, which an empty first bundle means to Tune.
    """
    process = process_bundle(resources)
    if resources.processes == 1:
        return tune.PlacementGroupFactory([process])
    return tune.PlacementGroupFactory([{}, *[process] * resources.processes], strategy="PACK")


def processes_on(node: Node, process: Mapping[str, float]) -> int:
    """The number of these processes that a node holds at once."""
    return min(_times(node.get(kind, 0.0), asked, kind) for kind, asked in process.items())


def _times(has: float, asked: float, kind: str) -> int:
    units, wanted = round(has * _UNIT), max(1, round(asked * _UNIT))
    if kind == "GPU" and wanted < _UNIT:  # a share lies on one GPU: two GPUs hold two times 0.6
        return units // _UNIT * (_UNIT // wanted) + units % _UNIT // wanted
    return units // wanted


def trials_on(nodes: Sequence[Node], resources: Resources) -> int:
    """The number of trials that these nodes hold at once.

    All bundles are alike, so that filling node after node is the best packing.
    """
    process = process_bundle(resources)
    return sum(processes_on(node, process) for node in nodes) // resources.processes


def trials_here(resources: Resources) -> int:
    """The number of trials that this machine holds at once."""
    return trials_on([_this_machine()], resources)


def _this_machine() -> Node:
    return {"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()}


def asked_by(resources: Resources) -> str:
    """The resources of a trial as a phrase: `2 processes of 4 CPU and 1 GPU`."""
    process = " and ".join(f"{asked:g} {kind}" for kind, asked in process_bundle(resources).items())
    return process if resources.processes == 1 else f"{resources.processes} processes of {process}"


def check_machine(resources: Resources, available: Node) -> None:
    """Raise StudyError where this machine can never hold one trial: Ray would wait for ever."""
    if trials_on([available], resources):
        return
    has = " and ".join(f"{available.get(kind, 0.0):g} {kind}" for kind in process_bundle(resources))
    raise StudyError(
        f"resources: a trial asks {asked_by(resources)}, and this machine has {has}; lower"
        " resources.processes, resources.cpu or resources.gpu (fractions share one), or name a"
        " cluster with --address"
    )


def missing_on_cluster(resources: Resources, nodes: Sequence[Node]) -> str | None:
    """A sentence where these nodes cannot hold one trial; None where they can."""
    if trials_on(nodes, resources):
        return None
    process = process_bundle(resources)
    held = sum(processes_on(node, process) for node in nodes)
    one = " and ".join(f"{asked:g} {kind}" for kind, asked in process.items())
    if not held:
        return f"no node of the cluster has {one}, which a process of a trial asks"
    return (
        f"the nodes of the cluster hold {held} processes of {one}, and a trial has"
        f" {resources.processes}"
    )


def live_nodes() -> list[dict[str, Any]]:
    """Nodes of the connected cluster that are alive, as Ray describes them."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray is untyped
    return [node for node in nodes if node["Alive"]]


def nodes_at_most() -> list[Node] | None:
    """Nodes that the cluster's autoscaler may start; None where there is no autoscaler."""
    config = ray._private.state.state.get_cluster_config()  # noqa: SLF001 - Ray has no public call
    if config is None or not config.node_group_configs:
        return None
    most = 10_000  # a group without a limit has -1
    return [
        dict(group.resources)
        for group in config.node_group_configs
        for _ in range(most if group.max_count < 0 else min(most, group.max_count))
    ]


def places(resources: Resources) -> int:
    """The number of trials that the connected cluster holds, grown as far as it may grow."""
    now = trials_on([node["Resources"] for node in live_nodes()], resources)
    grown = nodes_at_most()
    return now if grown is None else max(now, trials_on(grown, resources))


@contextmanager
def available_resources(
    resources: Resources,
    address: str | None,
    notice: Callable[[str], None] = lambda _: None,
) -> Iterator[None]:
    """Check that this machine can hold one trial; with an address, connect to that cluster instead.

    `notice` is told what is waited for. Raises StudyError where there is no cluster, or where this
    machine is too small.
    """
    if address is not None:
        with connected(address, notice):
            yield
        return
    # This machine is asked directly: Ray is slow to start, and a dry run does not need it.
    if not ray.is_initialized():
        check_machine(resources, _this_machine())
    yield

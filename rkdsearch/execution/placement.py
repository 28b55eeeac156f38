"""Resources of a trial as a placement group, and the check that they exist."""

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


def placement(resources: Resources) -> tune.PlacementGroupFactory:
    """The placement group of one trial; Ray grants all of its bundles or none.

    A single process trains in the trial's actor. A gang has the actor and a bundle per process.
    """
    process = (
        {"CPU": resources.cpu, "GPU": resources.gpu} if resources.gpu else {"CPU": resources.cpu}
    )
    if resources.processes == 1:
        return tune.PlacementGroupFactory([process])
    return tune.PlacementGroupFactory(
        [{"CPU": 0.01}, *[process] * resources.processes], strategy="PACK"
    )


def check_machine(resources: Resources, available: Mapping[str, float]) -> None:
    """Raise StudyError where this machine can never hold one trial: Ray would wait for ever."""
    for kind, asked in placement(resources).required_resources.items():
        has = available.get(kind, 0.0)
        if asked > has:
            raise StudyError(
                f"resources: a trial of {resources.processes} processes asks {asked:g} {kind},"
                f" which must be <= {has:g}, what this machine has; lower resources.processes or"
                f" resources.{kind.lower()} (fractions share one), or name a cluster with --address"
            )


def missing_on_cluster(resources: Resources, nodes: Sequence[Mapping[str, float]]) -> str | None:
    """The resources that one trial asks and the cluster lacks now, as a sentence; None: nothing.

    It is no error: a cluster may grow.
    """
    group = placement(resources)
    process = group.bundles[-1]
    if not any(
        all(node.get(kind, 0.0) >= asked for kind, asked in process.items()) for node in nodes
    ):
        wanted = " and ".join(f"{asked:g} {kind}" for kind, asked in process.items())
        return (
            f"no node of the cluster has {wanted} now, which a trial's process asks: trials wait"
            " until it grows"
        )
    for kind, asked in group.required_resources.items():
        has = sum(node.get(kind, 0.0) for node in nodes)
        if asked > has:
            return (
                f"the cluster has {has:g} {kind} now, and a trial asks {asked:g}: trials wait until"
                " it grows"
            )
    return None


@contextmanager
def available_resources(
    resources: Resources, address: str | None, notice: Callable[[str], None]
) -> Iterator[None]:
    """Check that one trial's resources exist; with an address, stay connected to the cluster.

    `notice` is told where the cluster has to grow first. Raises StudyError where there is no
    cluster, or where this machine is too small.
    """
    if address is not None:
        with connected(address):
            nodes: Any = ray.nodes()  # type: ignore[no-untyped-call]  # Ray is untyped
            missing = missing_on_cluster(
                resources, [node["Resources"] for node in nodes if node["Alive"]]
            )
            if missing is not None:
                notice(missing)
            yield
        return
    # This machine is asked directly: Ray is slow to start, and a dry run does not need it.
    if not ray.is_initialized() and "RAY_ADDRESS" not in os.environ:
        check_machine(resources, {"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count()})
    yield

"""Examination of a cluster before compute is spent.

One task on every node that can train: it sees the study's folder, the images and the teachers that
the driver sees, in the same versions; where trials are gangs, two processes on two nodes add a
number together. What is wrong is told in sentences.
"""

import pickle
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from rkdsearch import data
from rkdsearch.errors import DiskError, RkdError, StudyError
from rkdsearch.execution.gang import GangProcess, meeting, network_of
from rkdsearch.execution.node_check import NodeCheck, NodeReport, check_node, last_line, versions
from rkdsearch.execution.placement import (
    live_nodes,
    missing_on_cluster,
    nodes_at_most,
    process_bundle,
    processes_on,
)
from rkdsearch.local_path import missing_folders
from rkdsearch.plugins import allowed_imports
from rkdsearch.search.teachers import needed_roles
from rkdsearch.space.settings import Resources
from rkdsearch.space.space import SearchSpace
from rkdsearch.teacher import ROLES, fingerprint

CHECK_SECONDS = 300.0  # for one node: it imports torch, reads the images and hashes the teachers
MEET_SECONDS = 60.0
LEAST_FREE_BYTES = 1 << 30  # below it the disk of the study is called full


def examine(space: SearchSpace | None, folder: Path | None) -> Iterator[tuple[str, NodeReport]]:
    """Every node of the connected cluster that can train a process of the space, and its report.

    Without a space every node is looked at. At most 64 nodes: the others are like these, and a
    worker refuses a folder that is not the study's.
    """
    resources = Resources() if space is None else space.resources
    nodes = [
        node
        for node in live_nodes()
        if space is None or processes_on(node["Resources"], process_bundle(resources))
    ]
    with _probe_file(folder) as probe:
        packed = _packed_check(space, folder, probe)
        task = ray.remote(num_cpus=0, max_retries=0)(check_node)
        checks = {
            task.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(packed): node
            for node in nodes[:64]
        }
        waiting = list(checks)
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=1, timeout=CHECK_SECONDS)
            if not ready:
                late = NodeReport(
                    "", (f"did not answer within {CHECK_SECONDS:g} s: is it overloaded?",)
                )
                yield from ((_name(checks[one]), late) for one in waiting)
                return
            node = checks[ready[0]]
            yield _name(node), _report(ready[0], str(node["NodeID"]))


def check_cluster(space: SearchSpace, folder: Path, notice: Callable[[str], None]) -> None:
    """Refuse a connected cluster on which this search would not go well.

    `notice` is told where the cluster is too small now, which is no fault, because it may grow; and
    of nodes that die meanwhile. Raises StudyError with what is wrong, in a sentence or a few.
    """
    complaints = list[str]()
    for node, report in examine(space, folder):
        complaints += [f"node {node} {complaint}" for complaint in report.complaints]
        if report.lost:
            notice(f"node {node} {report.facts}: the search begins without it")
    complaints += impossible(space.resources)
    if not complaints:  # nodes with another folder or version need no further test
        complaints += nodes_that_cannot_connect(space.resources)
    if complaints:
        more = f" (and {len(complaints) - 3} more)" if len(complaints) > 3 else ""
        raise StudyError("\n".join(complaints[:3]) + more)
    for sentence in too_small(space.resources):
        notice(sentence)


def here(space: SearchSpace | None, folder: Path | None) -> NodeReport:
    """The report of this machine, which needs no Ray."""
    with _probe_file(folder) as probe:
        return check_node(_packed_check(space, folder, probe))


def too_small(resources: Resources) -> Iterator[str]:
    """A sentence where the cluster holds no trial now, which is no fault: it may grow."""
    missing = missing_on_cluster(resources, [node["Resources"] for node in live_nodes()])
    if missing is not None:
        yield f"{missing}: trials wait until it grows"


def fits_no_machine(resources: Resources) -> bool:
    """True where no node holds one process of a trial, and nothing starts other nodes."""
    process = process_bundle(resources)
    held = any(processes_on(node["Resources"], process) for node in live_nodes())
    return not held and nodes_at_most() is None


def impossible(resources: Resources) -> Iterator[str]:
    """A sentence where the cluster can never hold one trial, however far it grows."""
    most = nodes_at_most()
    missing = None if most is None else missing_on_cluster(resources, most)
    if missing is not None:
        yield (
            f"{missing}, even where the autoscaler has started all it may: lower resources, or let"
            " it start other nodes"
        )


def nodes_that_cannot_connect(resources: Resources) -> Iterator[str]:
    """A sentence where two nodes of a gang cannot meet.

    Nothing where a trial has one process, or the cluster one node for them.
    """
    process = process_bundle(resources)
    able = [node for node in live_nodes() if processes_on(node["Resources"], process)]
    if resources.processes == 1 or len(able) < 2:
        return
    addresses = [str(node["NodeManagerAddress"]) for node in able]
    backend = "nccl" if resources.gpu else "gloo"
    group = placement_group([process, process], strategy="STRICT_SPREAD")
    try:
        if not group.wait(MEET_SECONDS):
            return  # other work holds the nodes: the gangs will find out
        meeting_process: Any = ray.remote(_Meeting)
        actors = [
            meeting_process.options(
                num_cpus=process.get("CPU", 0),
                num_gpus=process.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    group, placement_group_bundle_index=rank
                ),
            ).remote()
            for rank in range(2)
        ]
        environments = meeting(actors)
        addresses = ray.get([actor.address.remote() for actor in actors])
        ray.get(
            [
                actor.meet.remote(environment, backend)
                for actor, environment in zip(actors, environments, strict=True)
            ],
            timeout=3 * MEET_SECONDS,
        )
    except (ray.exceptions.RayError, RkdError) as error:
        yield (
            f"nodes {' and '.join(addresses)} cannot add a number together ({backend}:"
            f" {last_line(getattr(error, 'cause', None) or error)}), as the processes of a trial"
            " must: open all ports between the nodes, or name the right interface with"
            " GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME on every node"
        )
    finally:
        remove_placement_group(group)  # ends its actors too


class _Meeting(GangProcess):
    """A process of a gang that only meets the other one."""

    def meet(self, environment: dict[str, str], backend: str) -> None:
        """Sum 1 over the processes. Raises RkdError where they do not meet."""
        import os

        os.environ.update(environment | network_of(self.address()))
        try:
            torch.distributed.init_process_group(backend, timeout=timedelta(seconds=MEET_SECONDS))
            one = torch.ones(1, device="cuda" if backend == "nccl" else "cpu")
            torch.distributed.all_reduce(one)
            torch.distributed.destroy_process_group()
        except RuntimeError as error:
            raise RkdError(last_line(error)) from None
        assert one.item() == 2, "the sum over two processes"


@contextmanager
def _probe_file(folder: Path | None) -> Iterator[str]:
    """Name of a file in the folder that only who sees this very folder can read.

    Nodes write files beside it; all are removed. Raises DiskError where it cannot be written.
    """
    name = f".doctor-{uuid.uuid4().hex}"
    if folder is None:
        yield name
        return
    made = missing_folders(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        (folder / name).write_text(name[-8:])
    except OSError as error:
        raise DiskError.at(folder, error) from error
    try:
        if free < LEAST_FREE_BYTES:
            raise DiskError(
                f"{folder}: {free / 2**20:.0f} MiB are free, which must be >= 1024: trials write"
                " checkpoints there; free some, or name another folder with --study"
            )
        yield name
    finally:
        for file in folder.glob(f"{name}*"):
            file.unlink(missing_ok=True)
        with suppress(OSError):  # a dry run leaves nothing
            for one in made:
                one.rmdir()


def _packed_check(space: SearchSpace | None, folder: Path | None, probe: str) -> bytes:
    config = None if space is None else space.example()
    files = (
        {}
        if config is None or space is None
        else {
            str(teacher.path): fingerprint(Path(teacher.path))
            for role in ROLES
            if role in needed_roles(space)
            and (teacher := config.teachers.get(role)) is not None
            and teacher.path is not None
        }
    )
    return pickle.dumps(
        NodeCheck(
            versions=versions(),
            folder=None if folder is None else folder.resolve(),
            probe=probe,
            images=None if config is None else config.data,
            hashes={} if config is None else data.load_training(config.data).hashes,
            teachers=files,
            packages=allowed_imports(),
            gpu=space is not None and space.resources.gpu > 0,
        )
    )


def _report(reference: Any, node_id: str) -> NodeReport:
    """A node's answer, or why it has none."""
    try:
        found: NodeReport = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None) or error
        return NodeReport(
            "", (f"cannot run rkdsearch: {last_line(cause)}; install one lock on all nodes",)
        )
    except ray.exceptions.RayError as error:
        # a node that died a moment ago is alive for Ray until something is asked of it
        if node_id not in {node["NodeID"] for node in live_nodes()}:
            return NodeReport("was lost while it was looked at", (), lost=True)
        logs = "the logs of Ray on that node say why (/tmp/ray/session_latest/logs)"
        return NodeReport("", (f"cannot run the check ({type(error).__name__}): {logs}",))
    return found


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})"

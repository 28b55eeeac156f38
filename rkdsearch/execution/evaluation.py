"""Test evaluation on Ray: one task per job and block of images.

Only this module and the command `evaluate` read test images. Blocks are small, and workers take the
next one as they become free, because the time of AutoAttack depends on how many images resist it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray import exceptions

from rkdsearch import data
from rkdsearch.errors import OutOfMemoryError, RkdError, StudyError
from rkdsearch.evaluation.jobs import (
    BLOCK_IMAGES,
    BlockResult,
    EvaluationJob,
    WorkerJob,
    row_of,
    run_block,
    subset,
)
from rkdsearch.execution.ray_session import connected
from rkdsearch.plugins import allowed_imports
from rkdsearch.results.cells import records
from rkdsearch.results.store import Store


def run_jobs(
    folder: Path,
    jobs: Sequence[EvaluationJob],
    *,
    images: int | None,
    gpu: float | None = None,
    address: str | None = None,
) -> Iterator[tuple[EvaluationJob, dict[str, object]]]:
    """Each job with its row, as jobs end. Rows are written to `evaluations/` of the study's folder.

    A job whose row is there already, for the same weights and images, is skipped. Each worker takes
    the share `gpu` of a GPU. An error ends its own job only, and is raised after the others.
    """
    store = Store(folder)
    config = jobs[0].target.config
    test = data.load_test(config.data)
    rows, digest = subset(test, images, config.data.split_seed)
    known = store.evaluations()
    known = known[known["subset_sha256"] == digest]
    done = {(r["trial_id"], r["weights_sha256"], r["attack"], r["seed"]) for r in records(known)}
    todo = [
        job
        for job in jobs
        if (job.target.trial_id, job.target.sha256, job.attack, job.seed) not in done
    ]
    if not todo:
        return
    x, y = test.take(torch.from_numpy(rows)).floats(slice(None))
    with connected(address):
        share = _gpu_share(gpu, address)
        arrays = ray.put((x.numpy(), y.numpy()))
        blocks = math.ceil(len(rows) / BLOCK_IMAGES)
        for job, results in _run_blocks(todo, arrays, blocks, share):
            row = row_of(job, results, y.numpy(), len(test), digest)
            store.write_evaluation(row)
            yield job, row


def _run_blocks(
    jobs: Sequence[EvaluationJob], arrays: Any, blocks: int, share: float
) -> Iterator[tuple[EvaluationJob, list[BlockResult]]]:
    """Each job with the results of its blocks in their order, as jobs end."""
    task = ray.remote(num_cpus=1, max_retries=2)(run_block)
    waiting: dict[Any, tuple[EvaluationJob, int]] = {}
    # The long jobs first, so that no worker is left alone with one at the end.
    for job in sorted(jobs, key=lambda j: j.attack != "autoattack"):
        gpu = share if job.target.config.training.device != "cpu" else 0.0
        target = replace(job.target, weights=job.target.weights.resolve())
        work = WorkerJob(replace(job, target=target), gpu, allowed_imports())
        for block in range(blocks):
            waiting[task.options(num_gpus=gpu).remote(work, arrays, block)] = (job, block)
    results: dict[EvaluationJob, dict[int, BlockResult]] = {job: {} for job in jobs}
    errors: list[RkdError] = []
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        job, block = waiting.pop(ready)
        try:
            results[job][block] = _result(ready, job)
        except RkdError as error:
            errors.append(error)
            for reference in [r for r, (of, _) in waiting.items() if of == job]:
                del waiting[reference]
                ray.cancel(reference)
            continue
        if len(results[job]) == blocks:
            yield job, [results[job][b] for b in range(blocks)]
    if errors:
        raise errors[0]


def _gpu_share(asked: float | None, address: str | None) -> float:
    """The share of a GPU that a worker takes: `asked`; by default a whole GPU where Ray sees any.

    Raises StudyError for a share that this machine can never give.
    """
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray is untyped
    available = resources.get("GPU", 0.0)
    if asked is None:
        return float(min(1.0, available))
    if address is None and asked > available:
        raise StudyError(
            f"--gpu {asked:g}: Ray sees {available:g} GPUs on this machine; leave --gpu out, or"
            " name a cluster with --address"
        )
    return asked


def _result(reference: Any, job: EvaluationJob) -> BlockResult:
    """The result of one block. Raises the worker's own RkdError, not Ray's wrapper.

    Raises OutOfMemoryError where the worker was killed.
    """
    try:
        result: BlockResult = ray.get(reference)
    except exceptions.RayTaskError as error:
        if isinstance(error.cause, RkdError):
            raise error.cause from None
        raise
    except (exceptions.OutOfMemoryError, exceptions.WorkerCrashedError) as error:
        raise OutOfMemoryError(
            f"{job.target.trial_id}, {job.attack}: its worker was killed three times, most likely"
            " because memory ran out; let fewer workers run at once: `ray start --head --num-cpus"
            " N`, and --address auto"
        ) from error
    return result

"""Test-set evaluation, sharded over Ray: one task a block of images.

Blocks are small and are taken up as workers come free, because AutoAttack's time depends on how
many images are still standing.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rkdsearch import data
from rkdsearch.errors import OutOfMemoryError, RkdError, StudyError
from rkdsearch.evaluation.jobs import SHARD, EvaluationJob, row_of, run_job, subset
from rkdsearch.plugins import allowed_imports
from rkdsearch.results import summary
from rkdsearch.results.store import Store


def examine(
    folder: Path,
    todo: Sequence[EvaluationJob],
    *,
    images: int | None,
    gpu: float | None = None,
    address: str | None = None,
) -> Iterator[tuple[EvaluationJob, dict[str, object]]]:
    """Every sitting's row, as they end, written to `evaluations/`; what stands there already for the same weights and images is skipped.

    Each worker takes `gpu` of a GPU. What one sitting meets does not stop the others: its error is
    raised at the end.
    """
    import ray
    import torch

    from rkdsearch.execution.tuner import connected

    store = Store(folder)
    config = todo[0].target.config
    test = data.load_test(config.data)
    rows, digest = subset(test, images, config.data.split_seed)
    known = store.evaluations()
    known = known[known["subset_sha256"] == digest]
    there = {
        (r["trial_id"], r["weights_sha256"], r["attack"], r["seed"]) for r in summary.records(known)
    }
    left = [s for s in todo if (s.target.trial_id, s.target.sha256, s.attack, s.seed) not in there]
    if not left:
        return
    x, y = test.take(torch.from_numpy(rows)).floats(slice(None))
    blocks = math.ceil(len(rows) / SHARD)
    with connected(address):
        share = _share(gpu, address)
        shared = ray.put((x.numpy(), y.numpy()))
        task = ray.remote(num_cpus=1, max_retries=2)(run_job)
        waiting: dict[Any, tuple[EvaluationJob, int]] = {}
        # The long ones first, so that no worker is left with one at the end.
        for job in sorted(left, key=lambda s: s.attack != "autoattack"):
            asked = share if job.target.config.training.device != "cpu" else 0.0
            for block in range(blocks):
                waiting[
                    task.options(num_gpus=asked).remote(_described(job, asked), shared, block)
                ] = (job, block)
        answers: dict[EvaluationJob, dict[int, dict[str, Any]]] = {s: {} for s in left}
        failed: dict[EvaluationJob, RkdError] = {}
        while waiting:
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            job, block = waiting.pop(ready)
            try:
                answers[job][block] = _answer(ready, job)
            except RkdError as error:
                failed[job] = error
                for reference in [r for r, (of, _) in waiting.items() if of == job]:
                    del waiting[reference]
                    ray.cancel(reference)
                continue
            if len(answers[job]) == blocks:
                row = row_of(
                    job,
                    [answers[job][b] for b in sorted(answers[job])],
                    y.numpy(),
                    len(test),
                    digest,
                )
                store.write_evaluation(row)
                yield job, row
    if failed:
        raise next(iter(failed.values()))


def _share(asked: float | None, address: str | None) -> float:
    """How much of a GPU a worker takes: what was asked, else a whole one where Ray sees any. Raises StudyError for what can never be had."""
    import ray

    there = ray.cluster_resources().get("GPU", 0.0)  # type: ignore[no-untyped-call]  # Ray leaves it untyped
    if asked is None:
        return float(min(1.0, there))
    if address is None and asked > there:
        raise StudyError(
            f"--gpu {asked:g}: Ray sees {there:g} GPUs on this machine; leave --gpu out, or name a"
            " cluster with --address"
        )
    return asked


def _answer(reference: Any, job: EvaluationJob) -> dict[str, Any]:
    """A shard's answer. Raises what its worker raised, not what Ray makes of it; OutOfMemoryError where the worker was killed."""
    from ray import exceptions, get

    try:
        answer: dict[str, Any] = get(reference)
    except exceptions.RayTaskError as error:
        if isinstance(error.cause, RkdError):
            raise error.cause from None
        raise
    except (exceptions.OutOfMemoryError, exceptions.WorkerCrashedError) as error:
        raise OutOfMemoryError(
            f"{job.target.trial_id}, {job.attack}: its worker was killed three times,"
            " most likely for want of memory; let fewer run at once: `ray start --head --num-cpus"
            " N`, and --address auto"
        ) from error
    return answer


def _described(job: EvaluationJob, gpu: float) -> dict[str, Any]:
    c = job.target
    return {
        "trial_id": c.trial_id,
        "config": c.config.to_dict(),
        "weights": str(c.weights.resolve()),
        "sha256": c.sha256,
        "role": c.role,
        "attack": job.attack,
        "seed": job.seed,
        "gpu": gpu,
        "allow_imports": allowed_imports(),
    }

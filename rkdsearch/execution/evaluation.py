"""Test evaluation on Ray: one task per job and block of images.

Blocks are small, and workers take the next one as they become free, because the time of AutoAttack
depends on how many images resist it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray import exceptions

from rkdsearch.errors import OutOfMemoryError, RkdError, StudyError
from rkdsearch.evaluation.blocks import BlockResult, CheckJob, WorkerJob, run_block, run_checks
from rkdsearch.evaluation.images import Pixels
from rkdsearch.evaluation.runner import BlockOutcome, Executor, sentence_of
from rkdsearch.execution.ray_session import connected
from rkdsearch.flags import ImageChecks


@contextmanager
def ray_executor(
    gpu: float | None = None,
    address: str | None = None,
    notice: Callable[[str], None] = lambda _: None,
) -> Iterator[Executor]:
    """The executor of a Ray cluster, or of Ray on this machine where `address` is None.

    Each worker takes the share `gpu` of a GPU; by default a whole one where Ray sees any. `notice`
    is told of the start of Ray. Raises StudyError where no cluster answers, or this machine can
    never give that share.
    """
    with connected(address, notice):
        share = _gpu_share(gpu, address)
        yield lambda works, images, blocks: _run_blocks(works, images, blocks, share)


def _run_blocks(
    works: Sequence[WorkerJob], images: Pixels, blocks: int, share: float
) -> Iterator[BlockOutcome]:
    """The blocks of all jobs as they end. After a job's first error its others are given up."""
    remote = ray.remote(num_cpus=1, max_retries=2)
    attacked: Any = remote(_guarded(run_block))
    checked: Any = remote(_guarded(run_checks))
    stored = ray.put(images)
    waiting: dict[Any, tuple[int, int]] = {}
    for number, work in enumerate(works):
        task = checked if isinstance(work.job, CheckJob) else attacked
        gpu = share if work.job.target.config.training.device != "cpu" else 0.0
        for block in range(blocks):
            waiting[task.options(num_gpus=gpu).remote(work, stored, block)] = (number, block)
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        number, block = waiting.pop(ready)
        result = _result(ready, works[number], share)
        yield number, block, result
        if isinstance(result, Exception):
            for reference in [r for r, (of, _) in waiting.items() if of == number]:
                del waiting[reference]
                ray.cancel(reference)


_Found = TypeVar("_Found", BlockResult, ImageChecks)


def _guarded(
    run: Callable[[WorkerJob, Pixels, int], _Found],
) -> Callable[[WorkerJob, Pixels, int], _Found | Exception]:
    """The function with its errors as values: not every error can be pickled."""

    def guarded(work: WorkerJob, images: Pixels, block: int) -> _Found | Exception:
        try:
            return run(work, images, block)
        except RkdError as error:
            return error
        except Exception as error:  # noqa: BLE001 - of any class: the other jobs go on
            return RkdError(sentence_of(error))

    return guarded


def _result(reference: Any, work: WorkerJob, share: float) -> BlockResult | ImageChecks | Exception:
    """The result of one block, or its error."""
    try:
        result: BlockResult | ImageChecks | Exception = ray.get(reference)
    except (exceptions.OutOfMemoryError, exceptions.WorkerCrashedError):
        return OutOfMemoryError(
            "its worker was killed three times, most likely because memory ran out; what is done"
            " is kept: let fewer workers run at once (`ray start --head --num-cpus N`, and"
            " --address auto), and repeat the command"
        )
    except exceptions.RayError as error:
        return RkdError(sentence_of(error))
    if isinstance(result, OutOfMemoryError) and work.job.target.config.training.device != "cpu":
        return OutOfMemoryError(
            f"{result}; or raise --gpu, each worker's share of a GPU (now {share:g}, at most 1)"
        )
    return result


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

"""A test evaluation: jobs in blocks by some executor, rows as jobs end, errors of one job told.

Without Ray: `here` runs the blocks one after the other in this process. `execution/evaluation.py`
has the executor for Ray.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rkdsearch.errors import DiskError, RkdError, place_of, short
from rkdsearch.evaluation.blocks import (
    BLOCK_IMAGES,
    BlockResult,
    CheckJob,
    EvaluationJob,
    WorkerJob,
    run_block,
    run_checks,
)
from rkdsearch.evaluation.images import EvaluatedImages, Pixels
from rkdsearch.evaluation.jobs import key_of, known_keys, row_of
from rkdsearch.evaluation.openings import write_opening
from rkdsearch.flags import IMAGES, ImageChecks
from rkdsearch.pace import Pace, silence_told
from rkdsearch.plugins import allowed_imports
from rkdsearch.provenance import Provenance, provenance
from rkdsearch.results.cells import records
from rkdsearch.results.rows import Checks
from rkdsearch.results.store import Store
from rkdsearch.teacher import in_another_order

PARTIAL = "partial"  # folder of a study: records of unfinished blocks

# Jobs and images in blocks to (number of the job, block, its result or the error) as they end.
BlockOutcome = tuple[int, int, BlockResult | ImageChecks | Exception]
Executor = Callable[[Sequence[WorkerJob], Pixels, int], Iterable[BlockOutcome]]


@dataclass(frozen=True)
class JobFailure:
    """The error that ended a job, as a sentence."""

    job: EvaluationJob
    sentence: str


Outcome = tuple[EvaluationJob, dict[str, object]] | JobFailure


def evaluate(
    folder: Path,
    jobs: Sequence[EvaluationJob],
    images: EvaluatedImages,
    executor: Executor,
    *,
    notice: Callable[[str], None] = lambda _: None,
) -> Iterator[Outcome]:
    """Each job with its row, or its failure, as jobs end.

    Rows are written to `evaluations/` in `folder`, the images to `subsets/`, the opening of the
    images to `openings/`, before the first one is attacked. A job whose row is there already is
    left out. An error of any class ends its own job only.
    """
    store, todo = Store(folder), []
    for job in open_jobs(folder, jobs, images):
        if (reason := _misfit(job, images)) is not None:
            yield JobFailure(job, reason)
        else:
            todo.append(job)
    if not todo:
        return
    code = provenance()
    opening = write_opening(store, todo, images, code, notice)
    store.write_subset(images.subset_rows())
    # The long jobs first, so that no worker is left alone with one at the end. Without workers they
    # come last: whoever stops early has the others.
    todo.sort(key=lambda job: (job.attack.name != "autoattack") == (executor is not here))
    yield from _run(store, todo, images, executor, opening, code)


def open_jobs(
    folder: Path, jobs: Sequence[EvaluationJob], images: EvaluatedImages
) -> list[EvaluationJob]:
    """The jobs on these images of which the folder has no row yet."""
    rows = records(Store(folder).evaluations())
    done = known_keys([row for row in rows if _is_of(row, images)])
    return [job for job in jobs if key_of(job) not in done]


def _is_of(row: Mapping[str, Any], images: EvaluatedImages) -> bool:
    """True where the row was measured on these images, under this name.

    The test images have one name, wherever they lie; two corruptions may change no image.
    """
    same_set = images.split == "test" or row["dataset"] == images.name
    same_images = row["subset_sha256"] == images.sha256
    return bool(same_images and row["split"] == images.split and same_set)


def _run(
    store: Store,
    jobs: Sequence[EvaluationJob],
    images: EvaluatedImages,
    executor: Executor,
    opening: str,
    code: Provenance,
) -> Iterator[Outcome]:
    blocks = -(-len(images.pixels) // BLOCK_IMAGES)
    checks = _checked(jobs, images, executor, blocks)
    failed = {job: reason for job in jobs if isinstance(reason := checks[job], str)}
    for job, reason in failed.items():
        yield JobFailure(job, reason)
    jobs = [job for job in jobs if job not in failed]
    homes = [store.folder.absolute() / PARTIAL / _digits(job, images) for job in jobs]
    works = [
        WorkerJob(_absolute(job), allowed_imports(), home)
        for job, home in zip(jobs, homes, strict=True)
    ]
    pace = Pace(f"evaluation: {{}} blocks of {BLOCK_IMAGES} images", blocks * len(jobs))
    outcomes = _counted(executor(works, images.pixels, blocks), pace)
    ended: set[int] = set()

    def sentence() -> str:
        left = [job for number, job in enumerate(jobs) if number not in ended]
        return (
            f"no part of an attack has ended for {{}}: {left[0].name if left else 'none'} (jobs"
            f" left: {len(left)}); a large network may need so long, a stuck process never ends:"
            " ctrl-c keeps what is done, and the same command goes on"
        )

    with silence_told(lambda: (len(ended), _latest(homes)), sentence):
        for number, found in _whole(outcomes, blocks):
            job = jobs[number]
            ended.add(number)
            if isinstance(found, str):
                yield JobFailure(job, found)
                continue
            results = [block for block in found if isinstance(block, BlockResult)]
            of_network = checks[job]
            assert not isinstance(of_network, str)
            row = row_of(job, results, of_network, images, opening, code)
            store.write_evaluation(row)
            shutil.rmtree(homes[number], ignore_errors=True)
            yield job, row
    # not before: a worker may be about to make its folder in there
    with suppress(OSError):  # records of jobs that failed are kept
        (store.folder / PARTIAL).rmdir()


def _latest(folders: Sequence[Path]) -> float:
    """Time of the last write to a file in the folders: records of unfinished blocks."""
    found = [0.0]
    for folder in folders:
        with suppress(OSError):  # its job has just ended
            found += [file.stat().st_mtime for file in folder.iterdir()]
    return max(found)


def _checked(
    jobs: Sequence[EvaluationJob], images: EvaluatedImages, executor: Executor, blocks: int
) -> dict[EvaluationJob, Checks | str | None]:
    """The checks behind each job's row, made once for all that share them; or why not.

    None for clean images.
    """
    todo = [check for check in dict.fromkeys(job.check for job in jobs) if check is not None]
    some = -(-IMAGES // blocks)  # of each block
    works = [WorkerJob(_absolute(check), allowed_imports(), checked=some) for check in todo]
    pace = Pace("looking for signs of a failed attack: {} blocks", blocks * len(works))
    outcomes = _counted(executor(works, images.pixels, blocks), pace) if works else ()
    found: dict[CheckJob | None, Checks | str | None] = {None: None}
    for number, parts in _whole(outcomes, blocks):
        found[todo[number]] = (
            parts
            if isinstance(parts, str)
            else ImageChecks.joined([p for p in parts if isinstance(p, ImageChecks)]).counts
        )
    return {job: found[job.check] for job in jobs}


def _whole(
    outcomes: Iterable[BlockOutcome], blocks: int
) -> Iterator[tuple[int, list[BlockResult | ImageChecks] | str]]:
    """Number of each job with its blocks in their order, once all are there; or its first error."""
    results: dict[int, dict[int, BlockResult | ImageChecks]] = {}
    failed: set[int] = set()
    for number, block, result in outcomes:
        if isinstance(result, DiskError):  # nothing can be recorded any more
            raise result
        if isinstance(result, Exception):
            if number not in failed:
                failed.add(number)
                yield number, sentence_of(result)
            continue
        parts = results.setdefault(number, {})
        parts[block] = result
        if len(parts) == blocks:
            yield number, [parts[b] for b in range(blocks)]


def _counted(outcomes: Iterable[BlockOutcome], pace: Pace) -> Iterator[BlockOutcome]:
    """The outcomes, told to `pace`."""
    for count, outcome in enumerate(outcomes, start=1):
        pace.at(count)
        yield outcome


def here(works: Sequence[WorkerJob], images: Pixels, blocks: int) -> Iterator[BlockOutcome]:
    """Executor without Ray: one block after the other in this process."""
    for number, work in enumerate(works):
        for block in range(blocks):
            try:
                run = run_checks if isinstance(work.job, CheckJob) else run_block
                yield number, block, run(work, images, block)
            except Exception as error:  # noqa: BLE001 - of any class: the other jobs go on
                yield number, block, error
                break


def sentence_of(error: Exception) -> str:
    """The error as one line; one that is not for the user gets its class, file and line."""
    if isinstance(error, RkdError):
        return " ".join(str(error).split())
    return f"{short(error)}{place_of(error)}"


def _misfit(job: EvaluationJob, images: EvaluatedImages) -> str | None:
    """Reason for which the network cannot take these images; None where it can."""
    network, there = job.target.task, images.task
    if network.shape != there.shape:
        channels, height, width = network.shape
        found = " x ".join(map(str, there.shape))
        return (
            f"its network takes {channels} x {height} x {width} pixels (channels, height, width),"
            f" and {images.name} has {found}; set data.channels={channels} and"
            f" data.image_size={height if height == width else [height, width]}, or name other"
            " images with --data"
        )
    if network.classes != there.classes:
        return (
            f"its network tells {network.classes} classes apart, and {images.name} has"
            f" {there.classes}; name other images with --data"
        )
    known = job.target.classes
    if images.opens_test and known is not None and in_another_order(known, images.classes):
        return (
            f"its logits are in the order {', '.join(known)}, and the classes of {images.name} are"
            f" {', '.join(images.classes)} now; name them as they were"
        )
    return None


_Job = TypeVar("_Job", EvaluationJob, CheckJob)


def _absolute(job: _Job) -> _Job:
    """The job with absolute paths: a worker may have another working directory."""
    target = replace(job.target, weights=job.target.weights.absolute())
    if isinstance(job, CheckJob):
        return replace(job, target=target)
    sources = tuple(replace(s, weights=s.weights.absolute()) for s in job.sources)
    return replace(job, target=target, sources=sources)


def _digits(job: EvaluationJob, images: EvaluatedImages) -> str:
    """Name of the job's folder in `partial/`."""
    text = json.dumps([key_of(job), images.sha256, BLOCK_IMAGES], sort_keys=True)
    return f"{job.target.trial_id}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

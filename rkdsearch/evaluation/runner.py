"""A test evaluation: jobs in blocks by some executor, rows as jobs end, errors of one job told.

Without Ray: `here` runs the blocks one after the other in this process. `execution/evaluation.py`
has the executor for Ray.
"""

import hashlib
import json
import shutil
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rkdsearch.errors import DiskError, RkdError
from rkdsearch.evaluation.blocks import (
    BLOCK_IMAGES,
    BlockResult,
    EvaluationJob,
    WorkerJob,
    run_block,
)
from rkdsearch.evaluation.images import EvaluatedImages, Pixels
from rkdsearch.evaluation.jobs import key_of, known_keys, row_of
from rkdsearch.evaluation.openings import write_opening
from rkdsearch.flags import IMAGES
from rkdsearch.pace import Pace, silence_told
from rkdsearch.plugins import allowed_imports
from rkdsearch.provenance import Provenance, provenance
from rkdsearch.results.cells import records
from rkdsearch.results.store import Store

PARTIAL = "partial"  # folder of a study: records of unfinished blocks

# Jobs and images in blocks to (number of the job, block, its result or the error) as they end.
BlockOutcome = tuple[int, int, BlockResult | Exception]
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
    store = Store(folder)
    rows = records(store.evaluations())
    done = known_keys([row for row in rows if row["subset_sha256"] == images.sha256])
    todo = []
    for job in jobs:
        if key_of(job) in done:
            continue
        if (reason := _misfit(job, images)) is not None:
            yield JobFailure(job, reason)
        else:
            todo.append(job)
    if not todo:
        return
    code = provenance()
    opening = write_opening(store, todo, images, code, notice)
    store.write_subset(images.subset_rows())
    # The long jobs first, so that no worker is left alone with one at the end.
    todo.sort(key=lambda job: job.attack.name != "autoattack")
    yield from _run(store, todo, images, executor, opening, code)


def _run(
    store: Store,
    jobs: Sequence[EvaluationJob],
    images: EvaluatedImages,
    executor: Executor,
    opening: str,
    code: Provenance,
) -> Iterator[Outcome]:
    homes = [store.folder.absolute() / PARTIAL / _digits(job, images) for job in jobs]
    blocks = -(-len(images.pixels) // BLOCK_IMAGES)
    works = [
        WorkerJob(_absolute(job), allowed_imports(), home, checked=-(-IMAGES // blocks))
        for job, home in zip(jobs, homes, strict=True)
    ]
    results: list[dict[int, BlockResult]] = [{} for _ in jobs]
    failed: set[int] = set()
    pace = Pace(f"evaluation: {{}} blocks of {BLOCK_IMAGES} images", blocks * len(jobs))
    count = 0

    def sentence() -> str:
        left = [n for n in range(len(jobs)) if n not in failed and len(results[n]) < blocks]
        return (
            f"no part of an attack has ended for {{}}: {jobs[left[0]].name} (jobs left:"
            f" {len(left)}); a large network may need so long, a stuck process never ends: ctrl-c"
            " keeps what is done, and the same command goes on"
        )

    with silence_told(lambda: (count, _latest(homes)), sentence):
        for number, block, result in executor(works, images.pixels, blocks):
            count += 1
            pace.at(count)
            job = jobs[number]
            if isinstance(result, DiskError):  # nothing can be recorded any more
                raise result
            if isinstance(result, Exception):
                if number not in failed:
                    failed.add(number)
                    yield JobFailure(job, sentence_of(result))
                continue
            results[number][block] = result
            if len(results[number]) == blocks:
                found = [results[number][b] for b in range(blocks)]
                row = row_of(job, found, images, opening, code)
                store.write_evaluation(row)
                shutil.rmtree(homes[number], ignore_errors=True)
                with suppress(OSError):  # others are in there
                    homes[number].parent.rmdir()
                yield job, row


def _latest(folders: Sequence[Path]) -> float:
    """Time of the last write to a file in the folders: records of unfinished blocks."""
    found = [0.0]
    for folder in folders:
        with suppress(OSError):  # its job has just ended
            found += [file.stat().st_mtime for file in folder.iterdir()]
    return max(found)


def here(works: Sequence[WorkerJob], images: Pixels, blocks: int) -> Iterator[BlockOutcome]:
    """Executor without Ray: one block after the other in this process."""
    for number, work in enumerate(works):
        for block in range(blocks):
            try:
                yield number, block, run_block(work, images, block)
            except Exception as error:  # noqa: BLE001 - of any class: the other jobs go on
                yield number, block, error
                break


def sentence_of(error: Exception) -> str:
    """The error as one line; one that is not for the user gets its class, file and line."""
    text = " ".join(str(error).split())
    if isinstance(error, RkdError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"


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
    return None


def _absolute(job: EvaluationJob) -> EvaluationJob:
    """The job with absolute paths: a worker may have another working directory."""
    return replace(
        job,
        target=replace(job.target, weights=job.target.weights.absolute()),
        sources=tuple(replace(s, weights=s.weights.absolute()) for s in job.sources),
    )


def _digits(job: EvaluationJob, images: EvaluatedImages) -> str:
    """Name of the job's folder in `partial/`."""
    text = json.dumps([key_of(job), images.sha256, BLOCK_IMAGES], sort_keys=True)
    return f"{job.target.trial_id}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

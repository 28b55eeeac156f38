"""The ledger of openings: who looked at which test images, and what that does to a claim."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from rkdsearch.evaluation.blocks import EvaluationJob
from rkdsearch.evaluation.images import EvaluatedImages
from rkdsearch.file_lock import locked_by
from rkdsearch.pace import number_of
from rkdsearch.provenance import Provenance
from rkdsearch.results.columns import cells_of
from rkdsearch.results.rows import OpeningRow
from rkdsearch.results.store import Store


def write_opening(
    store: Store,
    jobs: Sequence[EvaluationJob],
    images: EvaluatedImages,
    code: Provenance,
    notice: Callable[[str], None],
) -> str:
    """Write the opening of these images for these jobs; returns its name.

    `notice` is told what it does to a claim, where a search is running in the study.
    """
    opened = datetime.now(UTC)
    checkpoints = {job.target.trial_id: job.target.sha256 for job in jobs}
    attacks = list(dict.fromkeys(f"{job.attack.title}, seed {job.seed}" for job in jobs))
    writer = locked_by(store.folder)
    row = OpeningRow(
        opening=f"{opened:%Y%m%dT%H%M%S.%fZ}",
        opened=opened,
        command=code.command,
        split="test" if images.opens_test else "other",
        dataset=images.name,
        subset_sha256=images.sha256,
        images=len(images.pixels),
        of_images=images.of_images,
        checkpoints=checkpoints,
        attacks=attacks,
        searching=writer is not None,
        trials=len(store.trials()),
        version=version("rkdsearch"),
        git_commit=code.git_commit,
    )
    store.write_opening(cells_of(row))
    if writer is not None and images.opens_test:
        notice(
            f"{store.folder}: is being {writer}. Whoever sees these test results and then changes,"
            " extends or stops the search selects on test images: the opening is recorded in"
            " openings/, and results of trials that end later are not blind"
        )
    return row.opening


def told_at_resume(store: Store) -> str | None:
    """Sentence about earlier openings, for a search that goes on; None without openings."""
    openings = store.openings()
    openings = openings[openings["split"] == "test"]
    if openings.empty:
        return None
    last = openings.iloc[-1]
    seen = json.loads(last["checkpoints"])
    return (
        f"{store.folder}: its test images were opened {number_of(len(openings), 'time')}, last"
        f" on {last['opened']:%Y-%m-%d %H:%M} UTC for {number_of(len(seen), 'network')}"
        " (openings/). Trials from"
        " here on are proposed by someone who may have seen test results: say so beside their"
        " numbers, or evaluate them on images that nobody has seen"
    )

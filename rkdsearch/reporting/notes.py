"""Notes at the top of the page: what is missing, unfinished, or hidden by a headline."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rkdsearch.pace import number_of
from rkdsearch.reporting.traces import Row, is_number, method_of, percent, title
from rkdsearch.results.cells import CLEAN, ROBUST, flags_of
from rkdsearch.results.chance import teacher_at_chance
from rkdsearch.results.front import LENGTH, of_full_length
from rkdsearch.results.states import Origin, Status
from rkdsearch.results.study import StudyResults


def most_robust(rows: Sequence[Row]) -> Row | None:
    """The most robust of these students, those at chance left out: no attack moves a constant."""
    return max(
        (row for row in rows if not row["at_chance"]),
        key=lambda row: float(row[ROBUST]),
        default=None,
    )


def notes(
    study: StudyResults,
    rows: Sequence[Row],
    trials: Sequence[Row],
    front: Sequence[Row],
    tests: Sequence[Row],
) -> Iterator[str]:
    """Sentences about what the page lacks or would hide; `trials` are `rows` as judged."""
    yield from _of_the_search(study, rows)
    if lost := sorted(row["trial_id"] for row in trials if row["at_chance"]):
        yield f"Students no better than chance on clean images: {', '.join(lost)}."
    if rows and not front:
        yield f"There is no front: {study.why_no_front}."
    full_length = of_full_length(trials)
    whole = [row for row, full in zip(trials, full_length, strict=True) if full]
    shorter = [row for row, full in zip(trials, full_length, strict=True) if not full]
    yield from _shorter([row for row in shorter if row["status"] == Status.FINISHED])
    sound = [row for row in whole if not flags_of(row["flags"])]
    yield from _above(most_robust([row for row in sound if not row["seeds"]]), most_robust(front))
    yield from _of_fewer_replicates(whole, _failed_replicates(rows))
    yield from _of_one_method(front, sound)
    if front and not tests:
        yield (
            "The test set has not been opened: everything here is validation. rkdsearch evaluate"
            " STUDY --front opens it."
        )
    yield from _of_files(study, rows)


def _of_the_search(study: StudyResults, rows: Sequence[Row]) -> Iterator[str]:
    active = sum(row["status"] in {Status.RUNNING, Status.PAUSED} for row in rows)
    if not rows:
        yield "No trial has written a row yet."
    elif active and study.writer is not None:
        yield (
            f"The search is not over: {number_of(active, 'trial')} running or paused, whose points"
            " will move."
        )
    elif active and not study.description:
        yield "The run was stopped, and no process works on it: rkdsearch train goes on with it."
    elif active:
        yield (
            "The search was stopped, and no process works on it: tune --resume goes on with"
            f" {number_of(active, 'trial')}."
        )


def _shorter(finished: Sequence[Row]) -> Iterator[str]:
    lengths = sorted({int(row[LENGTH]) for row in finished})
    if finished:
        yield (
            f"{number_of(len(finished), 'finished trial')} of a shorter full run, of"
            f" {' or '.join(map(str, lengths))} epochs, from before the space had longer ones: on"
            " no front, and drawn hollow."
        )


def _of_files(study: StudyResults, rows: Sequence[Row]) -> Iterator[str]:
    unchecked = sum(
        row["status"] == Status.FINISHED
        and row["origin"] != Origin.REPLICATE
        and row["flags"] is None
        for row in rows
    )
    if unchecked:
        yield (
            f"{unchecked} of the trials that may be on the front were not checked for signs that"
            " the validation attack failed: an earlier version trained them."
        )
    if not study.description:
        yield "There is no study.json: the search space, its seed and the teachers are unknown."
    for path in study.damaged:
        yield f"{path.name} in {path.parent.name} could not be read and is left out."


def teacher_is_at_chance(role: str, teacher: Mapping[str, Any], chance: float | None) -> bool:
    """`chance.teacher_at_chance` of an entry of `study.json`, which may hold anything."""
    clean, robust, images = (
        teacher.get(name) for name in ("clean_accuracy", "robust_accuracy", "images")
    )
    known = all(is_number(value) for value in (clean, robust, images))
    return known and teacher_at_chance(role, clean, robust, int(images or 0), chance)


def _above(single: Row | None, best: Row | None) -> Iterator[str]:
    """The sentence about a single run that is more robust than the front of replicated students."""
    if single is None or best is None or not best["seeds"]:
        return
    if float(single[ROBUST]) > float(best[ROBUST]):
        yield (
            f"The single run {title(single)} is more robust ({percent(single[ROBUST])} %) than the"
            " front, which has replicated students only: one run may be lucky."
        )


def _of_one_method(front: Sequence[Row], whole: Sequence[Row]) -> Iterator[str]:
    """The sentence about a front of one method: the best student of each other one, and why not it.

    `whole`: students of full length, without flags.
    """
    methods = {method_of(row) for row in front}
    each = [
        most_robust([row for row in whole if method_of(row) == other])
        for other in sorted({method_of(row) for row in whole} - methods)
    ]
    below = [
        f"{title(row)} ({percent(row[CLEAN])} % clean, {percent(row[ROBUST])} % robust)"
        for row in each
        if row and any(f[CLEAN] >= row[CLEAN] and f[ROBUST] >= row[ROBUST] for f in front)
    ]
    if len(methods) == 1 and below:
        yield (
            f"The front has one method, {', '.join(methods)}: one of its students is at least as"
            " accurate on both sides as the most robust one of"
            f" {'each other method' if len(below) == len(each) else 'these'}: {'; '.join(below)}."
        )


def _failed_replicates(rows: Sequence[Row]) -> Counter[int]:
    """Number of failed replicates by the ordinal of their configuration."""
    return Counter(
        row["ordinal"]
        for row in rows
        if row["origin"] == Origin.REPLICATE and row["status"] == Status.FAILED
    )


def _of_fewer_replicates(whole: Sequence[Row], lost: Mapping[int, int]) -> Iterator[str]:
    """Sentences about students with fewer finished replicates than others: they are on no front.

    `lost` are failed replicates by ordinal: all of a student's may be.
    """
    most = max((row["seeds"] or 0 for row in whole), default=0)
    begun = max((row["seeds"] + row["failed"] for row in whole if row["seeds"]), default=0)
    fewer = sorted(
        (row for row in whole if (row["seeds"] or 0) < most), key=lambda row: row["trial_id"]
    )
    left = [
        row["trial_id"] for row in fewer if row["seeds"] and row["seeds"] + row["failed"] < begun
    ]
    failed = [
        f"{row['trial_id']} ({lost[row['ordinal']]})" for row in fewer if lost.get(row["ordinal"])
    ]
    if left:
        yield (
            f"With fewer than {most} replicates, and so on no front, are {', '.join(left)}: others"
            " had better means over the same seeds."
        )
    if failed:
        yield (
            f"On no front, because replicates failed (their number): {', '.join(failed)}; nobody is"
            " judged by the seeds that went well."
        )

"""Notes at the top of the page: what is missing, unfinished, or hidden by a headline."""

from collections.abc import Mapping, Sequence
from typing import Any

from rkdsearch.reporting.traces import Row, is_number, method_of, percent, title
from rkdsearch.results.cells import CLEAN, ROBUST
from rkdsearch.results.chance import worthless
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
) -> list[str]:
    """Sentences about what the page lacks or would hide; `trials` are `rows` as judged."""
    unchecked = sum(
        row["status"] == Status.FINISHED
        and row["origin"] != Origin.REPLICATE
        and row["flags"] is None
        for row in rows
    )
    active = sum(row["status"] in {Status.RUNNING, Status.PAUSED} for row in rows)
    lost = sorted(row["trial_id"] for row in trials if row["at_chance"])
    whole = of_full_length(trials)
    shorter = [
        row
        for row, full in zip(trials, whole, strict=True)
        if row["status"] == Status.FINISHED and not full
    ]
    lengths = sorted({int(row[LENGTH]) for row in shorter})
    best = most_robust(front)
    single = most_robust(
        [row for row, full in zip(trials, whole, strict=True) if full and not row["seeds"]]
    )
    said = {
        "No trial has written a row yet.": not rows,
        f"The search is not over: {active} trials are running or paused, their points will move.": (
            bool(active) and study.writer is not None
        ),
        (
            f"The search was stopped, and no process works on it: {active} trials go on with"
            " tune --resume."
        ): (bool(active) and study.writer is None),
        f"Students no better than chance on clean images: {', '.join(lost)}.": bool(lost),
        "No trial has finished, so there is no front yet.": bool(rows) and not front,
        (
            f"{len(shorter)} finished trials have a shorter full run, of"
            f" {' or '.join(map(str, lengths))} epochs, from before the space had longer ones: they"
            " are on no front, and drawn hollow."
        ): bool(shorter),
        **_above(single, best),
        **_out_of_the_race(trials),
        **_of_one_method(front, [row for row, full in zip(trials, whole, strict=True) if full]),
        (
            "The test set has not been opened: everything here is validation. rkdsearch"
            " evaluate STUDY --front opens it."
        ): (bool(front) and not tests),
        (
            f"{unchecked} of the trials that may be on the front were not checked for signs that"
            " the validation attack failed: an earlier version trained them."
        ): bool(unchecked),
        "There is no study.json: the search space, its seed and the teachers are unknown.": (
            not study.description
        ),
        **{
            f"{path.name} in {path.parent.name} could not be read and is left out.": True
            for path in study.damaged
        },
    }
    return [text for text, true in said.items() if true]


def is_worthless(role: str, teacher: Mapping[str, Any], chance: float | None) -> bool:
    """`chance.worthless` of an entry of `study.json`, which may hold anything."""
    clean, robust, images = (
        teacher.get(name) for name in ("clean_accuracy", "robust_accuracy", "images")
    )
    known = all(is_number(value) for value in (clean, robust, images))
    return known and worthless(role, clean, robust, int(images or 0), chance)


def _above(single: Row | None, best: Row | None) -> dict[str, bool]:
    """The sentence about a single run that is more robust than the front of replicated students."""
    if single is None or best is None or not best["seeds"]:
        return {}
    text = (
        f"The single run {title(single)} is more robust ({percent(single[ROBUST])} %) than the"
        " front, which has replicated students only: one run may be lucky."
    )
    return {text: float(single[ROBUST]) > float(best[ROBUST])}


def _of_one_method(front: Sequence[Row], whole: Sequence[Row]) -> dict[str, bool]:
    """The sentence about a front of one method: the best student of each other one, and why not it.

    `whole`: students of full length. Those that no student of the front dominates are left out.
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
    text = (
        f"The front has one method, {', '.join(methods)}: one of its students is at least as"
        f" accurate on both sides as the most robust one of each other method, {'; '.join(below)}."
    )
    return {text: len(methods) == 1 and bool(below)}


def _out_of_the_race(trials: Sequence[Row]) -> dict[str, bool]:
    """The sentence about students with fewer replicates than others: they are on no front."""
    seeds = {row["trial_id"]: row["seeds"] + row["failed"] for row in trials if row["seeds"]}
    most = max(seeds.values(), default=0)
    out = sorted(trial_id for trial_id, number in seeds.items() if number < most)
    text = (
        f"With fewer than {most} replicates, and so on no front, are {', '.join(out)}: others had"
        " better means over the same seeds."
    )
    return {text: bool(out)}

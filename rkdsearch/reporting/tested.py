"""Test results for the page: the table of networks, comparisons, other images, openings."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any

from rkdsearch.reporting.traces import Row
from rkdsearch.results.cells import radius_text, records
from rkdsearch.results.chance import at_chance
from rkdsearch.results.evaluations import Comparison, compare, other_protocols
from rkdsearch.results.flags import signs
from rkdsearch.results.front import LENGTH, of_full_length
from rkdsearch.results.seed_means import compare_means, over_seeds
from rkdsearch.results.states import ATTACKS, Origin
from rkdsearch.results.study import StudyResults


def attacks_of(tests: Sequence[Row]) -> list[tuple[str, str]]:
    """The attacks that any network met, with their headings."""
    met = dict.fromkeys(row["attack"] for row in tests)
    known = [(name, heading) for name, heading in ATTACKS.items() if name in met]
    return known + [(name, name) for name in met if name not in ATTACKS]


class Kind(StrEnum):
    """Kind of a row of the table."""

    MEANS = auto()  # over a configuration's replicates
    DELIVERED = auto()  # the one network of such a configuration that is exported
    RUN = auto()  # a configuration without replicates
    TEACHER = auto()


@dataclass(frozen=True)
class TestedRow:
    """A row of the table; `tests` are its results by attack, `name` that of a teacher."""

    kind: Kind
    trial: Row | None
    on_front: bool
    tests: dict[str, dict[str, Any]]
    name: str | None = None


def tested(
    study: StudyResults, tests: Sequence[Row], trials: Sequence[Row], front: Sequence[Row]
) -> list[TestedRow]:
    """One row a network, and before it one for the means over its replicates, where it has some.

    The front comes first, then other tested trials, then teachers.
    """
    own = {row["trial_id"]: row for row in marked(study, records(study.trials))}
    by_network = _by_network(tests, own)
    means = _means(study, tests, own)
    on_front = {row["trial_id"] for row in front}
    rows: list[TestedRow] = []
    for row in (*front, *(row for row in trials if row["trial_id"] not in on_front)):
        found, over = by_network.pop(row["trial_id"], {}), means.get(row["ordinal"], {})
        place = row["trial_id"] in on_front
        if not (found or over or place):
            continue
        if row["seeds"]:
            rows.append(TestedRow(Kind.MEANS, row, place, over))
        kind = Kind.DELIVERED if row["seeds"] else Kind.RUN
        rows.append(TestedRow(kind, own[row["trial_id"]], place, found))
    return rows + [
        TestedRow(Kind.TEACHER, None, False, found, name)
        for name, found in by_network.items()
        if name not in own  # a replicate is in its configuration's means
    ]


def _by_network(
    tests: Sequence[Row], own: Mapping[str, Row]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Results of each network's best checkpoint by attack.

    Of several attack seeds the first is shown, with their number. `n` is set where networks saw
    different numbers of images.
    """
    counts = _counts(tests)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for test in tests:
        if test["checkpoint"] == "best" or test["trial_id"] not in own:
            seen = found.setdefault(test["trial_id"], {}).setdefault(
                test["attack"], {**test, "attack_seeds": 0}
            )
            seen["attack_seeds"] += 1
            seen["n"] = test["images"] if len(counts[test["attack"]]) > 1 else None
            seen["signs"] = sorted({*seen.get("signs", ()), *signs(test)})
            seen["checked"] = seen.get("checked", True) and _checked(test)
    return found


def _counts(tests: Sequence[Row]) -> dict[str, set[int]]:
    """Numbers of images, by attack."""
    counts: dict[str, set[int]] = {}
    for test in tests:
        counts.setdefault(test["attack"], set()).add(test["images"])
    return counts


def _means(
    study: StudyResults, tests: Sequence[Row], own: Mapping[str, Row]
) -> dict[int, dict[str, dict[str, Any]]]:
    """Means over each configuration's replicates, by its ordinal and by attack."""
    counts = _counts(tests)
    by_configuration: dict[int, dict[str, dict[str, Any]]] = {}
    for mean in over_seeds(study.tests, study.trials):
        runs = [
            test
            for test in tests
            if test["attack"] == mean.attack
            and (run := own.get(test["trial_id"], {})).get("origin") == Origin.REPLICATE
            and run["ordinal"] == mean.ordinal
        ]
        by_configuration.setdefault(mean.ordinal, {})[mean.attack] = {
            "mean": mean,
            "n": mean.images if len(counts.get(mean.attack, ())) > 1 else None,
            "signs": sorted({sign for test in runs for sign in signs(test)}),
            "checked": all(map(_checked, runs)),
        }
    return by_configuration


def marked(study: StudyResults, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows with `at_chance`, and `shorter`: the epochs of a shorter full run, or None."""
    return [
        {
            **row,
            "at_chance": at_chance(row, study.chance),
            "shorter": row[LENGTH] if row["trial_id"] in study.shorter else None,
        }
        for row in rows
    ]


def _checked(test: Row) -> bool:
    """True where somebody looked for signs that the attack failed; clean images have none."""
    return test["attack"] == "clean" or test["flags"] is not None


def protocol(tests: Sequence[Row]) -> list[str]:
    """Protocol of the test results, one line an attack."""
    counts: dict[tuple[str, str], set[int]] = {}
    for test in tests:
        eps = (
            ""
            if test["norm"] is None or test["eps"] is None
            else f", {test['norm']} eps = {radius_text(test['eps'])}"
        )
        attack = f"{ATTACKS.get(test['attack'], test['attack'])}{eps}"
        counts.setdefault((attack, f"of {test['of_images']} {test['split']} images"), set()).add(
            test["images"]
        )
    return sorted(
        f"{attack}: n = {' or '.join(map(str, sorted(n)))} {of}"
        for (attack, of), n in counts.items()
    )


def comparisons(study: StudyResults, trials: Sequence[Row], front: Sequence[Row]) -> dict[str, Any]:
    """Each member of the front against each baseline: delivered networks, and means over seeds.

    Of each table `rows` have the two students and their comparisons by attack; `intervals` are all
    of them, `attacks` those that any pair met. Two baselines meet once.
    """
    baselines = [
        row
        for row, whole in zip(trials, of_full_length(trials), strict=True)
        if row["origin"] == Origin.BASELINE and whole
    ]
    pairs: list[tuple[Row, Row]] = []
    for first in front:
        for second in baselines:
            both = {first["trial_id"], second["trial_id"]}
            if len(both) == 2 and all(both != {a["trial_id"], b["trial_id"]} for a, b in pairs):
                pairs.append((first, second))
    ids = [(first["trial_id"], second["trial_id"]) for first, second in pairs]
    return {
        "delivered": _table(pairs, compare(study.evaluations, ids)),
        "means": _table(pairs, compare_means(study.tests, study.trials, ids)),
    }


def _table(pairs: Sequence[tuple[Row, Row]], found: Sequence[Comparison]) -> dict[str, Any]:
    rows = [
        {
            "first": first,
            "second": second,
            "by_attack": {
                one.attack: one
                for one in found
                if (one.first, one.second) == (first["trial_id"], second["trial_id"])
            },
        }
        for first, second in pairs
    ]
    return {
        "rows": [row for row in rows if row["by_attack"]],
        "intervals": len(found),
        "attacks": attacks_of([{"attack": one.attack} for one in found]),
    }


def others(study: StudyResults) -> list[dict[str, Any]]:
    """Results on other images, or in other balls, than the network's own; the newest of each."""
    return [
        {
            **row,
            "network": row["label"] or row["trial_id"],
            "heading": ATTACKS.get(row["attack"], row["attack"])
            + (f", seed {row['attack_seed']}" if row["attack_seed"] else ""),
            "radius": f"{row['norm']} eps = {radius_text(row['eps'])}" if row["norm"] else "",
        }
        for row in records(other_protocols(study.evaluations))
    ]


def openings(study: StudyResults) -> list[dict[str, Any]]:
    """Openings of the test images, by time: when, for how many networks, by which attacks."""
    rows = [row for row in records(study.openings) if row["split"] == "test"]
    return [
        {
            **row,
            "networks": len(json.loads(row["checkpoints"] or "{}")),
            "attacks": ", ".join(json.loads(row["attacks"] or "[]")),
        }
        for row in sorted(rows, key=lambda row: str(row["opened"]))
    ]

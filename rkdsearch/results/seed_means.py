"""Test results of configurations: means over the replicates that were evaluated."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from rkdsearch.results.cells import records
from rkdsearch.results.evaluations import Comparison, protocol_of
from rkdsearch.results.intervals import (
    Estimate,
    difference_over_seeds,
    mean_over_seeds,
    pooled_variance,
)
from rkdsearch.results.seed_noise import residual_variance
from rkdsearch.results.states import Origin, Status

# Results by image of one configuration under one attack, by training seed: all on the same images.
_Runs = dict[int, str]


@dataclass(frozen=True)
class SeedMean:
    """Mean test accuracy of a configuration's replicates under one attack.

    `estimate` covers images and training seeds; its ends equal its value where no configuration has
    two replicates on the same images, so that nothing tells how seeds differ.
    """

    ordinal: int
    attack: str
    seeds: int
    images: int
    estimate: Estimate

    @property
    def has_interval(self) -> bool:
        """True where its ends differ: several seeds were measured."""
        return self.estimate.low < self.estimate.high


def over_seeds(tests: pd.DataFrame, trials: pd.DataFrame) -> list[SeedMean]:
    """Means over the replicates that were evaluated, by attack and configuration.

    `tests` are current results. Of each attack the images count that most replicates saw, of these
    the most, and the lowest attack seed.
    """
    means = []
    for attack, by_ordinal in _runs(tests, trials).items():
        spread, freedom = pooled_variance(
            [[_accuracy(run) for run in runs.values()] for runs in by_ordinal.values()]
        )
        for ordinal, runs in by_ordinal.items():
            flags = list(runs.values())
            mean = sum(map(_accuracy, flags)) / len(flags)
            estimate = (
                mean_over_seeds(flags, spread, freedom) if freedom else Estimate(mean, mean, mean)
            )
            means.append(SeedMean(ordinal, attack, len(flags), len(flags[0]), estimate))
    return means


def compare_means(
    tests: pd.DataFrame, trials: pd.DataFrame, pairs: Sequence[tuple[str, str]]
) -> list[Comparison]:
    """Compare the configurations of these pairs of trials by the training seeds that both have.

    Empty where the seeds are no blocks: two configurations with two seeds in common, at least. The
    intervals cover images and training seeds, and hold at once 19 times of 20
    (`difference_over_seeds`).
    """
    ordinals = dict(zip(trials["trial_id"], trials["ordinal"], strict=True))
    found: list[tuple[str, str, str, list[str], list[str], float, int]] = []
    for attack, by_ordinal in _runs(tests, trials).items():
        cells = [
            (ordinal, seed, _accuracy(run))
            for ordinal, runs in by_ordinal.items()
            for seed, run in runs.items()
        ]
        residual, freedom = residual_variance(*zip(*cells, strict=True))
        for first, second in pairs:
            a, b = (by_ordinal.get(int(ordinals[trial]), {}) for trial in (first, second))
            if freedom and (common := sorted(a.keys() & b.keys())):
                flags = [a[seed] for seed in common], [b[seed] for seed in common]
                found.append((first, second, attack, *flags, residual, freedom))
    return [
        Comparison(
            first,
            second,
            attack,
            len(a[0]),
            difference_over_seeds(a, b, residual, freedom, len(found)),
        )
        for first, second, attack, a, b, residual, freedom in found
    ]


def _runs(tests: pd.DataFrame, trials: pd.DataFrame) -> dict[str, dict[int, _Runs]]:
    """By attack and ordinal, the replicates' results on the images that most of them saw."""
    replicates = {
        row["trial_id"]: row
        for row in records(trials[["trial_id", "ordinal", "origin", "status", "run.seed"]])
        if row["origin"] == Origin.REPLICATE and row["status"] == Status.FINISHED
    }
    rows = [
        row
        for row in records(tests)
        if row["checkpoint"] == "best"
        and row["per_image"]
        and row["subset_sha256"] is not None
        and row["trial_id"] in replicates
    ]
    found: dict[str, dict[int, _Runs]] = {}
    for attack in dict.fromkeys(row["attack"] for row in rows):
        of_attack = [row for row in rows if row["attack"] == attack]
        seen = Counter(map(protocol_of, of_attack))
        images_and_seed = {
            protocol_of(row): (len(row["per_image"]), -int(row["attack_seed"] or 0))
            for row in of_attack
        }
        chosen = max(seen, key=lambda one: (seen[one], images_and_seed[one]))
        by_ordinal: dict[int, _Runs] = {}
        for number, row in enumerate(of_attack):
            if protocol_of(row) == chosen:
                run = replicates[row["trial_id"]]
                runs = by_ordinal.setdefault(int(run["ordinal"]), {})
                # A run that does not know its seed shares it with nobody.
                seed = -1 - number if run["run.seed"] is None else int(run["run.seed"])
                runs[seed] = row["per_image"]
        found[attack] = by_ordinal
    return found


def _accuracy(run: str) -> float:
    return run.count("1") / len(run)

"""Test results from the `evaluations` rows: which are current, and paired comparisons."""

from dataclasses import dataclass

import pandas as pd

from rkdsearch.results.intervals import Estimate, paired_difference


def current_tests(evaluations: pd.DataFrame) -> pd.DataFrame:
    """The current test results: each network's newest weights, each attack's most images.

    Among equally many images the newest result counts.
    """
    return _latest(
        _newest_weights(evaluations),
        ["trial_id", "checkpoint", "attack"],
        "subset_sha256",
        by=["images", "evaluated"],
    )


def _newest_weights(evaluations: pd.DataFrame) -> pd.DataFrame:
    """The results without those of weights that further training has since replaced."""
    return _latest(evaluations, ["trial_id", "checkpoint"], "weights_sha256", by=["evaluated"])


def _latest(rows: pd.DataFrame, groups: list[str], column: str, by: list[str]) -> pd.DataFrame:
    """The rows whose `column` equals that of their group's last row in the order of `by`.

    Nulls come first in that order.
    """
    value = rows[column].fillna("")
    ordered = rows.assign(value=value).sort_values(by, kind="stable", na_position="first")
    last = ordered.groupby(groups, dropna=False)["value"].transform("last")
    return rows[value == last.loc[rows.index]]


@dataclass(frozen=True)
class Comparison:
    """Accuracy of `first` minus accuracy of `second` on the same test images under one attack."""

    first: str
    second: str
    attack: str
    images: int
    difference: Estimate


def compare(evaluations: pd.DataFrame, first: str, second: str) -> list[Comparison]:
    """Compare two trials' best checkpoints in pairs, one comparison an attack; empty without pairs.

    Of each attack the most images that both saw count, and of these the lowest common seed.
    """
    found = _newest_weights(evaluations)
    best = found[
        (found["checkpoint"] == "best")
        & found["per_image"].notna()
        & found["subset_sha256"].notna()
    ]
    same = ["attack", "norm", "eps", "test_attack_steps", "seed", "subset_sha256"]
    sides = [best.loc[best["trial_id"] == trial, [*same, "per_image"]] for trial in (first, second)]
    # the keys of clean rows hold nulls, which pandas joins to nulls: that is meant
    pairs = sides[0].merge(sides[1], on=same)
    pairs = pairs.assign(images=pairs["per_image_x"].str.len()).sort_values(
        ["images", "seed"], ascending=[False, True], kind="stable"
    )
    pairs = pairs.drop_duplicates("attack").sort_values("attack", kind="stable")
    return [
        Comparison(first, second, attack, len(a), paired_difference(a, b))
        for attack, a, b in zip(
            pairs["attack"], pairs["per_image_x"], pairs["per_image_y"], strict=True
        )
        if len(a) == len(b) > 0
    ]

"""Test results from the `evaluations` rows: which are current, and paired comparisons."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from rkdsearch.results.cells import records
from rkdsearch.results.flags import TOLERATED, Flag, exceeds
from rkdsearch.results.intervals import Estimate, paired_difference
from rkdsearch.results.states import GRADIENT_ATTACKS


def current_tests(evaluations: pd.DataFrame) -> pd.DataFrame:
    """The current test results: each network's newest weights, each attack's most images.

    On the network's own test images and in its own ball. Among equally many images the newest
    result counts.
    """
    network_and_attack = ["trial_id", "checkpoint", "attack"]
    found = _latest(
        _newest_weights(own_protocol(evaluations)),
        network_and_attack,
        "subset_sha256",
        by=["images", "evaluated"],
    )
    # such as AutoAttack by two versions of its package
    found = _latest(found, network_and_attack, "attack_settings", by=["evaluated"])
    return found.assign(pair_flags=pair_flags(found))


def own_protocol(evaluations: pd.DataFrame) -> pd.DataFrame:
    """The results on networks' own test images and in their own balls.

    Others were asked for by `evaluate --data`, `--eps` or `--norm`.
    """
    own_ball = evaluations["own_ball"].fillna(True)
    return evaluations[(evaluations["split"] != "other") & own_ball.astype(bool)]


def other_protocols(evaluations: pd.DataFrame) -> pd.DataFrame:
    """The results on other images, or in other balls, one a network, protocol and seed.

    Of several the one of the most images, and of these the newest.
    """
    others = evaluations[~evaluations.index.isin(own_protocol(evaluations).index)]
    same = [
        "trial_id", "checkpoint", "split", "dataset", "attack", "norm", "eps", "attack_seed"
    ]  # fmt: skip
    ordered = others.sort_values(["images", "evaluated"], kind="stable")
    return ordered.drop_duplicates(same, keep="last").sort_values("evaluated", kind="stable")


def pair_flags(evaluations: pd.DataFrame) -> "pd.Series[str]":
    """Flags that only two rows can raise, JSON lists: PGD against AutoAttack on the same images.

    AutoAttack's row is flagged where another attack breaks images that it did not, the row of a
    gradient attack where AutoAttack breaks many images that it did not: Square and transfer are
    weaker by their making. Null without a pair.
    """
    same = [
        "trial_id", "checkpoint", "weights_sha256", "config_sha256", "norm", "eps", "subset_sha256"
    ]  # fmt: skip
    found: dict[object, list[str] | None] = dict.fromkeys(evaluations.index)
    # a row of few columns is taken in a tenth of the time
    attacked = evaluations.loc[evaluations["attack"] != "clean", [*same, "attack", "per_image"]]
    for _, group in attacked.groupby(same, dropna=False, sort=False):
        standard = group[group["attack"] == "autoattack"]
        for place, row in group[group["attack"] != "autoattack"].iterrows():
            for best, other in standard.iloc[:1].iterrows():
                pairs = [*zip(str(row["per_image"]), str(other["per_image"]), strict=False)]
                missed, below = pairs.count(("0", "1")), pairs.count(("1", "0"))
                for at, flag, count in (
                    (best, Flag.AUTOATTACK_MISSED, missed),
                    (place, Flag.AUTOATTACK_BELOW, below),
                ):
                    flags = found[at] = found[at] or []
                    if flag == Flag.AUTOATTACK_BELOW and row["attack"] not in GRADIENT_ATTACKS:
                        continue
                    if exceeds(count, len(pairs), TOLERATED[flag]) and flag not in flags:
                        flags.append(flag)
    texts = [None if flags is None else json.dumps(flags) for flags in found.values()]
    return pd.Series(texts, index=evaluations.index, dtype=object)


def _newest_weights(evaluations: pd.DataFrame) -> pd.DataFrame:
    """The results without those of weights that further training has since replaced.

    Nor those of a run that was named for the same weights before.
    """
    network = ["trial_id", "checkpoint"]
    newest = _latest(evaluations, network, "weights_sha256", by=["evaluated"])
    return _latest(newest, network, "config_sha256", by=["evaluated"])


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


def compare(evaluations: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
    """Compare the best checkpoints of these pairs of trials, one comparison an attack and pair.

    Of each attack the most images that both saw count, of these the lowest common attack seed, and
    of these the newest settings.
    The intervals of all comparisons hold at once 19 times of 20 (`paired_difference`).
    """
    found = _newest_weights(own_protocol(evaluations))
    by_trial: dict[str, dict[_Protocol, str]] = {}
    found = found[(found["checkpoint"] == "best") & found["subset_sha256"].notna()]
    newest = found.sort_values("evaluated", ascending=False, kind="stable", na_position="last")
    for row in records(newest):
        if row["per_image"]:
            by_trial.setdefault(row["trial_id"], {}).setdefault(protocol_of(row), row["per_image"])
    same = [
        (first, second, attack, a, b)
        for first, second in pairs
        for attack, a, b in _on_the_same_images(by_trial.get(first, {}), by_trial.get(second, {}))
    ]
    return [
        Comparison(first, second, attack, len(a), paired_difference(a, b, len(same)))
        for first, second, attack, a, b in same
    ]


# Two rows with the same values are of the same images under the same attack.
_PROTOCOL = (
    "attack", "norm", "eps", "test_attack_steps", "attack_settings", "attack_seed", "subset_sha256"
)  # fmt: skip
_Protocol = tuple[object, ...]


def protocol_of(row: Mapping[str, object]) -> _Protocol:
    """The values in which two results of the same images under the same attack agree.

    `transfer` is made on all other networks, which are never the same for two: its settings do not
    count.
    """
    ignored = {"attack_settings"} if row["attack"] == "transfer" else set()
    return tuple(None if name in ignored else row[name] for name in _PROTOCOL)


def _on_the_same_images(
    first: Mapping[_Protocol, str], second: Mapping[_Protocol, str]
) -> list[tuple[str, str, str]]:
    """Attack and both results, image by image, of each attack that both networks met."""
    met = [key for key in first if key in second and len(first[key]) == len(second[key])]
    seed = _PROTOCOL.index("attack_seed")
    met.sort(key=lambda key: (str(key[0]), -len(first[key]), str(key[seed])))
    chosen = {str(key[0]): key for key in reversed(met)}
    return [(attack, first[chosen[attack]], second[chosen[attack]]) for attack in sorted(chosen)]

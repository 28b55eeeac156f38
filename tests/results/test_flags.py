"""When a count is a flag, and what readers say of it."""

import json
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from rkdsearch.results import evaluations
from rkdsearch.results.flags import (
    COUNTS,
    MEANINGS,
    TOLERATED,
    Flag,
    exceeds,
    images_seen,
    raised,
    signs,
    signs_of_failure,
    summary,
)
from rkdsearch.results.rows import Checks

SOUND = {**dict.fromkeys(COUNTS.values(), 0), "of_other_classes": 180}


@pytest.mark.parametrize(
    ("count", "images", "share", "flagged"),
    [
        (1, 150, 0.02, False),  # one image of 150 is no flag
        (1, 1, 0.02, False),  # one of one may be chance: P = 0.02
        (2, 2, 0.02, True),  # P = 0.0004
        (9, 150, 0.02, False),  # P(X >= 9) = 0.0030
        (10, 150, 0.02, True),  # P(X >= 10) = 0.00085
        (260, 10_000, 0.02, True),
        (240, 10_000, 0.02, False),
        (0, 0, 0.02, False),
        (150, 150, 0.5, True),
    ],
)
def test_a_count_is_a_flag_where_chance_would_hardly_explain_it(
    count: int, images: int, share: float, flagged: bool
) -> None:
    assert exceeds(count, images, share) == flagged


def test_the_bound_is_the_binomial_tail() -> None:
    from scipy.stats import binom

    for count in range(201):
        tail = binom.sf(count - 1, 200, 0.05)
        assert exceeds(count, 200, 0.05) == (count > 10 and tail < 1e-3)


def checks(**counts: int | None) -> Checks:
    return Checks(images=200, right=200, **{**SOUND, **counts})


@pytest.mark.parametrize(
    ("flag", "most", "least"),
    [
        (Flag.ZERO_GRADIENTS, 11, 12),
        (Flag.MISLEADING_GRADIENTS, 21, 22),
        (Flag.WRONG_GRADIENTS, 21, 22),
        (Flag.HUGE_EPS, 21, 22),
        (Flag.MORE_STEPS_RAISE, 11, 12),
        (Flag.MORE_STEPS_NEEDED, 21, 22),
        (Flag.GRADIENT_FREE, 11, 12),
        (Flag.RANDOM, 8, 9),
    ],
)
def test_each_flag_tolerates_some_of_200_images(flag: Flag, most: int, least: int) -> None:
    assert raised(checks(**{COUNTS[flag]: most})) == ()
    assert raised(checks(**{COUNTS[flag]: least})) == (flag,)
    assert raised(checks(**{COUNTS[flag]: None})) == ()


def test_the_attacks_failures_are_counted_among_the_images_that_are_right_at_all() -> None:
    assert raised(replace(checks(without_gradient=3, right_at_huge_eps=2), right=3)) == (
        Flag.ZERO_GRADIENTS,
    )
    assert raised(replace(checks(without_gradient=3), right=100)) == ()


def test_disagreements_both_ways_are_no_trend() -> None:
    assert raised(checks(kept_by_more_steps=40, broken_by_more_steps=35)) == ()
    assert raised(checks(kept_by_more_steps=40, broken_by_more_steps=5)) == (Flag.MORE_STEPS_RAISE,)
    assert raised(checks(kept_by_more_steps=5, broken_by_more_steps=60)) == (
        Flag.MORE_STEPS_NEEDED,
    )


def test_a_constant_network_is_named_and_its_truth_at_a_huge_eps_is_no_sign() -> None:
    found = raised(checks(given_one_class=180, right_at_huge_eps=200, probabilities=200))
    assert found == (Flag.ONE_CLASS,)
    # few images of other classes tell nothing
    assert raised(checks(given_one_class=40, of_other_classes=40)) == ()
    assert raised(checks(given_one_class=150)) == ()


def test_every_flag_has_a_meaning_a_share_and_all_but_two_a_count() -> None:
    assert set(MEANINGS) == set(TOLERATED) == set(Flag)
    assert set(Flag) - set(COUNTS) == {Flag.AUTOATTACK_MISSED, Flag.AUTOATTACK_BELOW}
    assert set(COUNTS.values()) < set(Checks.__dataclass_fields__)


# ---------------------------------------------------------------------- PGD against AutoAttack


def rows(**per_image: str) -> pd.DataFrame:
    same = {"trial_id": "t", "checkpoint": "best", "weights_sha256": "w", "subset_sha256": "s"}
    same |= {"config_sha256": None}
    return pd.DataFrame(
        [
            {
                **same,
                "attack": attack,
                "norm": None if attack == "clean" else "linf",
                "eps": 0.0 if attack == "clean" else 0.1,
                "seed": 0,
                "per_image": results,
            }
            for attack, results in per_image.items()
        ]
    )


def pair_flags(**per_image: str) -> list[list[str] | None]:
    found = evaluations.pair_flags(rows(**per_image))
    return [None if text is None else json.loads(text) for text in found]


def test_pgd_that_breaks_what_autoattack_did_not_flags_autoattack() -> None:
    assert pair_flags(clean="1" * 100, pgd20="0" * 10 + "1" * 90, autoattack="1" * 100) == [
        None,
        [],
        ["autoattack_missed"],
    ]
    assert pair_flags(pgd20="0" + "1" * 99, autoattack="1" * 100) == [[], []]


def test_autoattack_that_breaks_much_more_than_pgd_flags_pgd() -> None:
    below = "0" * 25 + "1" * 75
    assert pair_flags(pgd20="1" * 100, autoattack=below) == [["autoattack_below"], []]
    # 14 points were seen between PGD-10 and AutoAttack on sound students
    assert pair_flags(pgd20="1" * 100, autoattack="0" * 14 + "1" * 86) == [[], []]


def test_attacks_that_are_weaker_by_their_making_are_not_flagged_for_it() -> None:
    below = "0" * 52 + "1" * 48
    found = pair_flags(transfer="0" * 30 + "1" * 70, square="0" * 38 + "1" * 62, autoattack=below)
    assert found == [[], [], []]
    # but what they break and AutoAttack did not is a sign about AutoAttack
    assert pair_flags(square="0" * 10 + "1" * 90, autoattack="1" * 100) == [
        [],
        ["autoattack_missed"],
    ]


def test_images_that_are_not_new_are_counted_and_no_sign_of_a_failed_attack() -> None:
    row = {"images": 1000, "seen": "7 are training images and 2 are validation images"}
    assert images_seen(row) == 9
    assert signs_of_failure(row) == []
    assert signs(row) == [
        (
            "of 1000 images 7 are training images and 2 are validation images of this network, and"
            " are not new to it"
        )
    ]
    assert images_seen({"images": 1000, "seen": None}) == 0


def test_a_row_without_its_pair_is_not_compared() -> None:
    assert pair_flags(pgd20="1" * 100) == [None]
    assert pair_flags(clean="1" * 100, autoattack="1" * 100) == [None, None]


# ------------------------------------------------------------------------------------ sentences


def test_what_was_not_looked_at_is_not_called_unseen() -> None:
    seen = {f"check.{name}": 0 for name in Checks.__dataclass_fields__} | {"check.images": 200}
    assert summary({"flags": None}) == "not checked"
    assert summary({"flags": None, "warnings": '["odd"]'}) == (
        "AutoAttack's package: odd; not checked"
    )
    assert summary({"flags": "[]", **seen}) == "none seen on 200 images"
    assert summary({"flags": "[]", **seen, "check.broken_without_gradient": None}) == (
        "none seen on 200 images; not checked: gradient_free"
    )
    assert summary({"flags": '["random"]', **seen}).startswith("random: two evaluations of")


def test_signs_are_flags_pairs_and_the_packages_warnings() -> None:
    row: dict[str, Any] = {
        "flags": '["one_class"]',
        "pair_flags": '["autoattack_below"]',
        "warnings": '["text"]',
    }
    assert [sign.partition(":")[0] for sign in signs(row)] == [
        "one_class",
        "autoattack_below",
        "AutoAttack's package",
    ]
    assert signs({"flags": '["a flag of a later version"]'}) == ["a flag of a later version"]

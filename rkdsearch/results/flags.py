"""Flags: signs that an attack failed, so that the true robust accuracy may be lower than measured.

Checks count images (`rows.Checks`); a flag is raised where a count is too large to be chance. A
sound network may have a few such images: each flag tolerates a share of the images, and is raised
where so many or more images would be seen with a probability below `CHANCE` if the true share were
the tolerated one (exact binomial). One image of 150 raises nothing. The shares were set on sound
networks and masks (docs/adr/0015-flags.md).
"""

import math
import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from rkdsearch.results.cells import flags_of
from rkdsearch.results.rows.checks import Checks

CHANCE = 1e-3  # of a flag on a sound network whose true share is the tolerated one


class Flag(StrEnum):
    """A sign that an attack failed. Each value is the text in the column `flags`."""

    ZERO_GRADIENTS = "zero_gradients"
    MISLEADING_GRADIENTS = "misleading_gradients"
    WRONG_GRADIENTS = "wrong_gradients"
    HUGE_EPS = "huge_eps"
    MORE_STEPS_RAISE = "more_steps_raise"
    MORE_STEPS_NEEDED = "more_steps_needed"
    GRADIENT_FREE = "gradient_free"
    RANDOM = "random"
    PROBABILITIES = "probabilities"
    ONE_CLASS = "one_class"
    AUTOATTACK_MISSED = "autoattack_missed"
    AUTOATTACK_BELOW = "autoattack_below"


MEANINGS: Mapping[Flag, str] = MappingProxyType(
    {
        Flag.ZERO_GRADIENTS: (
            "the gradient is zero or not finite in every loss of the attack, which cannot move"
        ),
        Flag.MISLEADING_GRADIENTS: "a small step along the gradient does not raise the loss",
        Flag.WRONG_GRADIENTS: (
            "the gradient is not the slope of the loss: the loss rises otherwise than it foretells"
        ),
        Flag.HUGE_EPS: (
            "the network stays right where every image may become the same grey one: the attack"
            " does not find what is surely there"
        ),
        Flag.MORE_STEPS_RAISE: "accuracy is higher under more steps from another start",
        Flag.MORE_STEPS_NEEDED: "accuracy is much lower under more steps from another start",
        Flag.GRADIENT_FREE: (
            "an attack without gradients (a short Square) breaks images that the gradient's did not"
        ),
        Flag.RANDOM: (
            "two evaluations of the same images differ: the network is random, depends on the other"
            " images of its batch, or on whether gradients are recorded"
        ),
        Flag.PROBABILITIES: (
            "outputs look like probabilities or votes (not negative, of equal sums), not logits"
        ),
        Flag.ONE_CLASS: "(nearly) all images are given one class",
        Flag.AUTOATTACK_MISSED: "another attack breaks images that AutoAttack did not",
        Flag.AUTOATTACK_BELOW: "AutoAttack breaks many images that this attack did not",
    }
)

# The counts that each flag is raised by; those of two rows, of PGD and of AutoAttack, have none.
COUNTS: Mapping[Flag, str] = MappingProxyType(
    {
        Flag.ZERO_GRADIENTS: "without_gradient",
        Flag.MISLEADING_GRADIENTS: "not_uphill",
        Flag.WRONG_GRADIENTS: "unlike_differences",
        Flag.HUGE_EPS: "right_at_huge_eps",
        Flag.MORE_STEPS_RAISE: "kept_by_more_steps",
        Flag.MORE_STEPS_NEEDED: "broken_by_more_steps",
        Flag.GRADIENT_FREE: "broken_without_gradient",
        Flag.RANDOM: "differing",
        Flag.PROBABILITIES: "probabilities",
        Flag.ONE_CLASS: "given_one_class",
    }
)
NOT_CHECKED = "not checked"

# The share that a sound network may have, by flag: of the right images in the first four, of those
# of other classes in `ONE_CLASS`, of all images in the others.
TOLERATED: Mapping[Flag, float] = MappingProxyType(
    {
        Flag.ZERO_GRADIENTS: 0.02,
        Flag.MISLEADING_GRADIENTS: 0.05,
        Flag.WRONG_GRADIENTS: 0.05,
        Flag.HUGE_EPS: 0.05,
        Flag.MORE_STEPS_RAISE: 0.02,
        Flag.MORE_STEPS_NEEDED: 0.05,
        Flag.GRADIENT_FREE: 0.02,
        Flag.RANDOM: 0.01,
        Flag.PROBABILITIES: 0.5,
        Flag.ONE_CLASS: 0.9,
        Flag.AUTOATTACK_MISSED: 0.01,
        Flag.AUTOATTACK_BELOW: 0.1,
    }
)


def exceeds(count: int, images: int, share: float) -> bool:
    """True where `count` of `images` or more is no chance if the true share is at most `share`.

    P(X >= count) < `CHANCE` for X binomial. False where no image was looked at.
    """
    return count > share * images and _at_least(count, images, share) < CHANCE


def _at_least(count: int, images: int, share: float) -> float:
    """P(X >= count) of a binomial number of `images` trials, in logarithms: none underflows."""
    logs = (
        math.lgamma(images + 1)
        - math.lgamma(k + 1)
        - math.lgamma(images - k + 1)
        + k * math.log(share)
        + (images - k) * math.log1p(-share)
        for k in range(count, images + 1)
    )
    return math.fsum(map(math.exp, logs))


def raised(checks: Checks) -> tuple[Flag, ...]:
    """The flags that these counts raise. What was not looked at raises none."""
    right = checks.right

    def too_many(flag: Flag, count: int | None, of: int = checks.images) -> bool:
        return count is not None and exceeds(count, of, TOLERATED[flag])

    one_class = too_many(Flag.ONE_CLASS, checks.given_one_class, checks.of_other_classes or 0)
    found = {
        Flag.ZERO_GRADIENTS: too_many(Flag.ZERO_GRADIENTS, checks.without_gradient, right),
        Flag.MISLEADING_GRADIENTS: too_many(Flag.MISLEADING_GRADIENTS, checks.not_uphill, right),
        Flag.WRONG_GRADIENTS: too_many(Flag.WRONG_GRADIENTS, checks.unlike_differences, right),
        # one class for all images is the truth of a constant network, at any eps
        Flag.HUGE_EPS: too_many(Flag.HUGE_EPS, checks.right_at_huge_eps, right) and not one_class,
        Flag.MORE_STEPS_RAISE: too_many(
            Flag.MORE_STEPS_RAISE, _net(checks.kept_by_more_steps, checks.broken_by_more_steps)
        ),
        Flag.MORE_STEPS_NEEDED: too_many(
            Flag.MORE_STEPS_NEEDED, _net(checks.broken_by_more_steps, checks.kept_by_more_steps)
        ),
        Flag.GRADIENT_FREE: too_many(Flag.GRADIENT_FREE, checks.broken_without_gradient),
        Flag.RANDOM: too_many(Flag.RANDOM, checks.differing),
        # constant outputs have equal sums
        Flag.PROBABILITIES: too_many(Flag.PROBABILITIES, checks.probabilities) and not one_class,
        Flag.ONE_CLASS: one_class,
    }
    return tuple(flag for flag, on in found.items() if on)


def _net(more: int | None, fewer: int | None) -> int | None:
    """The surplus of one kind of disagreement over the other."""
    return None if more is None or fewer is None else max(0, more - fewer)


def signs_of_failure(row: Mapping[str, Any]) -> list[str]:
    """Sentences about a row of `trials/` or `evaluations/`: its flags, and AutoAttack's warnings.

    `pair_flags`, where the row has them, are those of `evaluations.pair_flags`.
    """
    flags = [*flags_of(row.get("flags")), *flags_of(row.get("pair_flags"))]
    warnings = flags_of(row.get("warnings"))
    return [sentence(flag) for flag in flags] + [f"AutoAttack's package: {w}" for w in warnings]


def signs(row: Mapping[str, Any]) -> list[str]:
    """`signs_of_failure`, and how many of an evaluation's images were seen in training."""
    found = signs_of_failure(row)
    if isinstance(seen := row.get("seen"), str):
        found.append(f"of {row['images']} images {seen} of this network, and are not new to it")
    return found


def images_seen(row: Mapping[str, Any]) -> int:
    """Number of an evaluation's images that the network was trained or chosen on."""
    seen = row.get("seen")
    return sum(map(int, re.findall(r"(\d+) are ", seen))) if isinstance(seen, str) else 0


def signs_of_teacher(facts: Mapping[str, Any]) -> list[str]:
    """Sentences about a teacher's entry in `study.json`, which may hold anything."""
    try:
        return [sentence(flag) for flag in raised(Checks(**facts["checks"]))]
    except (KeyError, TypeError):  # an earlier version wrote it, or a stranger
        return []


def sentence(flag: str) -> str:
    """A flag with its meaning; the text itself where no flag has this name."""
    return f"{flag}: {MEANINGS[Flag(flag)]}" if flag in MEANINGS else flag


def summary(row: Mapping[str, Any]) -> str:
    """Text about signs of a failed attack: the flags' names, or what was and was not seen."""
    if row.get("flags") is None:
        return "; ".join([*signs(row), NOT_CHECKED])
    if found := signs(row):
        return "; ".join(found)
    left_out = [flag.value for flag, name in COUNTS.items() if row.get(f"check.{name}") is None]
    seen = f"none seen on {row['check.images']} images" if row.get("check.images") else "none seen"
    return seen + (f"; {NOT_CHECKED}: {', '.join(left_out)}" if left_out else "")


def keep_off(raised: Collection[str], *, replicate: bool, never_learned: bool) -> bool:
    """True where these flags keep a run's configuration off the front.

    A replicate that gives all images one class, or never learned, did not mislead the attack: its
    seed failed, and its accuracies are in the means.
    """
    return bool(raised) and not (replicate and (never_learned or Flag.ONE_CLASS in raised))

"""95 % intervals for accuracies over the draw of images; they do not cover training seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_Z = 1.959963984540054  # the normal quantile of 0.975


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval, fractions of 1."""

    value: float
    low: float
    high: float


def accuracy(correct: int, images: int) -> Estimate:
    """correct / images with Wilson's score interval (1927), which is valid near 0 and 1 as well.

    Raises ValueError unless 0 <= correct <= images and images > 0.
    """
    if not 0 <= correct <= images or images == 0:
        raise ValueError(f"need 0 <= correct <= images and images > 0, got {correct} of {images}")
    share, z2 = correct / images, _Z**2
    centre = (share + z2 / (2 * images)) / (1 + z2 / images)
    half = _Z * math.sqrt(share * (1 - share) / images + z2 / (4 * images**2)) / (1 + z2 / images)
    # at the ends Wilson's limit is the end itself: rounding must not move it
    return Estimate(
        share, 0.0 if correct == 0 else centre - half, 1.0 if correct == images else centre + half
    )


def paired_difference(a: Sequence[bool] | str, b: Sequence[bool] | str) -> Estimate:
    """Accuracy of `a` minus accuracy of `b` on the same images: flags, or text of 0 and 1.

    Raises ValueError unless both have equally many flags, and at least one.
    The adjusted Wald interval of Bonett and Price (J. Educ. Behav. Stat. 37, 2012): one pair is
    added to each of the two kinds of disagreement, and only disagreements count, so it is narrower
    than two separate intervals.
    """
    right_a, right_b = ([flag in (True, "1") for flag in flags] for flags in (a, b))
    if len(right_a) != len(right_b) or not right_a:
        raise ValueError(
            f"need as many flags on both sides, and at least one, got {len(right_a)} and"
            f" {len(right_b)}"
        )
    n = len(right_a)
    only_a = sum(x and not y for x, y in zip(right_a, right_b, strict=True))
    only_b = sum(y and not x for x, y in zip(right_a, right_b, strict=True))
    p_a, p_b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    centre = p_a - p_b
    half = _Z * math.sqrt((p_a + p_b - centre**2) / (n + 2))
    return Estimate((only_a - only_b) / n, max(-1.0, centre - half), min(1.0, centre + half))

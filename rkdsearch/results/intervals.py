"""95 % intervals for accuracies: over the draw of images, and of training seeds where said."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance

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


def paired_difference(
    a: Sequence[bool] | str, b: Sequence[bool] | str, intervals: int = 1
) -> Estimate:
    """Accuracy of `a` minus accuracy of `b` on the same images: flags, or text of 0 and 1.

    Raises ValueError unless both have equally many flags, and at least one.
    The adjusted Wald interval of Bonett and Price (J. Educ. Behav. Stat. 37, 2012): one pair is
    added to each of the two kinds of disagreement, and only disagreements count, so it is narrower
    than two separate intervals. Of so many `intervals` that are read together, all hold at once 19
    times of 20 (Bonferroni): each is one of 1 - 0.05 / `intervals`.
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
    z = _Z if intervals == 1 else NormalDist().inv_cdf(1 - 0.025 / intervals)
    half = z * math.sqrt((p_a + p_b - centre**2) / (n + 2))
    return Estimate((only_a - only_b) / n, max(-1.0, centre - half), min(1.0, centre + half))


def mean_over_seeds(runs: Sequence[str], seed_variance: float, freedom: int) -> Estimate:
    """Mean accuracy of runs with different training seeds on the same images, texts of 0 and 1.

    The interval is over both draws: of images, and of training seeds, whose variance between runs
    is given with its degrees of freedom (`pooled_variance`). Both variances of the mean are added,
    and Student's t has Satterthwaite's (1946) degrees of freedom. What single images add to the
    variance between runs is in both, so it is wide rather than narrow. Raises ValueError unless the
    runs have equally many flags, two at least, and `freedom` is positive.
    """
    n = len(runs[0])
    if n < 2 or freedom < 1 or any(len(run) != n for run in runs):
        raise ValueError(
            f"need two images or more, the same for each run, and a seed variance of known freedom,"
            f" got {[len(run) for run in runs]} images and {freedom}"
        )
    from scipy.special import stdtrit  # imported here: most readers need no t

    of_images = [fmean(flag == "1" for flag in flags) for flags in zip(*runs, strict=True)]
    mean, by_seeds, by_images = fmean(of_images), seed_variance / len(runs), variance(of_images) / n
    both = by_seeds + by_images
    if both == 0:
        return Estimate(mean, mean, mean)
    effective = both**2 / (by_seeds**2 / freedom + by_images**2 / (n - 1))
    half = float(stdtrit(effective, 0.975)) * math.sqrt(both)
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half))


def pooled_variance(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Variance within groups, and its degrees of freedom; (0, 0) where no group has two values."""
    freedom = sum(len(group) - 1 for group in groups if len(group) > 1)
    within = sum((len(group) - 1) * variance(group) for group in groups if len(group) > 1)
    return (within / freedom, freedom) if freedom else (0.0, 0)

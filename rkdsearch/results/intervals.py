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


def wilson(correct: int, images: int) -> Estimate:
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
    """Accuracy of `a` minus accuracy of `b` on the same images: booleans, or text of 0 and 1.

    Raises ValueError unless both have equally many, and at least one.
    The adjusted Wald interval of Bonett and Price (J. Educ. Behav. Stat. 37, 2012): one pair is
    added to each of the two kinds of disagreement, and only disagreements count, so it is narrower
    than two separate intervals. Of so many `intervals` that are read together, all hold at once 19
    times of 20 (Bonferroni): each is one of 1 - 0.05 / `intervals`.
    """
    right_a, right_b = ([one in (True, "1") for one in side] for side in (a, b))
    if len(right_a) != len(right_b) or not right_a:
        raise ValueError(
            f"need as many images on both sides, and at least one, got {len(right_a)} and"
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
    is given with its degrees of freedom (`pooled_variance`). Two images that all runs have right
    and two that all have wrong are added, as Agresti and Coull (1998) do, so that accuracies of 0
    and 1 are not certain. What single images add to the variance between runs is in both, so the
    interval is wide rather than narrow. Raises ValueError unless the runs have equally many flags,
    at least one, and `freedom` is positive.
    """
    _check_runs(runs, freedom)
    of_images = [fmean(flag == "1" for flag in flags) for flags in zip(*runs, strict=True)]
    adjusted = [*of_images, 1.0, 1.0, 0.0, 0.0]
    half = _over_both(
        variance(adjusted) / len(adjusted), len(of_images), seed_variance / len(runs), freedom
    )
    centre = fmean(adjusted)
    return Estimate(fmean(of_images), max(0.0, centre - half), min(1.0, centre + half))


def difference_over_seeds(
    a: Sequence[str], b: Sequence[str], residual: float, freedom: int, intervals: int = 1
) -> Estimate:
    """Mean accuracy of runs `a` minus that of `b`: the same training seeds and images, in order.

    The interval is over both draws. A seed that is good for `a` is partly good for `b`, so what
    counts is the `residual` variance of an additive model of configuration and seed, with its
    degrees of freedom. One image is added to each kind of disagreement, as in `paired_difference`,
    and so many `intervals` hold at once. Raises ValueError as `mean_over_seeds` does.
    """
    _check_runs([*a, *b], freedom)
    if len(a) != len(b):
        raise ValueError(f"need as many runs on both sides, got {len(a)} and {len(b)}")
    of_images = [
        (flags[: len(a)].count("1") - flags[len(a) :].count("1")) / len(a)
        for flags in zip(*a, *b, strict=True)
    ]
    adjusted = [*of_images, 1.0, -1.0]
    half = _over_both(
        variance(adjusted) / len(adjusted),
        len(of_images),
        2 * residual / len(a),
        freedom,
        intervals,
    )
    centre = fmean(adjusted)
    return Estimate(fmean(of_images), max(-1.0, centre - half), min(1.0, centre + half))


def _check_runs(runs: Sequence[str], freedom: int) -> None:
    lengths = [len(run) for run in runs]
    if freedom < 1 or len(set(lengths)) != 1 or not lengths[0]:
        raise ValueError(
            "need runs on the same images, at least one, and a variance over seeds of known"
            f" freedom, got {lengths} images and {freedom}"
        )


def _over_both(
    by_images: float, images: int, by_seeds: float, freedom: int, intervals: int = 1
) -> float:
    """Half an interval from two variances of a mean; Satterthwaite (1946) for Student's t."""
    from scipy.special import stdtrit  # imported here: most readers need no t

    both = by_images + by_seeds
    effective = both**2 / (by_images**2 / images + by_seeds**2 / freedom)
    return float(stdtrit(effective, 1 - 0.025 / intervals)) * math.sqrt(both)


def pooled_variance(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Variance within groups, and its degrees of freedom; (0, 0) where no group has two values."""
    freedom = sum(len(group) - 1 for group in groups if len(group) > 1)
    within = sum((len(group) - 1) * variance(group) for group in groups if len(group) > 1)
    return (within / freedom, freedom) if freedom else (0.0, 0)

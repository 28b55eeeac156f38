"""Dominance between points (rows) of several maximised objectives; a NaN excludes its point.

moocore computes; this module handles signs, missing values and empty cases.
"""

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray


def non_dominated(points: ArrayLike) -> NDArray[np.bool_]:
    """Mask (N,) of the points (N, D) that no other point dominates. Equal points are all kept."""
    values, known = _matrix(points)
    mask = np.zeros(len(values), dtype=bool)
    if known.any():
        mask[known] = moocore.is_nondominated(values[known], maximise=True, keep_weakly=True)
    return mask


def ranks(points: ArrayLike) -> NDArray[np.int64]:
    """Number (N,) of the front that each point (N, D) is on.

    0 is the best front, 1 the best without front 0, and so on; -1 for a point with a NaN.
    """
    values, known = _matrix(points)
    rank = np.full(len(values), -1, dtype=np.int64)
    if known.any():
        rank[known] = moocore.pareto_rank(values[known], maximise=True)
    return rank


def hypervolume(points: ArrayLike, reference: Sequence[float] = (0.0, 0.0)) -> float:
    """Volume that the points (N, D) dominate above `reference` (D,); 0 without points.

    Its unit is the product of the objectives' units.
    """
    values, known = _matrix(points)
    return (
        float(
            moocore.hypervolume(
                values[known], ref=np.asarray(reference, dtype=float), maximise=True
            )
        )
        if known.any()
        else 0.0
    )


def attainment(fronts: Sequence[ArrayLike], share: float = 0.5) -> NDArray[np.float64]:
    """Best points (M, D) that at least `share` of the fronts, each (N_i, D), attain; sorted.

    `share` is a fraction of 1; 0.5 gives the front that the median seed attains. Empty where too
    few fronts have any point. Raises ValueError where `share` is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    kept = [values[known] for values, known in map(_matrix, fronts)]
    width = max((values.shape[1] for values in kept), default=2)
    enough = int(np.ceil(share * len(kept) - 1e-9))  # 0.1 of 30 is 3, not 4
    filled = [values for values in kept if len(values)]
    if not filled or len(filled) < enough:
        return np.empty((0, width))
    sets = np.repeat(np.arange(len(filled)), [len(values) for values in filled])
    # moocore minimises here; the share is of all fronts, its percentage of those with points
    surface = moocore.eaf(-np.concatenate(filled), sets, percentiles=[100.0 * enough / len(filled)])
    best = -surface[:, :width]
    best = np.unique(best[non_dominated(best)], axis=0)
    return best + 0.0  # -0.0 becomes 0.0


def _matrix(points: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values = np.atleast_2d(np.asarray(points, dtype=float))
    if values.size == 0:
        values = values.reshape(0, max(values.shape[-1], 2))
    return values, ~np.isnan(values).any(axis=1)

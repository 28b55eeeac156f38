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


def _matrix(points: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values = np.atleast_2d(np.asarray(points, dtype=float))
    if values.size == 0:
        values = values.reshape(0, max(values.shape[-1], 2))
    return values, ~np.isnan(values).any(axis=1)

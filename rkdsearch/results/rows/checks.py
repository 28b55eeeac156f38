"""Columns of the checks behind flags: how many images showed each sign of a failed attack."""

from dataclasses import dataclass
from typing import Annotated

from rkdsearch.results.columns import Cell

_N = "images"
_SOURCE = "`flags.check`"


@dataclass(frozen=True, kw_only=True)
class Checks:
    """Counts of images; None for what was not looked at. `results.flags` says what is too many."""

    images: Annotated[int, Cell("images that were looked at, spread over the set", _SOURCE, _N)]
    right: Annotated[int, Cell("of these, right without attack", _SOURCE, _N)]
    without_gradient: Annotated[
        int | None,
        Cell(
            "right images whose gradient at the attack's start is, in every loss of the attack, not"
            " finite, or zero, everywhere or on pixels whose small change moves the logits",
            _SOURCE,
            _N,
        ),
    ] = None
    not_uphill: Annotated[
        int | None,
        Cell(
            "right images on which steps of eps/100 and of eps/10 along the gradient raise neither"
            " the loss nor the margin",
            _SOURCE,
            _N,
        ),
    ] = None
    unlike_differences: Annotated[
        int | None,
        Cell(
            "right images whose gradient near the attack's start is not the slope of the margin:"
            " along 8 random segments the rise that it foretells has a correlation below 0.9 with"
            " the rise that is seen",
            _SOURCE,
            _N,
        ),
    ] = None
    right_at_huge_eps: Annotated[
        int | None,
        Cell(
            "images still right under the attack where its ball holds the grey image: eps 1/2 in"
            " linf, half the root of the number of pixels and channels in l2",
            _SOURCE,
            _N,
        ),
    ] = None
    kept_by_more_steps: Annotated[
        int | None,
        Cell(
            "images that the attack breaks, and twice its steps from another start do not",
            _SOURCE,
            _N,
        ),
    ] = None
    broken_by_more_steps: Annotated[
        int | None,
        Cell(
            "images that the attack leaves right, and twice its steps from another start break",
            _SOURCE,
            _N,
        ),
    ] = None
    broken_without_gradient: Annotated[
        int | None,
        Cell("images that Square (100 queries) breaks, and neither of these two", _SOURCE, _N),
    ] = None
    differing: Annotated[
        int | None,
        Cell(
            "images whose logits differ when they are evaluated again: in another order, and with"
            " gradients recorded",
            _SOURCE,
            _N,
        ),
    ] = None
    probabilities: Annotated[
        int | None,
        Cell(
            "images whose outputs are not negative and have the same sum as all others'",
            _SOURCE,
            _N,
        ),
    ] = None
    given_one_class: Annotated[
        int | None,
        Cell("images of other classes that are given the most frequent class", _SOURCE, _N),
    ] = None
    of_other_classes: Annotated[
        int | None, Cell("images of other classes than that one", _SOURCE, _N)
    ] = None

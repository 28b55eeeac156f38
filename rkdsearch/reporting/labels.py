"""Placement of a picture's labels, so that none covers another or a mark."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

Side = Literal[
    "right", "left", "top", "bottom", "top right", "bottom right", "top left", "bottom left"
]
Box = tuple[float, float, float, float]

_MARK = 7.0  # pixels from a mark's centre to its edge
_LETTER = 0.56  # width of a letter, as a fraction of the text's size


def place(
    anchors: Sequence[tuple[float, float]],
    texts: Sequence[str],
    marks: Sequence[tuple[float, float]],
    frame: tuple[float, float],
    size: float = 11,
) -> list[Side | None]:
    """The first free side of its anchor for each text; None without room or outside the frame.

    Anchors and marks (x, y) and the frame (width, height) are in pixels, with y downwards; `size`
    is the text's height in pixels.
    """
    taken: list[Box] = [(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in marks]
    sides: list[Side | None] = []
    for (x, y), text in zip(anchors, texts, strict=True):
        width, height, gap = _LETTER * size * len(text), 1.2 * size, _MARK + 1
        columns = {"right": x + gap, "left": x - gap - width, "": x - width / 2}
        rows = {"top": y - gap - height, "bottom": y + gap, "": y - height / 2}
        # diagonal neighbours may stand closer: the mark's corner is empty
        boxes: dict[Side, Box] = {}
        for side in get_args(Side):
            row, column = (
                next((part for part in parts if part in side), "")
                for parts in (("top", "bottom"), ("left", "right"))
            )
            left, top = columns[column], rows[row]
            if row and column:
                left, top = (
                    left + (-5 if column == "right" else 5),
                    top + (5 if row == "top" else -5),
                )
            boxes[side] = (left, top, left + width, top + height)
        free = [
            side
            for side, box in boxes.items()
            if _inside(box, frame) and not any(_overlap(box, other) for other in taken)
        ]
        sides.append(free[0] if free else None)
        if free:
            taken.append(boxes[free[0]])
    return sides


def along(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points (x, y) on the front's edge: down from each corner, then right to the next."""
    return [
        point
        for (x0, y0), (x1, y1) in pairwise(corners)
        for point in [*between((x0, y0), (x0, y1)), *between((x0, y1), (x1, y1))]
    ]


def between(
    start: tuple[float, float], end: tuple[float, float], spacing: float = 8
) -> list[tuple[float, float]]:
    """Points (x, y) every `spacing` pixels on the straight line from `start` on."""
    (x0, y0), (x1, y1) = start, end
    length = math.hypot(x1 - x0, y1 - y0)
    shares = [n * spacing / length for n in range(int(length / spacing) + 1)] if length else [0.0]
    return [(x0 + share * (x1 - x0), y0 + share * (y1 - y0)) for share in shares]


def _inside(box: Box, frame: tuple[float, float]) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= frame[0] and box[3] <= frame[1]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]

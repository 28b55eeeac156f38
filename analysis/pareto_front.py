"""Draw the front of a study, clean against robust accuracy, as one SVG.

    python analysis/pareto_front.py studies/digits --out docs/front.svg

Reads the study's Parquet files (and, for its title and teachers, `study.json`) and nothing else.
Everything drawn is validation.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from rkdsearch.atomic_file import replace_file
from rkdsearch.errors import RkdError, StudyError
from rkdsearch.reporting import labels, pareto_figure, traces
from rkdsearch.reporting.traces import Row
from rkdsearch.results.cells import CLEAN, ROBUST, records
from rkdsearch.results.cost import counted
from rkdsearch.results.front import configurations, of_full_length
from rkdsearch.results.study import StudyResults, read_study

WIDTH, HEIGHT = 960, 616
# the axes' rectangle; the legend stands to its right, the caption below
LEFT, TOP, RIGHT, BOTTOM = 78, 84, 716, 506
INK, QUIET, GRID = "#1b1f24", "#5c6570", "#e6e9ed"


def draw(study: StudyResults) -> str:
    """The picture's text. Raises StudyError where no trial has been measured yet."""
    trials = records(configurations(study.trials))
    rows = [row for row in trials if row[CLEAN] is not None and row[ROBUST] is not None]
    if not rows:
        raise StudyError(
            f"{study.folder}: no trial has been measured yet, so there is nothing to draw; let the"
            " search run on"
        )
    front = pareto_figure.edge_of(records(study.front))
    whole = {id(row): full for row, full in zip(rows, of_full_length(rows), strict=True)}
    teachers = pareto_figure.drawable(study.description.get("teachers"))
    view = pareto_figure.closer_view(rows, teachers)
    (x0, x1), (y0, y1) = view[CLEAN], view[ROBUST]

    def at(clean: float, robust: float) -> tuple[float, float]:
        return LEFT + (clean - x0) / (x1 - x0) * (RIGHT - LEFT), BOTTOM - (robust - y0) / (
            y1 - y0
        ) * (BOTTOM - TOP)

    seen = [row for row in rows if x0 <= row[CLEAN] <= x1 and y0 <= row[ROBUST] <= y1]
    style = traces.looks([traces.method_of(row) for row in rows])
    parts = [
        _axes(view, at),
        *(
            _bars(row, style[traces.method_of(row)].colour, at)
            for row in seen
            if pareto_figure.bars(row)
        ),
        _edge(front, at),
    ]
    # stopped trials first, baselines last: what matters lies on top
    for row in sorted(seen, key=lambda row: (whole[id(row)], row["origin"] == "baseline")):
        look = style[traces.method_of(row)]
        shape = look.baseline if row["origin"] == "baseline" else look.shape
        parts.append(
            _mark(
                at(row[CLEAN], row[ROBUST]),
                shape,
                look.colour,
                full=whole[id(row)],
                tip=_tip(row),
            )
        )
    parts += _labels(
        [row for row in seen if row["origin"] == "baseline" and whole[id(row)]],
        seen,
        front,
        at,
    )
    places = {
        role: at(teacher["clean_accuracy"], teacher["robust_accuracy"])
        for role, teacher in teachers.items()
    }
    inside = {
        role: (x, y) for role, (x, y) in places.items() if LEFT <= x <= RIGHT and TOP <= y <= BOTTOM
    }
    parts += [
        _mark(place, "star", "#ffffff", full=True, tip=f"{role} teacher")
        for role, place in inside.items()
    ]
    parts.append(_legend(style, teacher=bool(inside)))
    parts.append(
        _text(
            LEFT,
            36,
            f"{study.name}: clean against robust accuracy of students",
            size=20,
            weight=600,
        )
    )
    parts.append(
        _text(
            LEFT,
            60,
            f"{counted(study.trials, running=False)}, hypervolume {study.volume:.4f}",
            colour=QUIET,
        )
    )
    parts += [
        _text(LEFT, BOTTOM + 66 + 16 * n, line, colour=QUIET, size=11.5)
        for n, line in enumerate(_caption(study, rows, len(rows) - len(seen)))
    ]
    inner = "\n".join(parts)
    font = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        f' font-family="{font}" font-size="13" role="img">\n<title>{escape(study.name)}: the front'
        f' of clean and robust accuracy</title>\n<rect width="{WIDTH}" height="{HEIGHT}" rx="10"'
        f' fill="#ffffff"/>\n{inner}\n</svg>\n'
    )


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round values between low and high, about `count` of them."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= 0.999 * raw)
    return [round(n * step, 10) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _axes(view: pareto_figure.View, at: pareto_figure.Place) -> str:
    (x0, x1), (y0, y1) = view[CLEAN], view[ROBUST]
    parts = []
    for value in ticks(x0, x1):
        x = at(value, y0)[0]
        parts.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{BOTTOM}" stroke="{GRID}"/>')
        parts.append(_text(x, BOTTOM + 20, f"{100 * value:.4g} %", anchor="middle", colour=QUIET))
    for value in ticks(y0, y1):
        y = at(x0, value)[1]
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{RIGHT}" y2="{y:.1f}" stroke="{GRID}"/>')
        parts.append(_text(LEFT - 10, y + 4, f"{100 * value:.4g} %", anchor="end", colour=QUIET))
    parts.append(f'<path d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}" fill="none" stroke="{QUIET}"/>')
    parts.append(
        _text((LEFT + RIGHT) / 2, BOTTOM + 44, "clean accuracy (validation)", anchor="middle")
    )
    middle = (TOP + BOTTOM) / 2
    parts.append(
        '<g transform="rotate(-90 20'
        f' {middle})">{_text(20, middle, "robust accuracy (validation)", anchor="middle")}</g>'
    )
    clip = f'<rect x="{LEFT}" y="{TOP}" width="{RIGHT - LEFT}" height="{BOTTOM - TOP}"/>'
    return "\n".join([f'<clipPath id="inside">{clip}</clipPath>', *parts])


def _edge(front: Sequence[Row], at: pareto_figure.Place) -> str:
    """The front's edge: down, then right to the next point, since a point dominates below and left.

    It may leave the picture, towards undefended students.
    """
    places = [at(row[CLEAN], row[ROBUST]) for row in front]
    if not places:
        return ""
    path = f"M{places[0][0]:.1f} {places[0][1]:.1f}" + "".join(
        f"V{y:.1f}H{x:.1f}" for x, y in places[1:]
    )
    return (
        f'<path d="{path}" clip-path="url(#inside)" fill="none" stroke="{INK}" stroke-width="1.8"/>'
    )


def _bars(row: Row, colour: str, at: pareto_figure.Place) -> str:
    ends = [(*at(*start), *at(*end)) for start, end in pareto_figure.bars(row)]
    path = "".join(f"M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" for x0, y0, x1, y1 in ends)
    return (
        f'<path d="{path}" clip-path="url(#inside)" fill="none" stroke="{colour}"'
        ' stroke-width="1.3" opacity="0.7"/>'
    )


def _labels(
    rows: Sequence[Row], seen: Sequence[Row], front: Sequence[Row], at: pareto_figure.Place
) -> list[str]:
    def inside(clean: float, robust: float) -> tuple[float, float]:
        x, y = at(clean, robust)
        return x - LEFT, y - TOP

    texts = [traces.title(row) for row in rows]
    anchors = [inside(row[CLEAN], row[ROBUST]) for row in rows]
    sides = labels.place(
        anchors, texts, pareto_figure.obstacles(seen, front, inside), (RIGHT - LEFT, BOTTOM - TOP)
    )
    found = []
    for row, text, side in zip(rows, texts, sides, strict=True):
        if side is not None:
            x, y = at(row[CLEAN], row[ROBUST])
            diagonal = 5 if " " in side else 0
            down = 19 - diagonal if "bottom" in side else -11 + diagonal if "top" in side else 4
            right, anchor = (
                (10 - diagonal, "start")
                if "right" in side
                else (diagonal - 10, "end")
                if "left" in side
                else (0, "middle")
            )
            found.append(_text(x + right, y + down, text, anchor=anchor, size=11))
    return found


def _mark(place: tuple[float, float], shape: str, colour: str, *, full: bool, tip: str = "") -> str:
    diamond = "diamond" in shape
    radius = 7.5 if diamond else {"star": 11.0, "circle": 4.6}.get(shape, 5.8)
    strong = diamond or shape == "star"
    paint = (
        f'fill="{colour}" stroke="{INK if strong else "#ffffff"}"'
        if full
        else f'fill="none" stroke="{colour}" opacity="0.5"'
    )
    width = 1.5 if strong or not full else 0.7
    title = f"<title>{escape(tip)}</title>" if tip else ""
    if shape == "circle":
        return (
            f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="{radius}" {paint}'
            f' stroke-width="{width}">{title}</circle>'
        )
    corners = " ".join(
        f"{place[0] + radius * x:.1f},{place[1] + radius * y:.1f}" for x, y in _corners(shape)
    )
    return f'<polygon points="{corners}" {paint} stroke-width="{width}">{title}</polygon>'


def _corners(shape: str) -> list[tuple[float, float]]:
    """Corners of a shape on the unit circle.

    Per shape: their number, the first one's angle (turns from the top), a star's inner radius.
    """
    count, turn, depth = {
        "square": (4, 0.125, 1.0),
        "diamond": (4, 0.0, 1.0),
        "diamond-wide": (4, 0.0, 1.0),
        "diamond-tall": (4, 0.0, 1.0),
        "star-diamond": (8, 0.0, 0.5),
        "triangle-up": (3, 0.0, 1.0),
        "triangle-down": (3, 0.5, 1.0),
        "pentagon": (5, 0.0, 1.0),
        "hexagram": (12, 0.0, 0.55),
        "star": (10, 0.0, 0.42),
    }[shape]
    angles = [2 * math.pi * (turn + n / count) for n in range(count)]
    radii = [depth if n % 2 else 1.0 for n in range(count)]
    across, down = {"diamond-wide": (1.3, 0.75), "diamond-tall": (0.75, 1.3)}.get(shape, (1, 1))
    return [
        (across * radius * math.sin(angle), -down * radius * math.cos(angle))
        for radius, angle in zip(radii, angles, strict=True)
    ]


def _legend(style: dict[str, traces.Look], *, teacher: bool) -> str:
    x, y, parts = RIGHT + 34, TOP + 6, []
    entries = [
        ("diamond", "#ffffff", True, "baseline"),
        ("circle", QUIET, False, "not of full length"),
    ]
    entries = [*([("star", "#ffffff", True, "teacher")] if teacher else []), *entries]
    parts.append(
        f'<path d="M{x - 9} {y}h18" stroke="{INK}" stroke-width="1.8"/>'
        + _text(x + 18, y + 4, "front")
    )
    for n, (shape, colour, full, name) in enumerate(
        [*entries, *((look.shape, look.colour, True, name) for name, look in style.items())],
        start=1,
    ):
        below = y + n * min(21.0, (HEIGHT - 60 - y) / (len(style) + len(entries)))
        parts.append(_mark((x, below), shape, colour, full=full) + _text(x + 18, below + 4, name))
    return "\n".join(parts)


def _caption(study: StudyResults, rows: Sequence[Row], outside: int) -> list[str]:
    counts = {row["fidelity.validation_images"] for row in rows} - {None}
    images = "/".join(sorted(map(str, counts))) or "unknown"
    protocol = study.description.get("validation_attack")
    attack = (
        ", ".join(f"{k} = {traces.number(v)}" for k, v in protocol.items() if v is not None)
        if isinstance(protocol, dict)
        else "unknown"
    )
    hidden = (
        [f"{outside} undefended or early-stopped trials lie outside the picture."]
        if outside
        else []
    )
    seeds = "/".join(map(str, sorted({row["seeds"] for row in rows if row["seeds"]})))
    spread = (
        f"; with bars, mean and standard deviation of {seeds} replicates, which alone decide"
        " the front"
        if seeds
        else ""
    )
    return [
        f"n = {images} validation images; attack: {attack}.",
        f"Best epoch of each trial, one seed a point{spread}.",
        *hidden,
    ]


def _tip(row: Row) -> str:
    mean = f"mean of {row['seeds']} replicates, " if row["seeds"] else ""
    return (
        f"{traces.title(row)}: clean {traces.percent(row[CLEAN])} %, robust"
        f" {traces.percent(row[ROBUST])} %, {mean}{row['status']}"
    )


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: float = 13,
    anchor: str = "start",
    colour: str = INK,
    weight: int = 400,
) -> str:
    style = f'font-size="{size}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def main(words: Sequence[str]) -> None:
    """Read a study, write its picture and print the path."""
    parser = argparse.ArgumentParser(
        description="Draw a study's clean-against-robust front as one SVG."
    )
    parser.add_argument("study", type=Path, help="the study's folder")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("front.svg"),
        help="the picture, an .svg file (default: front.svg)",
    )
    arguments = parser.parse_args(words)
    try:
        if arguments.out.suffix != ".svg":
            raise StudyError(
                f"--out must end in .svg, got {arguments.out}; `rkdsearch report` writes HTML"
            )
        replace_file(arguments.out, draw(read_study(arguments.study)))
    except RkdError as error:
        sys.exit(f"{error}")
    print(arguments.out)


if __name__ == "__main__":
    main(sys.argv[1:])

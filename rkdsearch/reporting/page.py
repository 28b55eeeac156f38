"""The page: one offline HTML file from a study's rows; no text of the study runs as code."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from rkdsearch.atomic_file import replace_file
from rkdsearch.errors import DiskError, StudyError
from rkdsearch.pace import duration
from rkdsearch.reporting import figures, pareto_figure
from rkdsearch.reporting.by_class import by_class, by_class_tested
from rkdsearch.reporting.notes import most_robust, notes, teacher_is_at_chance
from rkdsearch.reporting.tested import (
    attacks_of,
    comparisons,
    marked,
    openings,
    others,
    protocol,
    tested,
)
from rkdsearch.reporting.traces import Row, number, percent, settings, title
from rkdsearch.results.agreement import of_rungs
from rkdsearch.results.beliefs import worth_of_baselines
from rkdsearch.results.cells import records
from rkdsearch.results.cost import (
    by_method,
    cost_of,
    counted,
    replicates_of,
    states_of,
    survival,
)
from rkdsearch.results.flags import signs_of_teacher
from rkdsearch.results.front import configurations, kept_off
from rkdsearch.results.nodes import by_node, machine_failures, node_stays
from rkdsearch.results.objectives import COSTS, OBJECTIVES, USUAL
from rkdsearch.results.seed_noise import seed_noise
from rkdsearch.results.states import Origin
from rkdsearch.results.study import StudyResults, read_study

DRAWN = 1500  # more marks hide each other


def build(study: Path, out: Path | None = None) -> Path:
    """Write the page of a study to `out` or to its own `report.html`; returns the path.

    The study may be running, finished, copied or empty.
    Raises StudyError where there is no such folder, no permission to write, or a file in the place
    of the page that is no page.
    """
    page = render(read_study(study))
    path = out or study / "report.html"
    if path.is_file() and not _is_page(path):
        raise StudyError(f"{path}: is no HTML page, and is not overwritten; name another file")
    try:
        replace_file(path, page)
    except DiskError as error:
        raise StudyError(f"{error} Or name another place with --out") from error
    return path


def _is_page(path: Path) -> bool:
    """True for an HTML page, and for an empty file; False where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(15).lower() in (b"", b"<!doctype html>")
    except OSError:
        return False


def render(study: StudyResults) -> str:
    """Text of the page."""
    folder = resources.files("rkdsearch.reporting")
    scripts = (get_plotlyjs(), (folder / "page.js").read_text(encoding="utf-8"))
    return _template().render(
        **context(study),
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        plotly=Markup(scripts[0]),  # noqa: S704 - Plotly's own file
        script=Markup(scripts[1]),  # noqa: S704 - our own file
        policy=_policy(scripts),
        written=datetime.now(UTC),
    )


@cache  # compiled once, however many pages are built
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": percent,
        "duration": duration,
        "number": number,
        "settings": settings,
        "title": title,
    }
    page = resources.files("rkdsearch.reporting") / "page.html.j2"
    return environment.from_string(page.read_text(encoding="utf-8"))


def context(study: StudyResults) -> dict[str, Any]:
    """Values of the template: plain rows, tables and pictures."""
    rows, own = marked(study, records(study.trials)), configurations(study.trials)
    trials, front = marked(study, records(own)), marked(study, records(study.front))
    drawn = thinned(trials, front)
    epochs = records(study.epochs[study.epochs["trial_id"].isin(with_curves(drawn, front))])
    teachers, ladder = _mapping(study.description.get("teachers")), study.description.get("ladder")
    placed, failed = node_stays(study.epochs), machine_failures(rows)
    shown = {row["trial_id"] for row in drawn}
    possible = {
        "nodes": figures.nodes([s for s in placed if s.trial_id in shown], failed),
        "pareto": pareto_figure.pareto(drawn, front, teachers) if trials else None,
        "costs": figures.costs(drawn, front),
        "curves": figures.curves(drawn, epochs, front),
        "reliability": figures.reliability(epochs, front),
        "slices": figures.slices(drawn),
    }
    pictures = {name: picture for name, picture in possible.items() if picture}
    tests = records(study.tests)
    networks = tested(study, tests, trials, front)
    return {
        "study": study,
        "description": study.description,
        "listed": [
            row for row in rows if row["trial_id"] in shown or row["origin"] == Origin.REPLICATE
        ],
        "drawn": len(drawn),
        "thinning": one_in(len(trials)),
        "counted": counted(study.trials, running=study.writer is not None),
        "statuses": states_of(own, running=study.writer is not None),
        "replicates": replicates_of(study.trials),
        "trials": trials,
        "front": front,
        "costs": [OBJECTIVES[name] for name in study.objectives if name in COSTS],
        "usual": study.objectives == USUAL,
        "noise": seed_noise(study.trials) if own["seeds"].notna().any() else None,
        "hypervolume": study.volume,
        "best": most_robust(front),
        "teachers_at_chance": [
            role
            for role, facts in teachers.items()
            if teacher_is_at_chance(role, facts, study.chance)
        ],
        "cost": cost_of(study.trials),
        "nodes": by_node(placed, rows),
        "failures": failed,
        "methods": records(by_method(study.trials, study.front, study.searched_methods)),
        "published": records(worth_of_baselines(study.trials, study.front)),
        "rungs": records(survival(study.rungs)),
        "agreement": of_rungs(study.rungs, study.trials),
        "teachers": teachers,
        "signs_of_teachers": {role: signs_of_teacher(facts) for role, facts in teachers.items()},
        "ladder": (
            [rung for rung in ladder if isinstance(rung, dict)] if isinstance(ladder, list) else []
        ),
        "tested": networks,
        "signs": list(
            dict.fromkeys(
                sign for row in networks for test in row.tests.values() for sign in test["signs"]
            )
        ),
        "kept_off": kept_off(study.trials),
        "attacks": attacks_of(tests),
        "protocol": protocol(tests),
        "classes": [
            table
            for table in (
                by_class(front, study.description.get("classes")),
                by_class_tested(networks),
            )
            if table
        ],
        "others": others(study),
        "openings": openings(study),
        "comparisons": comparisons(study, trials, front),
        "facts": {name: distinct(rows, column) for name, column in _FACTS.items()},
        "missing": list(notes(study, rows, trials, front, tests)),
        "curves_drawn": figures.CURVES,
        "pictures": pictures,
        "pictures_json": embedded(pictures),
    }


def thinned(trials: Sequence[Row], front: Sequence[Row]) -> list[Row]:
    """The trials that are drawn and listed: all, or `DRAWN` of them and a few more.

    Of more, the front, the baselines, and every so-many-th of the others, good or bad: a page of
    10,000 trials would be slow to open, and its marks would hide each other.
    """
    if len(trials) <= DRAWN:
        return list(trials)
    always = {row["trial_id"] for row in front}
    step = one_in(len(trials))
    return [
        row
        for n, row in enumerate(trials)
        if n % step == 0 or row["trial_id"] in always or row["origin"] == Origin.BASELINE
    ]


def one_in(trials: int) -> int:
    """Thinning factor: one trial in this many is drawn, about `DRAWN` in all."""
    return -(-trials // DRAWN)


def with_curves(drawn: Sequence[Row], front: Sequence[Row]) -> set[str]:
    """Names of the trials whose epochs the pictures may need."""
    return {row["trial_id"] for row in [*front, *drawn[: 4 * figures.CURVES]]}


_FACTS = {
    "validation images": "fidelity.validation_images",
    "epochs of a full run": "fidelity.of_epochs",
    "validation attack steps": "fidelity.validation_attack_steps",
    "device": "run.device",
    "processes a trial": "run.processes",
    "parameters": "run.parameters",
    "rkdsearch": "run.version",
    "commit": "run.git_commit",
    "PyTorch": "run.torch",
    "Ray": "run.ray",
    "Python": "run.python",
    "split (SHA-256)": "run.split_sha256",
    "robust teacher (SHA-256)": "run.teacher_sha256",
    "natural teacher (SHA-256)": "run.natural_teacher_sha256",
}


def distinct(rows: Sequence[Row], column: str) -> str:
    """Distinct values of a column, as text."""
    return ", ".join(sorted({str(row[column]) for row in rows if row[column] is not None}))


def embedded(value: object) -> Markup:
    """JSON that is safe inside a script element: no tags, no line separators."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII: U+2028 is written out
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704 - just escaped


def _policy(scripts: Sequence[str]) -> str:
    """Content security policy: only these two scripts run, and nothing is fetched.

    Styles and image blobs are allowed: Plotly writes style rules, and pictures that readers save.
    """
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:;"
        " base-uri 'none'; form-action 'none'"
    )


def _mapping(value: object) -> dict[str, Mapping[str, Any]]:
    """The objects among the values of a JSON object; empty for anything else."""
    return (
        {str(key): part for key, part in value.items() if isinstance(part, dict)}
        if isinstance(value, dict)
        else {}
    )

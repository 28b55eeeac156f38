"""docs/run.md is what the sections say, and what it shows is a run."""

import re
import shlex
from pathlib import Path

from rkdsearch import config as configs
from rkdsearch.cli.options import parsed
from rkdsearch.config.describe import page

PAGE = Path(__file__).parents[2] / "docs" / "run.md"


def rows() -> list[list[str]]:
    """The cells of the page's tables: field, values, default, meaning."""
    lines = re.findall(r"^\| (`.*) \|$", page(), flags=re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]


def row(field: str) -> list[str]:
    (found,) = [cells[1:] for cells in rows() if cells[0] == f"`{field}`"]
    return found


def test_the_page_of_a_runs_fields_is_in_step_with_their_sections() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m rkdsearch.config docs/run.md"


def test_every_field_of_a_run_says_what_it_means() -> None:
    assert [cells for cells in rows() if len(cells) != 4 or "" in cells] == []


def test_every_field_of_a_run_is_on_the_page_or_in_a_section_that_is() -> None:
    robust = {"path": "teacher.pt", "recipe": None}
    run = configs.build(
        {
            "method.name": "rslad",
            "teachers.robust": robust,
            "student": {"mean": [0.5], "std": [0.5]},
        }
    )
    described = {cells[0].strip("`") for cells in rows()}
    elsewhere = ("method.", "teachers.robust.network.")  # docs/methods.md; as `student`
    assert {
        name for name in configs.flatten_tree(run.to_dict()) if not name.startswith(elsewhere)
    } <= described


def test_a_field_gives_its_values_in_words_its_default_and_its_unit() -> None:
    assert row("attack.steps") == [
        "whole number >= 0, <= 1000",
        "10",
        "ascent steps; 0: x' is the start, moved into the ball",
    ]
    assert row("schedule.milestones")[:2] == ["list (each a number >= 0, <= 1)", "[0.5, 0.75]"]
    assert row("teachers.robust.clean_accuracy")[:2] == ["number >= 0, <= 1 or `null`", "null"]
    assert row("optimizer.nesterov")[:2] == ["`true` or `false`", "false"]
    assert row("data.channels")[:2] == ["`1` or `3` or `null`", "null"]
    assert row("optimizer.weight_decay")[:2] == ["number >= 0, <= 1", "0.0002"]
    assert row("teachers.natural")[:2] == ["[as `teachers.robust`](#teachersrobust)", "null"]


def test_the_pages_run_and_its_command_line_are_legal(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(page().partition("```yaml\n")[2].partition("```")[0])
    (line,) = re.findall(r"^rkdsearch train run.yaml (.*)", page(), flags=re.MULTILINE)
    run = configs.load(file, parsed(shlex.split(line)))
    assert (run.training.epochs, run.optimizer.lr, run.attack.eps, run.schedule.milestones) == (
        18,
        0.05,
        8 / 255,
        (0.5, 0.75),
    )
    assert configs.load(file, {"student.name": "mlp"}).student.width is None

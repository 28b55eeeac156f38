import re
from pathlib import Path

import rkdsearch
from rkdsearch.reporting import drawing
from rkdsearch.results.study import read_study
from tests.results.factory import make_study


def test_the_front_is_drawn_without_the_page(tmp_path: Path) -> None:
    make_study(tmp_path / "digits", trials=60)
    study = read_study(tmp_path / "digits")
    figure = rkdsearch.draw_front(study)
    traces = {trace.name: trace for trace in figure.data}
    assert list(traces["front"].x) == sorted(study.front["metric.clean_accuracy"])
    assert traces["front"].line.color == "#1b1f24"
    assert figure.layout.title.text == "digits: validation"
    assert "$" not in re.sub(r"<script.*?</script>", "", figure.to_json())


def test_a_path_is_enough_and_a_study_without_trials_is_no_error(tmp_path: Path) -> None:
    assert len(rkdsearch.draw_front(str(tmp_path)).data) >= 1


def test_the_colours_are_those_of_the_page() -> None:
    style = (Path(drawing.__file__).parent / "page.css").read_text(encoding="utf-8")
    light = dict(re.findall(r"--(\w+): (#\w+);", style.split("prefers-color-scheme")[0]))
    assert {f"${name}": light[name] for name in ("ink", "faint", "paper", "grid")} == drawing.LIGHT

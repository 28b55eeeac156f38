import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pandas as pd
import pytest

from rkdsearch.results.cells import ROBUST
from rkdsearch.results.front import LENGTH
from rkdsearch.results.objectives import USUAL
from rkdsearch.results.study import read_study
from tests.results.factory import make_study, repeat

SCRIPT = Path(__file__).parents[2] / "analysis" / "pareto_front.py"
SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_is_drawn_from_a_copied_folder(tmp_path: Path) -> None:
    make_study(tmp_path / "study")
    (tmp_path / "study" / "study.json").unlink()
    words = [sys.executable, SCRIPT, tmp_path / "study", "--out", tmp_path / "front.svg"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path / 'front.svg'}\n", "")
    texts = [element.text for element in ET.parse(tmp_path / "front.svg").iter(f"{SVG}text")]
    assert "60 trials (33 finished, 24 stopped, 3 failed), hypervolume 0.7586" in texts
    assert "IAD, published" in texts


def test_every_trial_inside_the_axes_is_drawn_once_and_stopped_ones_hollow(tmp_path: Path) -> None:
    make_study(tmp_path, trials=40, running=2)
    study = read_study(tmp_path)
    root = ET.fromstring(runpy.run_path(str(SCRIPT))["draw"](study))
    marks = [
        e
        for e in root.iter()
        if e.tag in {f"{SVG}circle", f"{SVG}polygon"} and e.find(f"{SVG}title") is not None
    ]
    tips = {(e.find(f"{SVG}title").text or ""): e.get("fill") for e in marks}  # type: ignore[union-attr]  # filtered above
    hidden = next(e.text or "" for e in root.iter(f"{SVG}text") if "lie outside" in (e.text or ""))
    assert len(tips) == len(marks) == 40 + 1 - int(hidden.split()[0])  # one is the teacher
    assert all(
        (fill == "none") == (not tip.endswith(("finished", "teacher")))
        for tip, fill in tips.items()
    )


def test_a_study_with_replicates_shows_means_that_the_front_goes_through_and_says_so(
    tmp_path: Path,
) -> None:
    repeat(make_study(tmp_path), (2, 41, 44))
    root = ET.fromstring(runpy.run_path(str(SCRIPT))["draw"](read_study(tmp_path)))
    texts = [e.text or "" for e in root.iter(f"{SVG}text")]
    assert (
        "60 trials (33 finished, 24 stopped, 3 failed) and 6 replicates, hypervolume"
        " 0.6859" in texts
    )
    bars = (
        "one seed a point; with bars, mean and standard deviation of 2 replicates, which alone"
        " decide the front."
    )
    assert any(bars in text for text in texts)
    inside = [e for e in root.iter(f"{SVG}path") if e.get("clip-path")]
    *crosses, edge = [e.get("d") or "" for e in inside]
    assert [path.count("M") for path in crosses] == [2, 2, 2]
    centres = {(e.get("cx"), e.get("cy")) for e in root.iter(f"{SVG}circle")}
    assert tuple(edge[1:].split("V")[0].split()) in centres
    tips = [e.text or "" for e in root.iter(f"{SVG}title")]
    assert sum(tip.endswith("mean of 2 replicates, finished") for tip in tips) == 3
    assert "robust teacher" in tips


def test_the_edge_goes_through_students_that_no_other_dominates_on_both_sides(
    tmp_path: Path,
) -> None:
    make_study(tmp_path)
    study = read_study(tmp_path)
    draw, edge = runpy.run_path(str(SCRIPT))["draw"], re.compile(r'<path d="(M[^"]*V[^"]*H[^"]*)"')
    # on the front for its cost alone
    small = study.trials[study.trials["status"] == "finished"].tail(1)
    with_small = replace(study, description={**study.description, "objectives": [*USUAL, "cost"]})
    with_small.__dict__["front"] = pd.concat([study.front, small])
    assert small["trial_id"].item() not in set(study.front["trial_id"])
    assert edge.findall(draw(with_small))[-1] == edge.findall(draw(study))[-1]


def test_a_student_of_a_shorter_full_run_is_hollow(tmp_path: Path) -> None:
    make_study(tmp_path)
    study = read_study(tmp_path)
    trials = study.trials.copy()
    best = trials.loc[trials["status"] == "finished", ROBUST].idxmax()
    trials.loc[best, LENGTH] = trials.loc[best, LENGTH] - 1
    picture = runpy.run_path(str(SCRIPT))["draw"]
    hollow = [picture(replace(study, trials=table)).count('fill="none" stroke="#') for table in
              (study.trials, trials)]  # fmt: skip
    assert hollow[1] == hollow[0] + 1


def test_a_setting_that_the_attack_does_not_have_is_not_in_the_caption(tmp_path: Path) -> None:
    make_study(tmp_path)
    study = read_study(tmp_path)
    attack = {"norm": "linf", "objective": "margin", "relative_step_size": None}
    study = replace(study, description={**study.description, "validation_attack": attack})
    picture = runpy.run_path(str(SCRIPT))["draw"](study)
    assert "attack: norm = linf, objective = margin." in picture


def test_a_strangers_labels_stay_text(tmp_path: Path) -> None:
    make_study(tmp_path, trials=20, evil="</text><script>alert(1)</script>")
    root = ET.fromstring(runpy.run_path(str(SCRIPT))["draw"](read_study(tmp_path)))
    assert not list(root.iter(f"{SVG}script"))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.871, 0.963, [0.88, 0.9, 0.92, 0.94, 0.96]),
        (0.5, 0.506, [0.5, 0.501, 0.502, 0.503, 0.504, 0.505, 0.506]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert runpy.run_path(str(SCRIPT))["ticks"](low, high) == expected


def test_an_empty_study_and_another_format_are_refused_in_one_line(tmp_path: Path) -> None:
    main = runpy.run_path(str(SCRIPT))["main"]
    for words, message in (
        ([str(tmp_path)], "no trial has been measured yet"),
        ([str(tmp_path), "--out", "front.png"], "--out must end in .svg, got front.png"),
        ([str(tmp_path / "typo")], "a study is a folder"),
    ):
        with pytest.raises(SystemExit) as refused:
            main(words)
        assert message in str(refused.value.code)
        assert "\n" not in str(refused.value.code)

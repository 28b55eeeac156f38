"""`first: [{study: FOLDER}]`: the students of earlier studies as baselines."""

import json
import shutil
from pathlib import Path

import pytest

from rkdsearch.cli.space import checked
from rkdsearch.errors import SpaceError
from rkdsearch.search.study_file import describe
from rkdsearch.space.space import SearchSpace
from tests.results.rows import study, trial
from tests.search.files import SMALL, load_space, write_space

LR = {"optimizer.lr": {"float": [0.01, 0.3]}}


def earlier(folder: Path, *rates: float, method: str = "trades") -> Path:
    """A study that fixed its method and its momentum, with a front of these rates."""
    folder.mkdir(parents=True)
    fixed = {**SMALL["fixed"], "method": {"name": method}, "optimizer.momentum": 0.5}
    describe(folder, load_space(folder, fixed=fixed, search=LR, first=[]), {})
    for number, rate in enumerate(rates):
        chosen = json.dumps({"optimizer.lr": rate})
        place = 0.9 - number / 10, 0.5 + number / 10
        study(folder, trial(f"t{number:05d}", *place, status="finished", hyperparameters=chosen))
    return folder


def test_a_student_brings_what_its_study_fixed_and_the_new_space_keeps_its_own_images(
    tmp_path: Path,
) -> None:
    earlier(tmp_path / "old", 0.05)
    student = {"name": "small_cnn", "width": 8}
    fixed = {**SMALL["fixed"], "method": {"name": "pgd_at"}, "student": student}
    space = load_space(tmp_path, fixed=fixed, search=LR, first=[{"study": "old"}])
    (baseline,) = space.baselines
    config = space.config(baseline.overrides, baseline.label)
    assert baseline.label == "t00000 of old"
    assert config.to_dict()["method"]["name"] == "trades"
    assert (config.optimizer.lr, config.optimizer.momentum) == (0.05, 0.5)
    assert config.to_dict()["student"]["width"] == 8


def test_what_was_null_there_is_null_here_whatever_the_new_space_fixes(tmp_path: Path) -> None:
    earlier(tmp_path / "old", 0.05)
    fixed = {**SMALL["fixed"], "method": {"name": "pgd_at"}, "optimizer.gradient_clip": 0.5}
    space = load_space(tmp_path, fixed=fixed, search=LR, first=[{"study": "old"}])
    (baseline,) = space.baselines
    assert space.config(baseline.overrides).optimizer.gradient_clip is None
    assert space.example().optimizer.gradient_clip == 0.5


def test_a_search_that_goes_on_keeps_what_it_has_read(tmp_path: Path) -> None:
    old = earlier(tmp_path / "old", 0.05)
    file = write_space(tmp_path, first=[{"study": "old"}])
    described = tmp_path / "new"
    describe(described, SearchSpace.load(file), {})
    shutil.rmtree(old)
    earlier(tmp_path / "old", 0.1, 0.2)  # it went on, and has another front
    assert {b.label for b in SearchSpace.load(file).baselines} == {
        "t00000 of old",
        "t00001 of old",
    }
    again, _ = checked(file, described)
    assert [b.overrides["optimizer.lr"] for b in again.baselines] == [0.05]
    shutil.rmtree(old)
    assert checked(file, described)[0].baselines == again.baselines


def test_a_student_that_two_studies_have_is_one_baseline_and_equal_names_are_told_apart(
    tmp_path: Path,
) -> None:
    earlier(tmp_path / "a" / "digits", 0.05, 0.1)
    earlier(tmp_path / "b" / "digits", 0.2, 0.1)
    file = write_space(tmp_path, first=[{"study": "a/digits"}, {"study": "b/digits"}])
    said: list[str] = []
    space = SearchSpace.load(file, said.append)
    assert {b.label: b.overrides["optimizer.lr"] for b in space.baselines} == {
        "t00000 of digits": 0.05,
        "t00001 of digits": 0.1,
        f"t00000 of {tmp_path / 'b' / 'digits'}": 0.2,
    }
    assert len({b.family for b in space.baselines}) == 3
    assert said == [
        (
            f"{file}: first[1]: t00001 of digits is the same run as t00001 of digits in"
            f" {tmp_path / 'a' / 'digits'}: left out"
        )
    ]


def test_a_file_that_replaces_first_needs_no_study_that_its_parent_names(tmp_path: Path) -> None:
    write_space(tmp_path, "parent.yaml", first=[{"study": "gone"}])
    child = tmp_path / "child.yaml"
    child.write_text("extends: parent.yaml\nfirst: []\n")
    assert SearchSpace.load(child).baselines == ()
    child.write_text("extends: parent.yaml\n")
    with pytest.raises(SpaceError, match=r"child.yaml: first\[0\].study: .*gone: a study is a"):
        SearchSpace.load(child)


def test_the_front_of_an_earlier_study_stands_for_baselines(tmp_path: Path) -> None:
    folder = tmp_path / "earlier"
    front = {"status": "finished", "hyperparameters": '{"optimizer.lr": 0.05}'}
    study(
        folder,
        trial("t00003", 0.9, 0.5, **front),
        trial("t00004", 0.8, 0.6, status="finished", hyperparameters='{"optimizer.lr": 0.2}'),
        trial("t00005", 0.7, 0.4, **front),  # dominated
    )
    space = load_space(tmp_path, first=[*SMALL["first"], {"study": "earlier"}])
    named = {b.label: b.overrides.get("optimizer.lr") for b in space.baselines}
    assert named == {
        "published": 0.1,
        "t00003 of earlier": 0.05,
        "t00004 of earlier": 0.2,
    }
    shutil.rmtree(folder)  # what was read is kept with the study
    assert SearchSpace.of(space.merged, "again").baselines == space.baselines


def test_an_earlier_study_without_a_front_is_refused_with_its_place(tmp_path: Path) -> None:
    study(tmp_path / "earlier", trial("t00000", 0.9, 0.5, "running"))
    for entry, law in {
        "earlier": r"first\[0\].study: .*earlier has no front: none of its",
        "nowhere": r"first\[0\].study: .*nowhere: a study is a folder",
    }.items():
        with pytest.raises(SpaceError, match=law):
            load_space(tmp_path, first=[{"study": entry}])
    with pytest.raises(SpaceError, match="names a folder and stands alone"):
        load_space(tmp_path, first=[{"study": "earlier", "label": "mine"}])

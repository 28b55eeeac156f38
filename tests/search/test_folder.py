from pathlib import Path

import pytest

from rkdsearch.errors import StudyError
from rkdsearch.search import folder
from tests.search.files import SMALL, load_space


def claimed(tmp_path: Path) -> Path:
    folder.describe(tmp_path / "study", load_space(tmp_path), {})
    return tmp_path / "study"


def test_an_empty_folder_is_free(tmp_path: Path) -> None:
    assert not folder.claim(tmp_path, load_space(tmp_path / "s"), resume=False)


def test_a_study_that_exists_asks_for_resume(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"holds a study already; continue it with --resume, or name another folder with --study"):
        folder.claim(claimed(tmp_path), load_space(tmp_path), resume=False)


def test_a_changed_range_is_refused_and_named(tmp_path: Path) -> None:
    search = {**SMALL["search"], "optimizer.lr": {"float": [0.01, 0.2], "log": True}}
    with pytest.raises(
        StudyError, match=r"was made by another space: search.optimizer.lr was .*0.3.*, is .*0.2.*; give this search a folder"
    ):
        folder.claim(claimed(tmp_path), load_space(tmp_path, search=search), resume=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"ladder": [{"epochs": 2}]},
        {"ladder": [{"epochs": 1, "attack_steps": 1}, *SMALL["ladder"][1:]]},
        {"seed": 4},
        {"first": []},
        {"fixed": {**SMALL["fixed"], "attack.steps": 3}},
        {"scheduler": {"name": "none"}},
    ],
)
def test_whatever_makes_trials_comparable_may_not_change(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(StudyError, match="was made by another space"):
        folder.claim(claimed(tmp_path), load_space(tmp_path, **changes), resume=True)


@pytest.mark.parametrize(
    "changes",
    [{"resources": {"cpu": 2}}, {"sampler": {"name": "random"}}, {"scheduler": {"reduction": 2}}, {"constraints": {"parameters": 10**6}}],
)
def test_who_proposes_who_stops_and_on_what_may_change(tmp_path: Path, changes: dict[str, object]) -> None:
    assert folder.claim(claimed(tmp_path), load_space(tmp_path, **changes), resume=True)


def test_where_files_lie_may_change(tmp_path: Path) -> None:
    robust = {"network": {"name": "mlp"}, "path": "t.pt"}
    fixed = {**SMALL["fixed"], "data": {"name": "mnist", "root": "data"}, "teachers.robust": robust}
    made, moved = (
        load_space(tmp_path, fixed=fixed),
        load_space(
            tmp_path / "moved",
            fixed={
                **fixed,
                "data": {"name": "mnist", "root": "/mnt/data", "download": True},
                "teachers.robust": {**robust, "path": "/mnt/t.pt"},
            },
        ),
    )
    assert folder.laws(made) == folder.laws(moved)
    other = load_space(tmp_path / "other", fixed={**fixed, "teachers.robust": {**robust, "network": {"name": "small_cnn"}}})
    assert folder.laws(made) != folder.laws(other)


def test_a_damaged_description_is_said_to_be_damaged(tmp_path: Path) -> None:
    study = claimed(tmp_path)
    (study / "study.json").write_text("{")
    with pytest.raises(StudyError, match=r"study.json: is damaged"):
        folder.claim(study, load_space(tmp_path), resume=True)

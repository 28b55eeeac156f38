from pathlib import Path

import pytest

from rkdsearch.errors import StudyError
from rkdsearch.results.front import volume
from rkdsearch.results.objectives import USUAL
from rkdsearch.results.study import read_study
from tests.results.factory import make_study
from tests.results.rows import study, trial


def test_the_studys_objectives_name_its_front_and_its_hypervolume(tmp_path: Path) -> None:
    worst = "metric.worst_class_accuracy"
    study(tmp_path, trial("a", 0.80, 0.50) | {worst: 0.40}, trial("b", 0.80, 0.55) | {worst: 0.05})
    assert read_study(tmp_path).front["trial_id"].tolist() == ["b"]
    (tmp_path / "study.json").write_text(
        '{"objectives": ["clean_accuracy", "worst_class_accuracy"]}', encoding="utf-8"
    )
    found = read_study(tmp_path)
    assert found.front["trial_id"].tolist() == ["a"]
    assert found.volume == pytest.approx(0.80 * 0.40)


@pytest.mark.parametrize(
    "objectives",
    ["null", '["clean_accuracy"]', '["clean_accuracy", "somebody_elses"]', '"clean_accuracy"'],
)
def test_objectives_that_are_none_of_ours_leave_the_usual_pair(
    tmp_path: Path, objectives: str
) -> None:
    (tmp_path / "study.json").write_text(f'{{"objectives": {objectives}}}', encoding="utf-8")
    assert read_study(tmp_path).objectives == USUAL


def test_a_student_that_is_larger_than_the_search_allowed_is_on_no_front(tmp_path: Path) -> None:
    study(
        tmp_path,
        trial("a", 0.90, 0.60, run__parameters=5_001),
        trial("b", 0.80, 0.50, run__parameters=5_000),
        trial("c", 0.70, 0.55),
    )
    (tmp_path / "study.json").write_text('{"constraints": {"parameters": 5000}}', encoding="utf-8")
    assert read_study(tmp_path).front["trial_id"].tolist() == ["c", "b"]


def test_what_the_search_asked_of_full_length_trials_is_asked_of_the_front(tmp_path: Path) -> None:
    study(tmp_path, trial("a", 0.90, 0.60), trial("b", 0.94, 0.55), trial("c", 0.99, 0.50))
    (tmp_path / "study.json").write_text(
        '{"constraints": {"clean_accuracy": 0.92, "robust_accuracy": 0.51}}', encoding="utf-8"
    )
    found = read_study(tmp_path)
    assert found.front["trial_id"].tolist() == ["b"]
    assert volume(found.front) == pytest.approx(0.94 * 0.55)


def test_a_folder_that_is_not_there_is_the_users_to_correct(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="a study is a folder that `rkdsearch tune` made"):
        read_study(tmp_path / "typo")


def test_a_study_without_description_is_called_by_its_folder(tmp_path: Path) -> None:
    make_study(tmp_path / "copied", trials=3, evaluated=False)
    (tmp_path / "copied" / "study.json").unlink()
    assert read_study(tmp_path / "copied").name == "copied"

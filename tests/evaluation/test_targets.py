import json
import re
from pathlib import Path
from typing import Any

import pytest

from rkdsearch import config as run
from rkdsearch.errors import StudyError
from rkdsearch.evaluation.targets import evaluation_targets
from rkdsearch.teacher import fingerprint
from tests.evaluation.test_jobs import CONFIG, VALUES, run_alone
from tests.search import files

TAUGHT = run.build(
    VALUES
    | {
        "teachers.robust": {
            "network": {"name": "mlp", "width": 16},
            "path": "t",
            "sha256": "ab" * 32,
        }
    }
)


def test_what_cannot_be_evaluated_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds no trials; `rkdsearch tune` makes them"):
        evaluation_targets(tmp_path, front=False, trial=None)
    study = tmp_path / "study"
    files.run(study, files.load_space(tmp_path))
    with pytest.raises(
        StudyError,
        match=re.escape(f"there is no trial 't9'; `rkdsearch status {study}` lists the trials"),
    ):
        evaluation_targets(study, front=False, trial="t9")
    with pytest.raises(
        StudyError,
        match=r"t00000/best.safetensors: is missing, so trial t00000 cannot be evaluated",
    ):
        evaluation_targets(study, front=True, trial=None)


@pytest.mark.parametrize("status", ["running", "paused", "stopped", "failed"])
def test_what_has_not_finished_is_not_evaluated(tmp_path: Path, status: str) -> None:
    run_alone(tmp_path, status=status)
    with pytest.raises(
        StudyError,
        match=(
            f"trial run is {status}, and only finished trials are evaluated, since test images must"
            " not influence"
        ),
    ):
        evaluation_targets(tmp_path, front=False, trial="run")
    with pytest.raises(
        StudyError,
        match=re.escape(
            f"no trial has finished (1 {status}); repeat the command that began the study"
        ),
    ):
        evaluation_targets(tmp_path, front=False, trial=None)


@pytest.mark.parametrize(
    "chosen",
    [
        {"front": False, "trial": "run"},
        {"front": True, "trial": None},
        {"front": False, "trial": None},
    ],
    ids=str,
)
def test_a_run_without_a_search_is_evaluated_in_its_own_folder(
    tmp_path: Path, chosen: dict[str, Any]
) -> None:
    run_alone(tmp_path)
    (found,) = evaluation_targets(tmp_path, **chosen)
    assert (found.trial_id, found.weights, found.config) == (
        "run",
        tmp_path / "best.safetensors",
        CONFIG,
    )
    assert found.sha256 == fingerprint(tmp_path / "best.safetensors")


def test_a_teacher_moves_with_its_study_and_a_missing_or_a_changed_one_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    study, elsewhere = tmp_path / "study", tmp_path / "here" / "teachers"
    run_alone(study, TAUGHT)
    for folder in (elsewhere, study / "teachers"):
        folder.mkdir()
        (folder / "best.safetensors").write_text(folder.parent.name)
    facts = {
        "path": "teachers/best.safetensors",
        "sha256": fingerprint(study / "teachers" / "best.safetensors"),
    }
    (study / "study.json").write_text(json.dumps({"teachers": {"robust": facts}}))

    def found() -> tuple[list[Path], list[str]]:
        said: list[str] = []
        return [
            c.weights
            for c in evaluation_targets(study, front=False, trial="run", notice=said.append)
        ], said

    student = study / "best.safetensors"
    assert found() == ([student, study / "teachers" / "best.safetensors"], [])
    (study / "teachers" / "best.safetensors").unlink()
    (said,) = found()[1]
    assert found()[0] == [student]
    assert said.startswith(
        "robust teacher: teachers/best.safetensors is not the file that taught (its sha256 was"
    )
    (elsewhere / "best.safetensors").write_text("study")  # the very file, where the search found it
    assert found() == ([student, Path("teachers/best.safetensors")], [])
    (elsewhere / "best.safetensors").unlink()
    assert found() == (
        [student],
        ["robust teacher: teachers/best.safetensors is not there, so it is not evaluated"],
    )

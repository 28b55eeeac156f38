"""A study's teachers are trained once, measured once, and found again wherever the study is."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rkdsearch.errors import DataError, StudyError, TeacherError
from rkdsearch.execution import teachers
from rkdsearch.execution.trial import run_trial
from rkdsearch.search import study_file
from rkdsearch.search.assignment import Assignment
from rkdsearch.search.study import Study
from rkdsearch.search.teachers import TeacherStep, overrides_of
from rkdsearch.space.space import SearchSpace
from rkdsearch.teacher import fingerprint
from tests.search.files import SMALL, load_space
from tests.training.runs import teacher_file

RECIPE = {"method": {"name": "natural"}, "training": {"epochs": 1, "device": "cpu"}}
RECIPES = {
    role: {"network": {"name": "mlp", "width": 4}, "recipe": RECIPE}
    for role in ("robust", "natural")
}


@pytest.mark.parametrize(
    ("search", "first", "ready", "skipped"),
    [
        ({"method.name": {"choice": ["natural", "pgd_at"]}}, [], [], ["robust", "natural"]),
        ({"method.name": {"choice": ["natural", "rslad"]}}, [], ["robust"], ["natural"]),
        (
            {"method.name": {"choice": ["natural", "pgd_at"]}},
            [{"method.name": "kd", "method.teacher": "natural"}],
            ["natural"],
            ["robust"],
        ),
        (
            {
                "method.name": {"choice": ["pgd_at"]},
                "attack.objective": {"choice": ["label", "teacher_clean"]},
            },
            [],
            ["robust"],
            ["natural"],
        ),
    ],
    ids=["nobody", "a method", "a baseline", "an inner problem"],
)
def test_only_teachers_that_some_run_of_the_space_asks_are_made(
    tmp_path: Path,
    search: dict[str, Any],
    first: list[dict[str, Any]],
    ready: list[str],
    skipped: list[str],
) -> None:
    fixed = {
        **SMALL["fixed"],
        "validation.images": 30,
        "validation.attack": {"steps": 1},
        "teachers": RECIPES,
    }
    space = load_space(tmp_path, fixed=fixed, search=search, first=first)
    steps = list(teachers.prepare(tmp_path / "study", space))
    assert [step.role for step in steps if step.measured] == ready
    assert [step.role for step in steps if step.skipped] == skipped
    assert len(list(tmp_path.glob("study/teachers/*"))) == len(ready)
    study_file.describe(
        tmp_path / "study", space, {step.role: step for step in steps if step.measured}
    )
    described = json.loads((tmp_path / "study" / "study.json").read_text())["teachers"]
    assert {role: facts["measured_on"] for role, facts in described.items()} == dict.fromkeys(
        ready, "validation images, held out from its training"
    )
    assert [facts["checks"]["images"] for facts in described.values()] == [30] * len(ready)


def taught(where: Path, robust: dict[str, Any], **changes: Any) -> SearchSpace:
    """Three epochs of RSLAD on 200 digits, from this robust teacher; 50 validation images."""
    return load_space(
        where,
        **{
            "fixed": {
                **SMALL["fixed"],
                "data": {"name": "digits", "train_images": 200},
                "attack.steps": 1,
                "training.batch_size": 100,
                "validation": {"images": 50, "attack.steps": 1},
                "teachers.robust": robust,
            },
            "search": {
                "method.name": {"choice": ["rslad"]},
                "optimizer.lr": {"float": [0.01, 0.3], "log": True},
            },
            "first": [],
            "ladder": [{"epochs": 3}],
            "scheduler": {"name": "none"},
            **changes,
        },
    )


def ready(study: Path, space: SearchSpace) -> list[TeacherStep]:
    """Prepare teachers and write `study.json`, as `tune` does first."""
    study_file.claim(study, space, resume=True)
    study_file.check_files(study, space)
    steps = list(teachers.prepare(study, space))
    study_file.describe(study, space, {step.role: step for step in steps if step.measured})
    return steps


def taken_up(study: Path, space: SearchSpace) -> Study:
    steps = ready(study, space)
    found = Study(
        study, space, 1, overrides_of({step.role: step for step in steps if step.measured})
    )
    found.reconcile()
    return found


def trained(study: Study, epochs: int) -> list[int]:
    """Train and report the next trial; return its reported epochs."""
    assignment = study.next()
    assert isinstance(assignment, Assignment)
    reported = []
    for report in run_trial(assignment):
        reported.append(report.result.epoch)
        study.report(assignment.trial_id, report.result, report.facts)
        if len(reported) == epochs:
            break
    return reported


@pytest.mark.parametrize("teacher", ["a recipe", "a file"])
def test_a_study_that_was_moved_goes_on_in_the_middle_of_a_trial(
    tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = {"name": "small_cnn", "width": 4}
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    robust = {"network": network, "recipe": RECIPE}
    if teacher == "a file":
        robust = {"network": network, "path": str(teacher_file(Path("robust.safetensors"), seed=0))}
    study = taken_up(Path("studies/a"), taught(tmp_path, robust))
    assert trained(study, 1) == [1]
    shutil.move("studies", tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    if teacher == "a file":
        robust["path"] = "../" + tmp_path.name + "/here/robust.safetensors"
    again = taken_up(Path("moved/../moved/a"), taught(tmp_path, robust))
    assert trained(again, 3) == [1, 2, 3]  # the first is reported once more, not trained
    assert [t.status for t in again.trials.values()] == ["finished"]
    described = json.loads(Path("moved/a/study.json").read_text())["teachers"]["robust"]["path"]
    assert Path(described).parts[0] == ("teachers" if teacher == "a recipe" else "..")


def test_what_was_measured_is_not_measured_again_unless_something_else_would_be_measured(
    tmp_path: Path,
) -> None:
    path = teacher_file(tmp_path / "t.safetensors", seed=0)
    robust = {"network": {"name": "small_cnn", "width": 4}, "path": str(path)}
    space = taught(tmp_path, robust)
    first, second = ready(tmp_path / "study", space), ready(tmp_path / "study", space)
    # its images, the checks behind its flags, and the measurement
    assert [bool(step.so_far) for step in first] == [True, True, False]
    assert [step.measured for step in second] == [first[-1].measured]
    assert first[-1].measured is not None
    assert first[-1].measured.images == 50
    file = tmp_path / "study" / "study.json"
    known = file.read_text()
    for place, other in (
        (("validation_attack", "steps"), 2),
        (("teachers", "robust", "images"), 60),
        (("teachers", "robust", "network", "width"), 9),
    ):
        described = here = json.loads(known)
        for name in place[:-1]:
            here = here[name]
        here[place[-1]] = other
        file.write_text(json.dumps(described))
        assert [bool(step.so_far) for step in teachers.prepare(tmp_path / "study", space)] == [
            True,
            True,
            False,
        ]
    file.write_text("{")
    assert len(list(teachers.prepare(tmp_path / "study", space))) == 3
    said = taught(tmp_path / "said", {**robust, "trained_on": "train"})
    file.write_text(known)
    (step,) = teachers.prepare(tmp_path / "study", said)
    assert step.measured is not None
    assert step.measured.measured_on.startswith(
        "validation images, not held out: it was trained on all training images"
    )


def test_a_measurement_says_how_far_it_is(tmp_path: Path) -> None:
    fixed = {
        "network": {"name": "small_cnn", "width": 4},
        "path": str(teacher_file(tmp_path / "t.safetensors", seed=0)),
    }
    space = taught(tmp_path, fixed)
    whole = load_space(
        tmp_path / "w",
        **{
            **SMALL,
            "first": [],
            "fixed": {
                **space.fixed,
                "validation.images": None,
                "data.train_images": None,
                "data.validation_fraction": 0.4,
            },
            "search": {"method.name": {"choice": ["rslad"]}},
        },
    )
    steps = list(teachers.prepare(tmp_path / "study", whole))
    assert [(step.so_far.images, step.of_images) for step in steps if step.so_far] == [
        (250, 539),
        (500, 539),
        (539, 539),
        (539, 539),  # with the checks behind its flags
    ]
    assert steps[-1].measured == steps[-2].so_far


def test_another_teacher_or_other_images_are_refused_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    robust = {
        "network": {"name": "small_cnn", "width": 4},
        "path": str(teacher_file(tmp_path / "t.safetensors", seed=0)),
    }
    space = taught(tmp_path, robust)
    ready(tmp_path / "study", space)
    was = fingerprint(tmp_path / "t.safetensors")
    teacher_file(tmp_path / "t.safetensors", seed=1)
    with pytest.raises(
        StudyError,
        match=(
            rf"trials were taught by another robust teacher: sha256 was {was}, is .*; put the right"
            r" file back"
        ),
    ):
        study_file.check_files(tmp_path / "study", space)
    teacher_file(tmp_path / "t.safetensors", seed=0)
    file = tmp_path / "study" / "study.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"split_sha256": "0" * 64}))
    with pytest.raises(
        StudyError,
        match=r"its trials were trained on other images of digits: split_sha256 was 0{64}, is ",
    ):
        study_file.check_files(tmp_path / "study", space)
    (tmp_path / "t.safetensors").unlink()
    with pytest.raises(
        TeacherError,
        match=r"t.safetensors: cannot be read: No such file or directory; check the path",
    ):
        study_file.check_files(tmp_path / "new", space)
    gone = load_space(
        tmp_path / "gone",
        fixed={**SMALL["fixed"], "data": {"name": "cifar10", "root": str(tmp_path / "nowhere")}},
    )
    with pytest.raises(DataError, match="nowhere"):
        study_file.check_files(tmp_path / "new", gone)

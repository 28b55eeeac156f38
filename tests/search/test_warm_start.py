import json
import math
from pathlib import Path
from typing import Any

import pytest

from rkdsearch.errors import StudyError
from rkdsearch.search import study_file, warm_start
from rkdsearch.search.study import Study
from rkdsearch.search.teachers import TeacherStep
from rkdsearch.teacher import fingerprint
from rkdsearch.training.teacher import TeacherAccuracy, folder_of, recipe_run
from tests.search.files import CAPPED, SMALL, FakeWorker, load_space
from tests.training.runs import teacher_file


def claimed(tmp_path: Path) -> Path:
    study_file.describe(tmp_path / "study", load_space(tmp_path), {})
    return tmp_path / "study"


def test_a_warm_start_takes_trials_inside_the_space_and_keeps_them(tmp_path: Path) -> None:
    space = load_space(tmp_path)
    earlier = claimed(tmp_path)
    done = Study(earlier, space, 8, {})
    FakeWorker().drive(done)
    search = {**SMALL["search"], "method.name": {"choice": ["trades"]}}
    narrow = load_space(
        tmp_path / "narrow", search=search, ladder=[{"epochs": 1}, {"epochs": 4}], seed=9
    )
    inside = [t for t in done.trials.values() if narrow.searched(t.config) is not None]
    warmed = warm_start.prepare(tmp_path / "new", earlier, narrow, existed=False)
    assert not (tmp_path / "new").exists()
    warm_start.keep(tmp_path / "new", warmed)
    seen = warmed.observations
    assert 1 <= len(seen) == len(inside) < 8
    outside, first = next((name, t) for name, t in done.trials.items() if t not in inside)
    assert (
        warmed.left_out
        == f"; {8 - len(inside)} are left out: this space could not have trained them (the first:"
        f" {outside}, method.name {first.hyperparameters['method.name']} is outside ['trades'])"
    )
    # A stopped trial at a quarter or at half of its run is on this ladder's first rung of two; a
    # finished one is at its end.
    assert [s.rungs_short for s in seen] == [0 if t.status == "finished" else 1 for t in inside]
    assert [s.values[0] for s in seen] == [t.best.clean_accuracy for t in inside if t.best]
    assert warm_start.prepare(tmp_path / "new", None, narrow, existed=True).observations == seen


def test_a_warm_start_reads_what_was_fixed_before_and_takes_shorter_runs(tmp_path: Path) -> None:
    done = Study(claimed(tmp_path), load_space(tmp_path, scheduler={"name": "none"}), 4, {})
    FakeWorker().drive(done)
    search = {**SMALL["search"], "attack.steps": {"int": [1, 10]}}
    fixed = {name: v for name, v in SMALL["fixed"].items() if name != "attack.steps"}
    longer = [{"epochs": 2}, {"epochs": 4}, {"epochs": 8}]
    seen = warm_start.from_study(
        tmp_path / "study", load_space(tmp_path / "l", search=search, fixed=fixed, ladder=longer)
    ).observations
    assert [o.hyperparameters["attack.steps"] for o in seen] == [2] * 4
    assert [o.rungs_short for o in seen] == [1] * 4


def test_a_stopped_trial_of_weaker_attacks_is_left_out(tmp_path: Path) -> None:
    capped = load_space(tmp_path / "capped", **CAPPED, scheduler={"reduction": 2})
    earlier = Study(tmp_path / "earlier", capped, 8, {})
    FakeWorker().drive(earlier)
    study_file.describe(tmp_path / "earlier", capped, {})
    alike = warm_start.from_study(tmp_path / "earlier", capped).observations
    assert {seen.rungs_short for seen in alike} >= {0, 2}
    whole = load_space(
        tmp_path / "whole", **{**CAPPED, "ladder": [{"epochs": 1}, {"epochs": 2}, {"epochs": 4}]}
    )
    steps = [
        (seen.hyperparameters["attack.steps"], seen.rungs_short)
        for seen in warm_start.from_study(tmp_path / "earlier", whole).observations
    ]
    # rung 2 had the whole validation attack, and its cap allows two steps; rung 1 had a shorter one
    assert all(short == 0 or (attack == 2 and short == 1) for attack, short in steps)


def test_a_search_that_began_without_a_warm_start_resumes_without(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"began without --warm-start; leave it out"):
        warm_start.prepare(claimed(tmp_path), tmp_path, load_space(tmp_path), existed=True)


def test_a_warm_started_search_resumes_with_the_same_earlier_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = load_space(tmp_path)
    FakeWorker().drive(Study(claimed(tmp_path), space, 2, {}))
    new, earlier = tmp_path / "new", tmp_path / "study"
    monkeypatch.chdir(tmp_path)
    warmed = warm_start.prepare(new, Path("study"), space, existed=False)
    warm_start.keep(new, warmed)
    seen = warmed.observations
    assert len(seen) == 2
    earlier.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert warm_start.prepare(new, None, space, existed=True).observations == seen
    # by where it was, from another working folder
    assert warm_start.prepare(new, earlier, space, existed=True).observations == seen
    for other in (tmp_path / "moved", tmp_path / "typo"):
        with pytest.raises(
            StudyError,
            match=(
                rf"new: began with --warm-start {earlier}, got {other}; leave"
                r" it out \(its"
            ),
        ):
            warm_start.prepare(new, other, space, existed=True)


def test_a_file_of_an_earlier_version_has_the_same_observations(tmp_path: Path) -> None:
    space = load_space(tmp_path)
    FakeWorker().drive(Study(claimed(tmp_path), space, 2, {}))
    new = warm_start.prepare(tmp_path / "new", tmp_path / "study", space, existed=False)
    warm_start.keep(tmp_path / "new", new)
    file = tmp_path / "new" / warm_start.FILE
    content = json.loads(file.read_text(encoding="utf-8"))
    content["seen"] = [
        {"params": o.pop("hyperparameters"), "state": "measured", **o}
        for o in content.pop("observations")
    ]
    file.write_text(json.dumps(content), encoding="utf-8")
    assert warm_start.load(tmp_path / "new").observations == new.observations


@pytest.mark.parametrize(
    ("known", "same"),
    [
        ("study", True),
        ("../runs/study", True),
        ("runs/study", True),
        ("other/study", False),
        ("udy", False),
        ("/runs/study", False),
    ],
)
def test_an_older_file_names_the_earlier_study_by_its_last_folders(
    tmp_path: Path, known: str, *, same: bool
) -> None:
    new, earlier, space = tmp_path / "new", tmp_path / "runs" / "study", load_space(tmp_path)
    warm_start.save(new, warm_start.WarmStart([], Path(known)))
    if same:
        assert warm_start.prepare(new, earlier, space, existed=True).earlier == Path(known)
    else:
        with pytest.raises(StudyError, match=f"began with --warm-start {known}, got "):
            warm_start.prepare(new, earlier, space, existed=True)


WIDTHS: dict[str, Any] = {
    "fixed": {**SMALL["fixed"], "student": {"name": "small_cnn"}, "method.name": "trades"},
    "search": {"student.width": {"choice": [2, 4, 8]}, "optimizer.lr": {"choice": [0.1]}},
    "first": [
        {"label": f"width {width}", "student.width": width, "optimizer.lr": 0.1}
        for width in (2, 4, 8)
    ],
    "scheduler": {"name": "none"},
}
WEIGHTS = {2: 746, 4: 1626, 8: 3818}


def test_what_a_student_costs_is_counted_where_the_earlier_study_did_not(tmp_path: Path) -> None:
    earlier = load_space(tmp_path, **WIDTHS)
    study_file.describe(tmp_path / "study", earlier, {})
    FakeWorker().drive(Study(tmp_path / "study", earlier, 3, {}))
    costly = load_space(
        tmp_path / "costly",
        **WIDTHS,
        objectives=["clean_accuracy", "robust_accuracy", "parameters"],
    )
    assert [
        s.values[2] for s in warm_start.from_study(tmp_path / "study", costly).observations
    ] == [pytest.approx(1 - math.log(weights) / math.log(1e9)) for weights in WEIGHTS.values()]


def test_a_student_above_a_limit_of_this_space_is_left_out(tmp_path: Path) -> None:
    earlier = load_space(tmp_path, **WIDTHS)
    study_file.describe(tmp_path / "study", earlier, {})
    FakeWorker().drive(Study(tmp_path / "study", earlier, 3, {}))
    limited = warm_start.from_study(
        tmp_path / "study",
        load_space(tmp_path / "limited", **WIDTHS, constraints={"parameters": WEIGHTS[4]}),
    )
    assert [s.hyperparameters["student.width"] for s in limited.observations] == [2, 4]
    assert (
        limited.left_out
        == "; 1 are left out: this space could not have trained them (the first: t00002, its"
        " student's parameters 3,818, above constraints.parameters 1,626)"
    )


def test_accuracies_of_another_validation_attack_are_no_warm_start(tmp_path: Path) -> None:
    FakeWorker().drive(Study(claimed(tmp_path), load_space(tmp_path), 2, {}))
    other = load_space(tmp_path / "o", fixed={**SMALL["fixed"], "validation.attack.eps": 0.5})
    with pytest.raises(StudyError, match="--warm-start needs the same validation attack"):
        warm_start.from_study(tmp_path / "study", other)
    with pytest.raises(StudyError, match="--warm-start needs a study, and there are no trials"):
        warm_start.from_study(tmp_path / "typo", other)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"fixed": {**SMALL["fixed"], "student": {"name": "small_cnn", "width": 8}}},
            "student.width 4 there, 8 here",
        ),
        ({"fixed": {**SMALL["fixed"], "attack.steps": 3}}, "attack.steps 2 there, 3 here"),
        (
            {"fixed": {**SMALL["fixed"], "attack.eps": "4/255"}},
            r"attack.eps 0.0313\d+ there, 0.0156\d+ here",
        ),
        ({"ladder": [{"epochs": 1}, {"epochs": 2}]}, "training.epochs 4 there, 2 here"),
        (
            {
                "search": {"optimizer.lr": SMALL["search"]["optimizer.lr"]},
                "fixed": {
                    **SMALL["fixed"],
                    "method": {"name": "trades", "consistency_weight": 2.0},
                },
            },
            "method.consistency_weight 6.0 there, 2.0 here",
        ),
    ],
    ids=["student", "attack", "eps", "length", "a value that was searched"],
)
def test_trials_that_this_space_could_not_have_trained_are_left_out(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    done = Study(claimed(tmp_path), load_space(tmp_path, scheduler={"name": "none"}), 2, {})
    FakeWorker().drive(done)
    with pytest.raises(
        StudyError,
        match=(f"no finished or stopped trial inside this space: the first was t00000, {reason}"),
    ):
        warm_start.from_study(
            tmp_path / "study", load_space(tmp_path / "other", first=[], **changes)
        )


def test_where_files_lie_and_what_the_machine_is_leave_a_trial_what_it_is(tmp_path: Path) -> None:
    done = Study(claimed(tmp_path), load_space(tmp_path, scheduler={"name": "none"}), 4, {})
    FakeWorker().drive(done)
    other = load_space(
        tmp_path / "other", fixed={**SMALL["fixed"], "training.device": "auto", "training.seed": 7}
    )
    assert len(warm_start.from_study(tmp_path / "study", other).observations) == 4


def teacher_asked(where: Path, **robust: Any) -> dict[str, Any]:
    return {
        "fixed": {
            **SMALL["fixed"],
            "method.name": "pgd_at",
            "teachers.robust": {"network": {"name": "small_cnn", "width": 4}, **robust},
        },
        "search": {
            "attack.objective": {"choice": ["label", "teacher_clean"]},
            "optimizer.lr": SMALL["search"]["optimizer.lr"],
        },
        "first": [
            {"label": o, "attack.objective": o, "optimizer.lr": 0.1}
            for o in ("label", "teacher_clean")
        ],
        "scheduler": {"name": "none"},
    }


@pytest.mark.parametrize("by", ["file", "recipe"])
def test_a_trial_with_another_teacher_is_left_out_and_one_without_is_not(
    tmp_path: Path, by: str
) -> None:
    recipe = {"method": {"name": "natural"}, "training": {"epochs": 1, "device": "cpu"}}
    path = teacher_file(tmp_path / "t.safetensors", seed=0)
    same: dict[str, Any] = {"path": str(path)} if by == "file" else {"recipe": recipe}
    space = load_space(tmp_path, **teacher_asked(tmp_path, **same))
    if by == "recipe":
        path = tmp_path / "study" / "teachers" / "FOLDER" / "best.safetensors"
    described = TeacherAccuracy("", 1.0, 1.0, 10, "")
    sha256 = fingerprint(tmp_path / "t.safetensors")
    earlier = Study(
        tmp_path / "study",
        space,
        2,
        {"teachers.robust.path": str(path), "teachers.robust.sha256": sha256},
    )
    FakeWorker().drive(earlier)
    study_file.describe(
        tmp_path / "study",
        space,
        {"robust": TeacherStep("robust", measured=described, path=str(path))},
    )
    if by == "recipe":
        file = tmp_path / "study" / "study.json"
        file.write_text(file.read_text().replace("FOLDER", made_in(space)))
    assert len(warm_start.from_study(tmp_path / "study", space).observations) == 2
    (tmp_path / "moved").mkdir()
    other: dict[str, Any] = {"recipe": {**recipe, "training": {"epochs": 2, "device": "cpu"}}}
    if by == "file":
        other = {"path": str(teacher_file(tmp_path / "moved" / "t.safetensors", seed=1))}
        moved = load_space(
            tmp_path / "moved",
            **teacher_asked(
                tmp_path, path=str(teacher_file(tmp_path / "moved" / "same.safetensors", seed=0))
            ),
        )
        assert len(warm_start.from_study(tmp_path / "study", moved).observations) == 2
    warmed = warm_start.from_study(
        tmp_path / "study", load_space(tmp_path / "moved", **teacher_asked(tmp_path, **other))
    )
    assert [s.hyperparameters["attack.objective"] for s in warmed.observations] == ["label"]
    why = "was another file" if by == "file" else "was trained by another recipe"
    assert (
        warmed.left_out
        == "; 1 are left out: this space could not have trained them (the first: t00001, its"
        f" robust teacher {why})"
    )


def made_in(space: Any) -> str:
    """The folder of the teacher that the space's recipe makes."""
    made_by = recipe_run(space.example(), "robust")
    assert made_by is not None
    return folder_of(made_by, Path()).name


def test_the_same_accuracies_on_other_images_are_no_warm_start(tmp_path: Path) -> None:
    FakeWorker().drive(Study(claimed(tmp_path), load_space(tmp_path), 2, {}))
    file = tmp_path / "study" / "study.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"split_sha256": "0"}))
    with pytest.raises(
        StudyError, match=r'--warm-start needs the same images \(split_sha256\), got "0" there, '
    ):
        warm_start.from_study(tmp_path / "study", load_space(tmp_path))


def test_what_the_earlier_study_trained_is_not_proposed_again(tmp_path: Path) -> None:
    # of one seed: chance would repeat itself
    space = load_space(tmp_path, first=[], sampler={"name": "random"})
    earlier = Study(claimed(tmp_path), space, 6, {})
    FakeWorker().drive(earlier)
    known = {trial.config.fingerprint() for trial in earlier.trials.values()}
    seen = warm_start.from_study(tmp_path / "study", space).observations
    later = Study(tmp_path / "later", space, 6, {}, warm_start=seen)
    FakeWorker().drive(later)
    assert len(later.trials) == 6
    assert not known & {trial.config.fingerprint() for trial in later.trials.values()}


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_of_a_finite_space_what_an_earlier_study_has_comes_last(
    tmp_path: Path, sampler: str
) -> None:
    space = load_space(
        tmp_path,
        first=[],
        search={
            "method.name": {"choice": ["natural", "pgd_at"]},
            "optimizer.lr": {"choice": [0.01, 0.02, 0.05, 0.1, 0.2, 0.3]},
        },
        sampler={"name": sampler},
    )
    earlier = Study(claimed(tmp_path), space, 6, {})
    FakeWorker().drive(earlier)
    known = {trial.config.fingerprint() for trial in earlier.trials.values()}
    seen = warm_start.from_study(tmp_path / "study", space).observations
    later = Study(tmp_path / "later", space, 8, {}, warm_start=seen)
    FakeWorker().drive(later)
    asked = [trial.config.fingerprint() for trial in later.trials.values()]
    assert [one in known for one in asked] == [False] * 6 + [True] * 2

import json
from pathlib import Path
from typing import Any

import pytest

from rkdsearch.errors import StudyError
from rkdsearch.search import folder, warm
from rkdsearch.search.study import Study
from tests.search.files import CAPPED, SMALL, FakeWorker, load_space


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


RECIPE = {"method": {"name": "natural"}, "training": {"epochs": 1, "device": "cpu"}}
TEACHERS = {role: {"network": {"name": "mlp", "width": 4}, "recipe": RECIPE} for role in ("robust", "natural")}


@pytest.mark.parametrize(
    ("search", "first", "ready", "skipped"),
    [
        ({"method.name": {"choice": ["natural", "pgd_at"]}}, [], [], ["robust", "natural"]),
        ({"method.name": {"choice": ["natural", "rslad"]}}, [], ["robust"], ["natural"]),
        ({"method.name": {"choice": ["natural", "pgd_at"]}}, [{"method.name": "kd", "method.teacher": "natural"}], ["natural"], ["robust"]),
        ({"method.name": {"choice": ["pgd_at"]}, "attack.objective": {"choice": ["label", "teacher_clean"]}}, [], ["robust"], ["natural"]),
    ],
    ids=["nobody", "a method", "a baseline", "an inner problem"],
)  # fmt: skip
def test_only_teachers_that_some_run_of_the_space_asks_are_made(
    tmp_path: Path, search: dict[str, Any], first: list[dict[str, Any]], ready: list[str], skipped: list[str]
) -> None:
    fixed = {**SMALL["fixed"], "validation.images": 30, "validation.attack": {"steps": 1}, "teachers": TEACHERS}
    space = load_space(tmp_path, fixed=fixed, search=search, first=first)
    steps = list(folder.prepare_teachers(tmp_path / "study", space))
    assert [step.role for step in steps if step.measured] == ready
    assert [step.role for step in steps if step.skipped] == skipped
    assert len(list(tmp_path.glob("study/teachers/*"))) == len(ready)
    folder.describe(tmp_path / "study", space, {step.role: step for step in steps if step.measured})
    described = json.loads((tmp_path / "study" / "study.json").read_text())["teachers"]
    assert {role: facts["measured_on"] for role, facts in described.items()} == dict.fromkeys(
        ready, "validation images, held out from its training"
    )


def test_a_damaged_description_is_said_to_be_damaged(tmp_path: Path) -> None:
    study = claimed(tmp_path)
    (study / "study.json").write_text("{")
    with pytest.raises(StudyError, match=r"study.json: is damaged"):
        folder.claim(study, load_space(tmp_path), resume=True)


def test_a_warm_start_takes_what_lies_in_the_space_and_keeps_it(tmp_path: Path) -> None:
    space = load_space(tmp_path)
    earlier = claimed(tmp_path)
    done = Study(earlier, space, 8, {})
    FakeWorker().drive(done)
    search = {**SMALL["search"], "method.name": {"choice": ["trades"]}}
    narrow = load_space(tmp_path / "narrow", search=search, ladder=[{"epochs": 2}, {"epochs": 8}], seed=9)
    inside = [t for t in done.trials.values() if narrow.searched(t.overrides) is not None]
    seen = warm.prepare(tmp_path / "new", earlier, narrow, existed=False)
    assert 1 <= len(seen) == len(inside) < 8
    # A stopped trial at a quarter of its run is on this ladder's first rung of two; a finished one is at its end.
    assert [s.rungs_short for s in seen] == [0 if t.status == "finished" else 1 for t in inside]
    assert [s.values[0] for s in seen] == [t.best.clean_accuracy for t in inside if t.best]
    assert warm.prepare(tmp_path / "new", None, narrow, existed=True) == seen


def test_a_stopped_trial_of_a_weaker_protocol_warms_nobody(tmp_path: Path) -> None:
    capped = load_space(tmp_path / "capped", **CAPPED, scheduler={"reduction": 2})
    earlier = Study(tmp_path / "earlier", capped, 8, {})
    FakeWorker().drive(earlier)
    folder.describe(tmp_path / "earlier", capped, {})
    alike = warm.from_study(tmp_path / "earlier", capped)
    assert {seen.rungs_short for seen in alike} >= {0, 2}
    whole = load_space(tmp_path / "whole", **{**CAPPED, "ladder": [{"epochs": 1}, {"epochs": 2}, {"epochs": 4}]})
    steps = [(seen.params["attack.steps"], seen.rungs_short) for seen in warm.from_study(tmp_path / "earlier", whole)]
    # rung 2 had the whole exam, and its cap does not touch two steps; rung 1 had a shorter exam
    assert all(short == 0 or (attack == 2 and short == 1) for attack, short in steps)


def test_a_search_that_began_cold_stays_cold(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"has begun without --warm-start and must go on so"):
        warm.prepare(claimed(tmp_path), tmp_path, load_space(tmp_path), existed=True)


def test_accuracies_of_another_exam_are_no_warm_start(tmp_path: Path) -> None:
    FakeWorker().drive(Study(claimed(tmp_path), load_space(tmp_path), 2, {}))
    other = load_space(tmp_path / "o", fixed={**SMALL["fixed"], "validation.attack.eps": 0.5})
    with pytest.raises(StudyError, match="--warm-start needs the same exam"):
        warm.from_study(tmp_path / "study", other)
    with pytest.raises(StudyError, match="--warm-start needs a study, and there are no trials"):
        warm.from_study(tmp_path / "typo", other)

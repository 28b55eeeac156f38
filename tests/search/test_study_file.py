import json
import sys
from pathlib import Path

import pytest

from rkdsearch import plugins
from rkdsearch.errors import DataError, StudyError
from rkdsearch.search import study_file
from tests.data.files import write_folder
from tests.results import version_1
from tests.search.files import SMALL, load_space, run


def claimed(tmp_path: Path) -> Path:
    study_file.describe(tmp_path / "study", load_space(tmp_path), {})
    return tmp_path / "study"


def test_an_empty_folder_is_free(tmp_path: Path) -> None:
    assert not study_file.claim(tmp_path, load_space(tmp_path / "s"), resume=False)


def test_a_study_that_exists_asks_for_resume(tmp_path: Path) -> None:
    with pytest.raises(
        StudyError,
        match=(
            r"holds a study already; continue it with --resume, or name another folder with --study"
        ),
    ):
        study_file.claim(claimed(tmp_path), load_space(tmp_path), resume=False)


def test_a_changed_range_is_refused_and_named(tmp_path: Path) -> None:
    search = {**SMALL["search"], "optimizer.lr": {"float": [0.01, 0.2], "log": True}}
    with pytest.raises(
        StudyError,
        match=(
            r"was made by another space: search.optimizer.lr was .*0.3.*, is .*0.2.*: earlier"
            r" trials would lie outside.*; or give this search a folder"
        ),
    ):
        study_file.claim(claimed(tmp_path), load_space(tmp_path, search=search), resume=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"ladder": [{"epochs": 2}]},
        {"ladder": [{"epochs": 1, "training_attack_steps": 1}, *SMALL["ladder"][1:]]},
        {"seed": 4},
        {"fixed": {**SMALL["fixed"], "attack.steps": 3}},
        {"scheduler": {"name": "none"}},
        {"resources": {"processes": 2}},
    ],
)
def test_whatever_makes_trials_comparable_may_not_change(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    with pytest.raises(StudyError, match="was made by another space"):
        study_file.claim(claimed(tmp_path), load_space(tmp_path, **changes), resume=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"resources": {"cpu": 2}},
        {"sampler": {"name": "random"}},
        {"scheduler": {"reduction": 2}},
        {"constraints": {"parameters": 10**6}},
    ],
)
def test_who_proposes_who_stops_and_on_what_may_change(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    assert study_file.claim(claimed(tmp_path), load_space(tmp_path, **changes), resume=True)


def test_a_setting_that_changed_is_said_in_a_line_and_one_that_did_not_is_not(
    tmp_path: Path,
) -> None:
    study, said = claimed(tmp_path), list[str]()
    assert study_file.claim(study, load_space(tmp_path), resume=True, notice=said.append)
    assert said == []
    changes = {
        "sampler": {**SMALL["sampler"], "name": "random"},
        "scheduler": {**SMALL["scheduler"], "kind": "stopping"},
        "constraints": {"parameters": 10**6},
        "replicates": {"seeds": 2, "contenders": 5},
        "resources": {"cpu": 2},
    }
    study_file.claim(study, load_space(tmp_path, **changes), resume=True, notice=said.append)
    assert said == [
        "sampler.name was tpe, is random: accepted, proposals differ from here on",
        "scheduler.kind was promotion, is stopping: accepted, decisions differ from here on",
        (
            "constraints.parameters was not there, is 1000000: accepted, the front changes,"
            " and proposals differ from here on"
        ),
        (
            "replicates.seeds was 0, is 2: accepted, replicates differ from here on, and the front"
            " changes"
        ),
        (
            "replicates.contenders was 8, is 5: accepted, replicates differ from here on, and the"
            " front changes"
        ),
    ]
    study_file.describe(study, load_space(tmp_path, **changes), {})
    study_file.claim(study, load_space(tmp_path, **changes), resume=True, notice=said.append)
    assert len(said) == 5, "once is enough"


def test_an_older_description_says_nothing_of_who_proposes_and_of_processes(tmp_path: Path) -> None:
    study, said = claimed(tmp_path), list[str]()
    described = json.loads((study / "study.json").read_text())
    del (
        described["must_match"]["resources.processes"],
        described["sampler"],
        described["scheduler"],
        described["replicates"],
    )
    (study / "study.json").write_text(json.dumps(described))
    assert study_file.claim(
        study,
        load_space(tmp_path, sampler={"name": "random"}, replicates={"seeds": 1}),
        resume=True,
        notice=said.append,
    )
    assert said == []
    assert study_file.claim(study, load_space(tmp_path, resources={"processes": 2}), resume=True)


def test_a_description_of_schema_version_1_is_compared_under_its_old_names(tmp_path: Path) -> None:
    papers = {**SMALL["fixed"], "validation.attack.objective": "cross_entropy"}
    space, study = load_space(tmp_path, fixed=papers), tmp_path / "study"
    study_file.describe(study, space, {})
    version_1.rewrite(study)
    old = json.loads((study / "study.json").read_text(encoding="utf-8"))
    assert {"laws", "exam"} < set(old)
    assert study_file.claim(study, space, resume=True)
    with pytest.raises(StudyError, match="seed was 3, is 1"):
        study_file.claim(study, load_space(tmp_path, seed=1, fixed=papers), resume=True)
    study_file.describe(study, space, {})
    new = json.loads((study / "study.json").read_text(encoding="utf-8"))
    assert new["schema_version"] == 3
    assert {"must_match", "validation_attack"} < set(new)
    assert not {"laws", "exam"} & set(new)


def test_a_study_resumes_with_the_validation_attack_that_its_trials_had(tmp_path: Path) -> None:
    papers = {**SMALL["fixed"], "validation.attack.objective": "cross_entropy"}
    study = tmp_path / "study"
    study_file.describe(study, load_space(tmp_path, fixed=papers), {})
    # Written before the field existed: neither the space nor the study names it.
    described = json.loads((study / "study.json").read_text(encoding="utf-8"))
    del described["validation_attack"]["objective"], described["schema_version"]
    (study / "study.json").write_text(json.dumps(described), encoding="utf-8")
    assert study_file.claim(study, load_space(tmp_path, fixed=papers), resume=True)
    text = (
        'validation.attack.objective was "cross_entropy", is "margin"; set'
        ' fixed.validation.attack.objective to "cross_entropy" in the space'
    )
    with pytest.raises(StudyError, match=text):
        study_file.claim(study, load_space(tmp_path), resume=True)
    shorter = {**papers, "validation.attack.steps": 5}
    with pytest.raises(StudyError, match=r"validation.attack.steps was 20, is 5"):
        study_file.claim(study, load_space(tmp_path, fixed=shorter), resume=True)


def test_a_study_whose_rungs_have_old_names_resumes_with_the_same_ladder(tmp_path: Path) -> None:
    rungs = [{"epochs": 1, "attack_steps": 1, "validation_steps": 2}, {"epochs": 2}]
    old = load_space(tmp_path, ladder=rungs)
    study = tmp_path / "study"
    study.mkdir()
    study_file.describe(study, old, {})
    described = json.loads((study / "study.json").read_text())
    assert described["must_match"]["ladder"][0]["training_attack_steps"] == 1
    described["must_match"]["ladder"] = rungs
    del described["schema_version"]
    (study / "study.json").write_text(json.dumps(described))
    assert study_file.claim(study, old, resume=True)
    other = load_space(tmp_path, ladder=[{**rungs[0], "attack_steps": 2}, rungs[1]])
    with pytest.raises(StudyError, match="ladder was"):
        study_file.claim(study, other, resume=True)


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
    assert study_file.must_match(made) == study_file.must_match(moved)
    # what is said of a teacher has no effect on a trial: a refuted claim may be corrected
    claim = {"robust_accuracy": 0.9, "clean_accuracy": 0.95, "trained_on": "other"}
    said = load_space(tmp_path, fixed={**fixed, "teachers.robust": {**robust, **claim}})
    assert study_file.must_match(said) == study_file.must_match(made)
    other = load_space(
        tmp_path / "other",
        fixed={**fixed, "teachers.robust": {**robust, "network": {"name": "small_cnn"}}},
    )
    assert study_file.must_match(made) != study_file.must_match(other)


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_damaged_description_is_said_to_be_damaged(tmp_path: Path, text: str) -> None:
    study = claimed(tmp_path)
    (study / "study.json").write_text(text)
    with pytest.raises(
        StudyError,
        match=(
            r"study.json: is damaged, .*; put a whole copy of it back, or give this search a folder"
            r" of its own"
        ),
    ):
        study_file.claim(study, load_space(tmp_path), resume=True)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("row", ["t00000.parquet", "run.parquet"])
def test_trials_without_a_description_are_not_written_over(
    tmp_path: Path, row: str, *, resume: bool
) -> None:
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / row).touch()
    with pytest.raises(
        StudyError,
        match=r"holds trials but no study.json; put it back, or name another folder with --study",
    ):
        study_file.claim(tmp_path, load_space(tmp_path / "s"), resume=resume)


def test_the_study_lists_every_command_that_made_it_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, study = load_space(tmp_path), tmp_path / "study"
    for words in (["tune", "a.yaml", "--trials", "3"], ["tune", "a.yaml", "--resume"]):
        monkeypatch.setattr(sys, "argv", ["rkdsearch", *words])
        for _ in range(2):
            study_file.describe(study, space, {})
    commands = json.loads((study / "study.json").read_text())["commands"]
    assert [entry["command"] for entry in commands] == [
        "rkdsearch tune a.yaml --trials 3",
        "rkdsearch tune a.yaml --resume",
    ]
    assert commands[0]["versions"]["torch"]


def test_a_search_says_at_its_start_what_it_will_miss_and_what_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "images", {"train/cat": 6, "train/dog": 4})
    images = {"name": f"folder:{tmp_path / 'images'}", "validation_fraction": 0.3}
    space = load_space(tmp_path, fixed={**SMALL["fixed"], "data": images})
    study = tmp_path / "study"
    study.mkdir()
    packages = {"lab": {"sha256": "ab" * 32, "git_commit": "0f3c1d2"}}
    known = {"schema_version": 2, "packages": packages}
    (study / "study.json").write_text(json.dumps(known), encoding="utf-8")
    now = {"lab": {"sha256": "cd" * 32, "git_commit": None}}
    monkeypatch.setattr(plugins, "imported_packages", lambda: now)
    said = list[str]()
    study_file.check_files(study, space, said.append)
    assert "has no test images" in said[0]
    assert said[1] == (
        f"{study}: the package lab has changed: its sha256 was abababababab (commit 0f3c1d2), is"
        " cdcdcdcdcdcd; what is trained from here on is trained by other code than what was trained"
        " before"
    )


def test_too_few_validation_images_of_a_rung_are_told_before_compute_is_spent(
    tmp_path: Path,
) -> None:
    ladder = [{"epochs": 1, "validation_images": 5}, {"epochs": 4}]
    space = load_space(tmp_path, ladder=ladder)
    with pytest.raises(
        DataError, match=r"^ladder.0.validation_images: 5 of \d+ images were asked for, but 10"
    ):
        study_file.check_files(tmp_path / "study", space)


def test_fewer_seeds_than_have_begun_are_refused_before_anything_is_accepted(
    tmp_path: Path,
) -> None:
    two, one = ({"seeds": seeds, "contenders": 2, "baselines": False} for seeds in (2, 1))
    space = load_space(tmp_path, replicates=two, scheduler={"name": "none"})
    run(tmp_path / "s", space).close()
    study_file.describe(tmp_path / "s", space, {})
    said = list[str]()
    with pytest.raises(StudyError, match=r"replicates.seeds is 1, and 2 replicates of some trials"):
        study_file.claim(
            tmp_path / "s",
            load_space(tmp_path, replicates=one, scheduler={"name": "none"}),
            resume=True,
            notice=said.append,
        )
    assert said == []


def test_a_study_of_a_newer_release_is_not_continued(tmp_path: Path) -> None:
    space = load_space(tmp_path)
    study_file.describe(tmp_path / "study", space, {})
    file = tmp_path / "study" / "study.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": 99}))
    with pytest.raises(StudyError, match=r"schema_version is 99, and this rkdsearch knows"):
        study_file.claim(tmp_path / "study", space, resume=True)

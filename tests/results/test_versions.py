import json
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from rkdsearch.reporting import page
from rkdsearch.results.cells import records
from rkdsearch.results.store import Store
from rkdsearch.results.study import StudyResults, read_study
from tests.results import version_1
from tests.results.factory import forget_checks, make_study

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def test_every_table_of_version_1_is_read_under_the_names_of_version_2(tmp_path: Path) -> None:
    version_1.write(
        tmp_path,
        "trials",
        "a",
        {
            "trial_id": ["a"],
            "ordinal": [0],
            "origin": ["first"],
            "status": ["finished"],
            "sampled": ['{"optimizer.lr": 0.1}'],
            "metric.clean_accuracy": [0.9],
            "metric.images": [150],
        },
    )
    version_1.write(tmp_path, "epochs", "a", {"trial_id": ["a"], "leg": [1], "epoch": [3]})
    version_1.write(
        tmp_path,
        "rungs",
        "a",
        {
            "trial_id": ["a"],
            "rung": [3],
            "attack_steps": [10],
            "decision": ["promoted"],
            "decided": [NOON],
            "training_attack_steps": [2],
            "images": [100],
        },
    )
    version_1.write(
        tmp_path,
        "evaluations",
        "a-best-pgd20-0-c",
        {
            "trial_id": ["a"],
            "checkpoint": ["best"],
            "attack": ["pgd20"],
            "seed": [0],
            "steps": [20],
            "images": [9],
        },
    )

    store = Store(tmp_path)
    (trial,) = records(store.trials())
    assert (trial["origin"], trial["hyperparameters"]) == ("baseline", '{"optimizer.lr": 0.1}')
    assert (trial["metric.clean_accuracy"], trial["fidelity.validation_images"]) == (0.9, 150)
    (epoch,) = records(store.epochs())
    assert (epoch["segment"], epoch["epoch"]) == (1, 3)
    (rung,) = records(store.rungs())
    assert (rung["epochs"], rung["validation_attack_steps"]) == (3, 10)
    assert (rung["training_attack_steps"], rung["validation_images"]) == (2, 100)
    (test,) = records(store.evaluations())
    assert (test["test_attack_steps"], test["images"], test["attack_seed"]) == (20, 9, 0)
    assert not store.damaged
    for table in (store.trials(), store.epochs(), store.rungs(), store.evaluations()):
        old = {"sampled", "metric.images", "leg", "rung", "attack_steps", "steps"}
        assert not old & set(table.columns)


def test_version_2_called_the_seed_of_an_attack_seed(tmp_path: Path) -> None:
    row = {"trial_id": "a", "checkpoint": "best", "attack": "pgd20", "attack_seed": 3}
    Store(tmp_path).write_evaluation({**row, "subset_sha256": "c" * 64})
    (file,) = (tmp_path / "evaluations").iterdir()
    table = pq.ParquetFile(file).read()
    names = ["seed" if name == "attack_seed" else name for name in table.column_names]
    metadata = {"rkdsearch.table": "evaluations", "rkdsearch.schema_version": "2"}
    pq.write_table(table.rename_columns(names).replace_schema_metadata(metadata), file)
    assert Store(tmp_path).evaluations()["attack_seed"].tolist() == [3]


def test_the_other_origins_of_version_1_stay_as_they_are(tmp_path: Path) -> None:
    for name, origin in (("a", "search"), ("b", "replicate"), ("c", None)):
        version_1.write(tmp_path, "trials", name, {"trial_id": [name], "origin": [origin]})
    assert records(Store(tmp_path).trials()[["trial_id", "origin"]]) == [
        {"trial_id": "a", "origin": "search"},
        {"trial_id": "b", "origin": "replicate"},
        {"trial_id": "c", "origin": None},
    ]


@pytest.fixture(scope="module")
def rewritten(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyResults, StudyResults]:
    """A study of version 2, and the same as version 1."""
    folder = tmp_path_factory.mktemp("versions") / "study"
    forget_checks(make_study(folder))
    new = read_study(folder)
    assert min(version_1.rewrite(folder).values()) > 0
    return new, read_study(folder)


@pytest.mark.parametrize("table", ["trials", "epochs", "rungs", "evaluations"])
def test_a_study_of_version_1_reads_as_the_same_study_of_version_2(
    rewritten: tuple[StudyResults, StudyResults], table: str
) -> None:
    new, old = rewritten
    pd.testing.assert_frame_equal(getattr(old, table), getattr(new, table))
    assert old.description == new.description
    pd.testing.assert_frame_equal(old.front, new.front)
    assert not old.damaged


def test_files_of_both_versions_stand_side_by_side(tmp_path: Path) -> None:
    version_1.write(tmp_path, "rungs", "a", {"trial_id": ["a"], "rung": [3], "decided": [NOON]})
    Store(tmp_path).write_rungs("b", [{"epochs": 6, "decided": NOON}])
    assert Store(tmp_path).rungs()["epochs"].tolist() == [3, 6]


def test_a_description_of_version_1_is_read_under_the_names_of_version_2(tmp_path: Path) -> None:
    text = {"name": "digits", "exam": {"steps": 10}, "laws": {"seed": 3}, "version": "0.1.0"}
    (tmp_path / "study.json").write_text(json.dumps(text), encoding="utf-8")
    assert Store(tmp_path).description() == {
        "name": "digits",
        "validation_attack": {"objective": "cross_entropy", "steps": 10},
        "must_match": {"seed": 3},
        "version": "0.1.0",
    }


def test_the_page_of_a_version_1_study_says_the_same(
    rewritten: tuple[StudyResults, StudyResults],
) -> None:
    new, old = (page.context(study) for study in rewritten)
    same = set(new) - {"study", "cost"}
    assert {name: old[name] for name in same} == {name: new[name] for name in same}


def test_trials_of_version_1_were_validated_by_pgd_on_the_cross_entropy(tmp_path: Path) -> None:
    version_1.write(tmp_path, "trials", "a", {"trial_id": ["a"], "ordinal": [0]})
    assert list(Store(tmp_path).trials()["config.validation.attack.objective"]) == ["cross_entropy"]
    (tmp_path / "study.json").write_text(json.dumps({"name": "old", "exam": {"steps": 10}}))
    assert Store(tmp_path).description()["validation_attack"] == {
        "objective": "cross_entropy",
        "steps": 10,
    }


def test_what_autoattacks_package_said_before_version_3_is_a_warning_and_no_flag(
    tmp_path: Path,
) -> None:
    old = {"trial_id": ["a"], "attack": ["autoattack"], "flags": ['["randomised"]']}
    version_1.write(tmp_path, "evaluations", "a", old, version="2")
    version_1.write(tmp_path, "evaluations", "b", {**old, "trial_id": ["b"]})
    for row in records(Store(tmp_path).evaluations()):
        assert (row["warnings"], row["flags"], row["check.images"]) == (
            '["randomised"]',
            None,
            None,
        )


def test_an_l2_ball_without_radius_had_that_of_linf(tmp_path: Path) -> None:
    laws = {"fixed.attack.norm": "l2", "fixed.teachers.robust.recipe.attack.norm": "l2"}
    searched = {"search.attack.eps": {}, "fixed.attack.norm": "l2"}
    for given, eps in (
        (laws, {"fixed.attack.eps": 8 / 255, "fixed.teachers.robust.recipe.attack.eps": 8 / 255}),
        (
            {**laws, "fixed.attack.norm": "linf"},
            {"fixed.teachers.robust.recipe.attack.eps": 8 / 255},
        ),
        ({"fixed.attack.norm": "l2", "fixed.attack.eps": 0.5}, {}),
        (searched, {}),
    ):
        text = {"schema_version": 2, "must_match": given}
        (tmp_path / "study.json").write_text(json.dumps(text), encoding="utf-8")
        assert Store(tmp_path).description()["must_match"] == {**eps, **given}


def test_a_table_that_pandas_has_rewritten_is_read_as_it_stands(tmp_path: Path) -> None:
    store = Store(tmp_path)
    opened = datetime(2026, 11, 21, tzinfo=UTC)
    opening = {"opening": "1", "opened": opened, "split": "test", "checkpoints": {}}
    store.write_opening(opening)
    store.write_trial({"trial_id": "a", "origin": "baseline", "hyperparameters": "{}"})
    for file in (*tmp_path.glob("openings/*"), *tmp_path.glob("trials/*")):
        frame = pd.read_parquet(file)
        file.unlink()
        frame.to_parquet(file)  # no schema of ours is left
    again = Store(tmp_path)
    assert records(again.openings()[["split", "checkpoints"]]) == [
        {"split": "test", "checkpoints": "{}"}
    ]
    assert records(again.trials()[["trial_id", "origin"]]) == [
        {"trial_id": "a", "origin": "baseline"}
    ]
    assert again.damaged == []

from pathlib import Path
from typing import Any

import pytest

from rkdsearch import data
from rkdsearch.config import TeacherConfig, TrainConfig
from rkdsearch.errors import TeacherError
from rkdsearch.models import ModelConfig
from rkdsearch.training import teacher
from rkdsearch.training.teacher import Measured, check_claims
from tests.training.runs import described, train

RECIPE: dict[str, Any] = {
    "method": {"name": "pgd_at"},
    "attack": {"eps": 0.1, "steps": 1},
    "training": {"epochs": 2, "batch_size": 50, "device": "cpu"},
}


def with_recipe(teachers: Path) -> TrainConfig:
    return described(teachers, teachers={"robust": {"path": None, "recipe": RECIPE}})


def claimed(**claims: float) -> TeacherConfig:
    return TeacherConfig(network=ModelConfig(), path="teacher.safetensors", **claims)


def test_a_recipes_run_has_its_own_loop_and_the_studys_data_and_exam(teachers: Path) -> None:
    config = with_recipe(teachers)
    made_by = teacher.recipe_run(config, "robust")
    assert made_by is not None
    assert (made_by.training.epochs, made_by.attack.steps) == (2, 1)
    assert (made_by.data, made_by.validation) == (config.data, config.validation)
    assert made_by.student == ModelConfig(name="small_cnn", width=4)
    assert teacher.recipe_run(config, "natural") is None  # it has a file


def test_a_teacher_is_made_once_and_then_known_by_file_and_hash(teachers: Path, tmp_path: Path) -> None:
    config = with_recipe(teachers)
    made_by = teacher.recipe_run(config, "robust")
    assert made_by is not None
    home = teacher.folder_of(made_by, tmp_path)
    assert not teacher.is_trained(made_by, home)
    train(made_by, home, epochs=1)
    assert not teacher.is_trained(made_by, home)
    train(made_by, home)
    assert teacher.is_trained(made_by, home)
    assert [e.epoch for e in teacher.history_of(home)] == [1, 2]
    assert config.teachers.robust is not None
    ready = teacher.from_folder(config.teachers.robust, home)
    assert (ready.recipe, len(ready.sha256 or "")) == (None, 64)
    measured = teacher.measure(ready, data.load_training(config.data), config.validation)
    best = teacher.history_of(home)[-1].best
    assert best is not None
    assert (measured.clean_accuracy, measured.robust_accuracy, measured.images) == (best.clean_accuracy, best.robust_accuracy, 30)


@pytest.mark.parametrize(("claim", "believed"), [(0.52, True), (0.49, True), (0.45, True), (0.55, False)])
def test_a_claim_is_refuted_only_by_less_than_its_interval_allows(claim: float, believed: bool) -> None:
    measured = Measured("", clean_accuracy=0.9, robust_accuracy=0.5, images=10_000)  # 99 %: 0.487 to 0.513, and a point more
    if believed:
        check_claims(claimed(robust_accuracy=claim), measured, "x.yaml")
    else:
        with pytest.raises(
            TeacherError, match=rf"x\.yaml: robust_accuracy is claimed to be {claim:.3f} and was measured as 0\.500 on 10000"
        ):
            check_claims(claimed(robust_accuracy=claim), measured, "x.yaml")


def test_who_claims_nothing_is_not_checked() -> None:
    check_claims(claimed(), Measured("", 0.1, 0.0, 100), "x.yaml")

import json
from pathlib import Path
from typing import Any

import pytest

from rkdsearch import config as configs
from rkdsearch import methods
from rkdsearch.config import TrainConfig
from rkdsearch.errors import ConfigError

TEACHER = {"path": "teacher.safetensors"}
BOTH = {"robust": TEACHER, "natural": TEACHER}


def built(**values: Any) -> TrainConfig:
    return configs.build({"method": {"name": "rslad"}, "teachers": BOTH, **values})


def test_dotted_and_nested_names_are_the_same_names() -> None:
    dotted = {"method.name": "rslad", "method.temperature": 4.0, "attack.eps": 0.1, "teachers.robust.path": "t.pt"}
    nested = {"method": {"name": "rslad", "temperature": 4.0}, "attack": {"eps": 0.1}, "teachers": {"robust": {"path": "t.pt"}}}
    mixed = {"method": {"name": "rslad"}, "method.temperature": 4.0, "attack": {"eps": 0.1}, "teachers.robust": {"path": "t.pt"}}
    assert configs.build(dotted) == configs.build(nested) == configs.build(mixed)


def test_an_eps_may_be_written_as_the_field_writes_it() -> None:
    config = built(**{"attack.eps": "8/255", "validation.attack.eps": " 4 / 255 "})
    assert (config.attack.eps, config.validation.attack.eps) == (8 / 255, 4 / 255)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"attack.eps": 0.1, "attack": {"eps": 0.2}}, "x.yaml: attack.eps is given twice, as 0.1 and as 0.2"),
        ({"attack": 0.1, "attack.eps": 0.2}, "x.yaml: attack.eps needs a section 'attack', which already holds the value 0.1"),
        ({"attack.eps": 0.1, "attack": {"eps": {"deep": 1}}}, "x.yaml: attack.eps.deep needs a section 'eps', which already holds the value 0.1"),
        ({"attack": 0.1, "attack.eps.deep": 1}, "x.yaml: attack.eps.deep needs a section 'attack', which already holds the value 0.1"),
        ({"method.temprature": 2.0}, "x.yaml: unknown field method.temprature; did you mean 'temperature'?"),
        ({"optimizer.lrr": 2.0}, "x.yaml: unknown field optimizer.lrr; did you mean 'lr'?"),
        ({"validation.attack.epsilon": 2.0}, "x.yaml: unknown field validation.attack.epsilon; did you mean 'eps'?"),
        ({"optimiser": {"lr": 2.0}}, "x.yaml: unknown field optimiser; did you mean 'optimizer'?"),
        ({"method.temperature": 0.0}, "x.yaml: method.temperature must be > 0, got 0.0"),
        ({"training.epochs": 0}, "x.yaml: training.epochs must be >= 1, got 0"),
        ({"attack.eps": "8/0"}, "x.yaml: attack.eps must be a valid number, unable to parse string as a number, got '8/0'"),
        ({"optimizer": {"lr": -1, "momentum": 2}}, "x.yaml: optimizer.lr must be > 0, got -1 (and 1 more)"),
        ({"optimizer": {"nesterov": True, "momentum": 0}}, "x.yaml: optimizer: nesterov needs sgd with momentum > 0, got sgd with momentum 0.0"),
        ({"schedule.milestones": [0.7, 0.5]}, "x.yaml: schedule: milestones must increase, got [0.7, 0.5]"),
        ({"teachers": "teacher.pt"}, "x.yaml: teachers must be a valid dictionary or instance of TeachersConfig, got 'teacher.pt'"),
        (
            {"teachers": {}},
            "x.yaml: method 'rslad' learns from a robust teacher, and there is none: set teachers.robust.path or teachers.robust.recipe",
        ),
        ({"method": {"name": "rslda"}}, "x.yaml: method.name: unknown method 'rslda'; did you mean 'rslad'?"),
        (
            {"teachers": {"robust": {"recipe": {"method": {"name": "rslad"}}}}},
            "x.yaml: teachers.robust.recipe: a teacher is trained without a teacher, and method 'rslad' asks a robust one: choose pgd_at or trades",
        ),
        (
            {"teachers": {"robust": {"recipe": {"method": {"name": "pgd_at"}, "attack": {"objective": "teacher_clean"}}}}},
            "x.yaml: teachers.robust.recipe: a teacher is trained without a teacher, and attack.objective 'teacher_clean' asks one: choose label",
        ),
        (
            {"teachers": {"robust": {**TEACHER, "trained_on": "cifar10"}}},
            "x.yaml: teachers.robust.trained_on must be 'train' or 'other', got 'cifar10'",
        ),
        ({"teachers": {"robust": {"recipe": {"method": {"name": "pgd_at", "x": 1}}}}}, "x.yaml: unknown field teachers.robust.recipe.method.x"),
    ],
)  # fmt: skip
def test_a_broken_law_is_one_sentence_with_place_law_value_and_way_out(values: dict[str, Any], sentence: str) -> None:
    base: dict[str, Any] = {"method.name": "rslad", "teachers": BOTH}
    if "method" in values:
        del base["method.name"]
    with pytest.raises(ConfigError) as error:
        configs.build({**base, **values}, "x.yaml")
    assert str(error.value).startswith(sentence)


def test_a_run_without_a_method_lists_them() -> None:
    with pytest.raises(ConfigError, match=r"x\.yaml: method\.name is required; choose one of .*rslad"):
        configs.build({}, "x.yaml")


def test_an_inner_problem_that_asks_a_teacher_needs_one() -> None:
    with pytest.raises(
        ConfigError, match=r"attack\.objective 'teacher_clean' asks a robust teacher, and there is none: set teachers\.robust"
    ):
        configs.build({"method.name": "pgd_at", "attack.objective": "teacher_clean"})


def test_an_override_replaces_one_leaf_and_leaves_the_others() -> None:
    merged = configs.merge({"optimizer": {"name": "sgd", "lr": 0.1}, "training.epochs": 3}, {"optimizer.lr": 0.2})
    assert merged == {"optimizer": {"name": "sgd", "lr": 0.2}, "training": {"epochs": 3}}


def test_another_name_begins_its_section_afresh_and_the_same_name_does_not() -> None:
    base = {"method": {"name": "rslad", "temperature": 4.0}, "optimizer": {"lr": 0.1}}
    assert configs.merge(base, {"method.name": "trades"}) == {"method": {"name": "trades"}, "optimizer": {"lr": 0.1}}
    assert configs.merge(base, {"method.name": "trades", "method.consistency_weight": 6.0})["method"] == {
        "name": "trades",
        "consistency_weight": 6.0,
    }
    assert configs.merge(base, {"method.name": "rslad"})["method"] == {"name": "rslad", "temperature": 4.0}


def test_a_run_asks_the_teachers_of_its_method_and_of_its_inner_problem() -> None:
    assert built(method={"name": "natural"}).asked_teachers == ()
    assert built(method={"name": "iad", "form": "iad2"}).asked_teachers == ("robust", "natural")
    assert built(method={"name": "pgd_at"}, **{"attack.objective": "teacher_clean"}).asked_teachers == ("robust",)
    assert built(**{"attack.objective": "teacher_adversarial"}).asked_teachers == ("robust",)
    assert built(method={"name": "kd", "teacher": "natural"}, **{"attack.objective": "student_clean"}).asked_teachers == ("natural",)


def test_a_file_with_overrides_on_top_is_a_run(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("method: {name: pgd_at}\nattack.eps: 8/255\n")
    assert configs.load(file, {"attack.eps": "4/255"}).attack.eps == 4 / 255
    for text, complaint in {
        "- a": "must hold names and values, got list",
        "a: [": "is not YAML: ",
        "a: !!python/object:os.x {}": "is not YAML",
    }.items():
        file.write_text(text)
        with pytest.raises(ConfigError, match=complaint):
            configs.load(file)
    with pytest.raises(ConfigError, match="there is no such file"):
        configs.load(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match="is a folder, not a YAML file"):
        configs.load(tmp_path)


def test_where_the_config_is_silent_the_methods_paper_speaks() -> None:
    for name in methods.names():
        paper, config = methods.load(name).attack_defaults, built(method={"name": name})
        assert (config.attack.start, config.attack.batchnorm) == (paper.start, paper.batchnorm)
    assert built(**{"attack.start": "none"}).attack.start == "none"


def test_a_file_that_is_there_is_the_teacher_and_its_recipe_no_part_of_the_run() -> None:
    recipe = {"recipe": {"method": {"name": "pgd_at"}}}
    with_both = built(teachers={"robust": {**TEACHER, **recipe}, "natural": TEACHER})
    assert with_both.fingerprint() == built().fingerprint()


@pytest.mark.parametrize("name", methods.names())
def test_a_run_comes_back_from_its_values(name: str) -> None:
    config = built(method={"name": name})
    again = configs.build(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.fingerprint() == config.fingerprint()


def test_a_fingerprint_is_of_the_values_and_of_nothing_else() -> None:
    assert built(**{"optimizer.lr": 0.2}).fingerprint() != built().fingerprint()
    assert built(**{"optimizer.lr": 0.1}).fingerprint() == built().fingerprint()  # the default, said aloud
    assert built(**{"teachers.robust.trained_on": "train"}).fingerprint() == built().fingerprint()  # a teacher's past trains nobody
    # A new field or default changes this number, and with it every checkpoint and study that was begun before: know that you do it.
    assert built().fingerprint()[:16] == "1c4449d236b4cf3c"

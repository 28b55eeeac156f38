from typing import Any

import pytest

from rkdsearch import config as configs
from rkdsearch.errors import ConfigError

TEACHER = {"path": "teacher.safetensors"}
BOTH = {"robust": TEACHER, "natural": TEACHER}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"attack.eps": 0.1, "attack": {"eps": 0.2}},
            "x.yaml: attack.eps is given twice, as 0.1 and as 0.2",
        ),
        (
            {"attack": 0.1, "attack.eps": 0.2},
            "x.yaml: attack.eps needs a section 'attack', which already holds the value 0.1",
        ),
        (
            {"attack.eps": 0.1, "attack": {"eps": {"deep": 1}}},
            "x.yaml: attack.eps.deep needs a section 'eps', which already holds the value 0.1",
        ),
        (
            {"attack": 0.1, "attack.eps.deep": 1},
            "x.yaml: attack.eps.deep needs a section 'attack', which already holds the value 0.1",
        ),
        (
            {"method.temprature": 2.0},
            "x.yaml: unknown field method.temprature; did you mean 'temperature'?",
        ),
        ({"optimizer.lrr": 2.0}, "x.yaml: unknown field optimizer.lrr; did you mean 'lr'?"),
        (
            {"optimizer.name": "AdamW"},
            "x.yaml: optimizer.name must be 'sgd' or 'adamw', got 'AdamW'; did you mean 'adamw'?",
        ),
        (
            {"teachers": {"robust": {"mean": [0.5]}}},
            (
                "x.yaml: unknown field teachers.robust.mean; did you mean"
                " 'teachers.robust.network.mean'?"
            ),
        ),
        (
            {"validation.attack.epsilon": 2.0},
            "x.yaml: unknown field validation.attack.epsilon; did you mean 'eps'?",
        ),
        ({"optimiser": {"lr": 2.0}}, "x.yaml: unknown field optimiser; did you mean 'optimizer'?"),
        (
            {"teachers.robust.sha256": "abc"},
            (
                "x.yaml: teachers.robust.sha256: must be 64 hexadecimal digits, got 'abc';"
                " `sha256sum FILE` prints them"
            ),
        ),
        ({"method.temperature": 0.0}, "x.yaml: method.temperature must be > 0, got 0.0"),
        ({"training.epochs": 0}, "x.yaml: training.epochs must be >= 1, got 0"),
        (
            {"attack.eps": "8/0"},
            "x.yaml: attack.eps must be a number, got '8/0'",
        ),
        (
            {"optimizer": {"lr": -1, "momentum": 2}},
            "x.yaml: optimizer.lr must be > 0, got -1 (and 1 more)",
        ),
        (
            {"optimizer": {"nesterov": True, "momentum": 0}},
            "x.yaml: optimizer: nesterov needs sgd with momentum > 0, got sgd with momentum 0.0",
        ),
        (
            {"schedule.milestones": [0.7, 0.5]},
            "x.yaml: schedule: milestones must increase, got [0.7, 0.5]",
        ),
        (
            {"schedule": {"name": "multistep", "warm_up": 0.6}},
            (
                "x.yaml: schedule: the rate must reach its height before a milestone: warm_up must"
                " be <= 0.5, got 0.6"
            ),
        ),
        *(
            (
                {name: value},
                (
                    f"x.yaml: {name} must be a number; YAML reads true, yes and on as a truth"
                    f" value, got {value}"
                ),
            )
            for name, value in {
                "attack.steps": True,
                "attack.eps": False,
                "training.batch_size": True,
                "schedule.milestones": [True],
                "student.width": True,
                "student.mean": [0.5, True],
                "data.train_images": True,
                "data.image_size": True,
                "method.temperature": True,
            }.items()
        ),
        (
            {"teachers": "teacher.pt"},
            (
                "x.yaml: teachers is a section, not the value 'teacher.pt'; set its"
                " fields, such as teachers.robust"
            ),
        ),
        (
            {"student": "resnet18"},
            (
                "x.yaml: student is a section, not the value 'resnet18'; set its fields,"
                " such as student.name=resnet18"
            ),
        ),
        (
            {"optimizer": 3},
            (
                "x.yaml: optimizer is a section, not the value 3; set its fields, such as"
                " optimizer.name"
            ),
        ),
        (
            {"method": "trades"},
            (
                "x.yaml: method is a section, not the value 'trades'; set its fields, such"
                " as method.name=trades"
            ),
        ),
        (
            {"method": {"name": "pgd_at", "temperature": 3}},
            "x.yaml: unknown field method.temperature; pgd_at has no fields of its own",
        ),
        (
            {"teachers": {}},
            (
                "x.yaml: method 'rslad' learns from a robust teacher, and there is none:"
                " set teachers.robust.path or teachers.robust.recipe"
            ),
        ),
        (
            {"method": {"name": "rslda"}},
            "x.yaml: method.name: unknown method 'rslda'; did you mean 'rslad'?",
        ),
        (
            {"teachers": {"robust": {"recipe": {"method": {"name": "rslad"}}}}},
            (
                "x.yaml: teachers.robust.recipe: a teacher is trained without a teacher,"
                " and method 'rslad' needs a robust one: choose pgd_at or trades"
            ),
        ),
        (
            {
                "teachers": {
                    "robust": {
                        "recipe": {
                            "method": {"name": "pgd_at"},
                            "attack": {"objective": "teacher_clean"},
                        }
                    }
                }
            },
            (
                "x.yaml: teachers.robust.recipe: a teacher is trained without a teacher,"
                " and attack.objective 'teacher_clean' needs one: choose label"
            ),
        ),
        (
            {"teachers": {"robust": {**TEACHER, "trained_on": "cifar10"}}},
            "x.yaml: teachers.robust.trained_on must be 'train' or 'other', got 'cifar10'",
        ),
        (
            {"teachers": {"robust": {"recipe": {"method": {"name": "pgd_at", "x": 1}}}}},
            "x.yaml: unknown field teachers.robust.recipe.method.x",
        ),
    ],
)
def test_a_broken_law_is_one_sentence_with_place_law_value_and_way_out(
    values: dict[str, Any], sentence: str
) -> None:
    base: dict[str, Any] = {"method.name": "rslad", "teachers": BOTH}
    if "method" in values:
        del base["method.name"]
    with pytest.raises(ConfigError) as error:
        configs.build({**base, **values}, "x.yaml")
    assert str(error.value).startswith(sentence)

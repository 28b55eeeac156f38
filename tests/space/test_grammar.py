import re
from pathlib import Path
from typing import Any

import pytest

from rkdsearch.errors import SpaceError
from rkdsearch.space.space import SearchSpace
from tests.search.files import SMALL, load_space, write_space

LR = {"optimizer.lr": {"float": [0.01, 0.3]}}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"serach": {}}, "unknown field serach; did you mean 'search'?"),
        ({"laddr": [{"epochs": 4}], "ladder": None}, "unknown field laddr; did you mean 'ladder'?"),
        (
            {"search": {"optimizer.lr": {"flaot": [0, 1]}}},
            "unknown field search.optimizer.lr.flaot",
        ),
        (
            {"search": {"optimizer.lr": {"float": [0.3, 0.01]}}},
            "search.optimizer.lr: low <= high must hold, got (low=0.3, high=0.01)",
        ),
        (
            {"search": {"optimizer.lr": {"float": [0.0, 0.1], "log": True}}},
            "search.optimizer.lr: log needs low > 0, got 0.0",
        ),
        (
            {"search": {"optimizer.lr": {"float": ["slow", "fast"]}}},
            "search.optimizer.lr.float.0 must be a valid number",
        ),
        (
            {"search": {"optimizer.lr": {"float": [0.1, 0.2], "int": [1, 2]}}},
            "needs exactly one of float, int, choice; got ['float', 'int']",
        ),
        (
            {"search": {"training.batch_size": {"int": [1, 8], "step": 4}}},
            "step 4 must divide the range from 1 to 8; move an end",
        ),
        (
            {"search": {"training.batch_size": {"choice": [2, 2]}}},
            "choice needs one or more different values, got [2, 2]",
        ),
        (
            {"search": {"attack.steps": {"choice": [2, 3]}}},
            "attack.steps is both fixed and searched; leave one out",
        ),
        (
            {"search": {**LR, "method.x": {"float": [0, 1], "when": {"method.nmae": "a"}}}},
            "`when` names method.nmae, which stands neither above",
        ),
        (
            {
                "search": {
                    "method.name": {"choice": ["natural"]},
                    "method.x": {"int": [0, 1], "when": {"method.name": "trades"}},
                }
            },
            (
                "search.method.x: `when` asks method.name to be 'trades', which is not"
                " among ['natural']"
            ),
        ),
        (
            {"search": {**LR, "attack.eps": {"float": [0, 1], "when": {"optimizer.lr": 0.01}}}},
            "optimizer.lr, which is a range; a condition needs",
        ),
        (
            {"search": {"validation.attack.eps": {"float": [0, 1]}}},
            "must not be searched: all trials must have the same validation",
        ),
        (
            {"search": {"data.split_seed": {"int": [0, 1]}}},
            "search.data.split_seed must not be searched: all trials must have the same images",
        ),
        (
            {"search": {"training.epochs": {"int": [1, 2]}}},
            "search.training.epochs must not be searched: the last rung",
        ),
        (
            {"search": {"teachers.robust.path": {"choice": ["a", "b"]}}},
            "search.teachers.robust.path must not be searched: all trials must have",
        ),
        (
            {"first": [{"validation": {"attack.eps": 0.5}}]},
            "first[0]: validation.attack.eps must not differ from trial to trial: all trials",
        ),
        (
            {"first": [{}, {"training.epochs": 9}]},
            "first[1]: training.epochs must not differ from trial to trial: the last rung",
        ),
        (
            {"fixed": {"training.epochs": 3}},
            (
                "fixed.training.epochs: the ladder has the full length; the last rung (4"
                " epochs) is the full run"
            ),
        ),
        ({"ladder": [{"epochs": 3}, {"epochs": 3}]}, "ladder: epochs must increase, got [3, 3]"),
        ({"ladder": []}, "ladder"),
        (
            {"objectives": ["clean_accuracy"]},
            "objectives: two or more different ones are needed, got ['clean_accuracy']",
        ),
        (
            {"objectives": ["parameters", "multiply_adds"]},
            "objectives: one accuracy at least is needed, got ['parameters', 'multiply_adds']; add",
        ),
        (
            {"objectives": ["clean_accuracy", "parameters"]},
            "objectives: parameters is the same for every searched student: nothing of",
        ),
        ({"extends": "nowhere.yaml"}, "nowhere.yaml: there is no such file"),
    ],
)
def test_a_mistake_in_the_grammar_is_one_sentence_that_names_it(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    fixed = changes.get("fixed", SMALL["fixed"])
    with pytest.raises(SpaceError, match=re.escape(sentence)) as caught:
        SearchSpace.load(write_space(tmp_path, **{"first": [], **changes, "fixed": fixed}))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_extending_a_file_that_extends_another_is_refused(tmp_path: Path) -> None:
    write_space(tmp_path, "base.yaml")
    (tmp_path / "middle.yaml").write_text("extends: base.yaml\n")
    (tmp_path / "leaf.yaml").write_text("extends: middle.yaml\n")
    with pytest.raises(
        SpaceError,
        match=r"leaf.yaml: extends middle.yaml, which extends another file; one level is allowed",
    ):
        SearchSpace.load(tmp_path / "leaf.yaml")


def test_a_mistake_in_the_extended_file_is_named_by_that_file(tmp_path: Path) -> None:
    write_space(tmp_path, "base.yaml", serach={})
    (tmp_path / "leaf.yaml").write_text("extends: base.yaml\n")
    with pytest.raises(
        SpaceError, match=r"base.yaml: unknown field serach; did you mean 'search'\?"
    ):
        SearchSpace.load(tmp_path / "leaf.yaml")


def test_a_child_fixes_what_its_parent_searched_and_changes_the_rest(tmp_path: Path) -> None:
    write_space(tmp_path, "base.yaml")
    (tmp_path / "leaf.yaml").write_text(
        "extends: base.yaml\nfixed: {optimizer.lr: 0.05}\nladder: [{epochs: 2}]\n"
    )
    space = SearchSpace.load(tmp_path / "leaf.yaml")
    assert [p.name for p in space.parameters] == ["method.name", "method.consistency_weight"]
    assert space.fixed["optimizer.lr"] == 0.05
    assert space.fixed["attack.steps"] == 2
    assert space.epochs == 2


def test_old_names_of_a_rung_are_read_with_a_notice(tmp_path: Path) -> None:
    said: list[str] = []
    rung = {"epochs": 1, "attack_steps": 1, "validation_steps": 3}
    write_space(tmp_path, "base.yaml", ladder=[rung, {"epochs": 4}])
    (tmp_path / "leaf.yaml").write_text("extends: base.yaml\n")
    low = SearchSpace.load(tmp_path / "leaf.yaml", said.append).ladder[0]
    assert (low.training_attack_steps, low.validation_attack_steps) == (1, 3)
    assert said == [
        f"{tmp_path}/base.yaml: ladder: {old} is now named {new}; the old name is still read"
        for old, new in {
            "attack_steps": "training_attack_steps",
            "validation_steps": "validation_attack_steps",
        }.items()
    ]


def test_an_old_name_beside_the_new_one_is_refused(tmp_path: Path) -> None:
    rung = {"epochs": 1, "attack_steps": 1, "training_attack_steps": 2}
    with pytest.raises(
        SpaceError,
        match=r"attack_steps is an old name of training_attack_steps; leave attack_steps out",
    ):
        load_space(tmp_path, ladder=[rung, {"epochs": 4}])


def test_eight_of_255_is_read_where_pixels_are_meant(tmp_path: Path) -> None:
    search = {
        "method.name": {"choice": ["pgd_at"]},
        "attack.eps": {"float": ["4/255", "8/255"]},
        "attack.steps": {"choice": [1]},
    }
    space = load_space(
        tmp_path,
        search=search,
        fixed={"data.name": "digits", "validation.attack.eps": "8/255"},
        first=[],
    )
    assert space.parameters[1].ends() == (4 / 255, 8 / 255)
    assert (
        space.config({"method.name": "pgd_at", "attack.eps": 0.02}).validation.attack.eps == 8 / 255
    )

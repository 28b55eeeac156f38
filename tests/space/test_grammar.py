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
            "search.optimizer.lr.float.0 must be a number, got 'slow'",
        ),
        (
            {"search": {"optimizer.lr": 0.1}},
            (
                "search.optimizer.lr must be a range or a choice, such as {float: [0.1, 0.3]}, got"
                " 0.1; a value of every run stands under `fixed`"
            ),
        ),
        (
            {"search": {**LR, "method.x": {"float": [0, 1], "when": {"method.name": {"a": 1}}}}},
            (
                "search.method.x.when.method.name must be true or false, an integer, a number, a"
                " text or a list, got {'a': 1}"
            ),
        ),
        (
            {"search": {**LR, "x": {"float": [0, 1], "when": {"method.name": ["a", {}]}}}},
            (
                "search.x.when.method.name.1 must be true or false, an integer, a number or a"
                " text, got {}"
            ),
        ),
        (
            {"search": {"optimizer.lr": {"float": [0.1, 0.2], "name": "x"}}},
            "unknown field search.optimizer.lr.name; there are choice, float, int, log, prior,",
        ),
        (
            {"search": {"optimizer": {"lr": {"float": [0.1, 0.2]}, "momentum": 0.9}}},
            "search.optimizer.momentum must be a range or a choice, such as",
        ),
        (
            {"search": {"attack": {"steps": 3}}},
            "search.attack.steps must be a range or a choice, such as",
        ),
        (
            {"search": {"optimizer.lr": None}},
            "search.optimizer.lr must be a range or a choice, such as",
        ),
        (
            {"sampler": {"minimum_per": {3: 1}}},
            "sampler.minimum_per has a name that is no text: 3; quote it",
        ),
        (
            {"search": {"optimizer.lr": {"float": [0.1, 0.2], "when": {3: 1}}}},
            "search.optimizer.lr.when has a name that is no text: 3; quote it",
        ),
        (
            {"scheduler": {3: 1}},
            "scheduler has a name that is no text: 3; quote it",
        ),
        (
            {"first": [{"published": "trades", "grid": {3: [1]}}]},
            "first[0].grid must have a list of values for each name",
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
        *(
            (
                changes,
                f"{name} must be a number; YAML reads true, yes and on as a truth value, got True",
            )
            for name, changes in {
                "replicates.race": {"replicates": {"seeds": 4, "race": True}},
                "ladder.0.epochs": {"ladder": [{"epochs": True}]},
                "seed": {"seed": True},
            }.items()
        ),
        (  # two fields that are named as types are
            {"search": {"attack.eps": {"float": "a", "int": "b"}}},
            "search.attack.eps.float must be a list, got 'a' (and 1 more)",
        ),
        (
            {"search": {"attack.eps": {"float": [0.1, 0.2], "prior": [0.1]}}},
            (
                "search.attack.eps.prior must be true or false, an integer, a number or a text,"
                " got [0.1]"
            ),
        ),
        ({"ladder": [{"epochs": 3}, {"epochs": 3}]}, "ladder: epochs must increase, got [3, 3]"),
        ({"ladder": []}, "ladder"),
        *(
            ({"first": [entry]}, f"first[0] must be the name of a method, such as rslad, or {said}")
            for entry, said in {
                None: "names and values, such as {published: rslad, optimizer.lr: 0.03}, got None",
                3: "names and values, such as",
            }.items()
        ),
        ({"first": ["natural", {1: 2}]}, "first[1] must be the name of a method, such as rslad"),
        (
            {"search": {"optimizer.lr": {"float": [0.1, 0.2], "when": ["x"]}}},
            "search.optimizer.lr.when must hold names and values, as in {name: value}, got ['x']",
        ),
        (
            {"sampler": {"minimum_per": 3}},
            "sampler.minimum_per must hold names and values, as in {name: value}, got 3",
        ),
        (
            {"resources": {"cpu": 0.00001}},
            "resources.cpu: must be 0.0001 or more, which is Ray's smallest share, got 1e-05",
        ),
        (
            {"resources": {"gpu": 1.5}},
            "resources.gpu: must be whole where it is above 1, or a share below 1, as Ray grants",
        ),
        (
            {"sampler": {"name": "nsga2", "startup": 1}},
            "sampler: startup must be >= 2 where name is nsga2: it is the population, got 1",
        ),
        (
            {"sampler": {"name": "grid", "minimum_per": {"method.name": 2}}},
            "sampler.minimum_per: a grid sampler proposes every combination in an order of its own",
        ),
        (
            {"ladder": [{"epoch": 1}, {"epochs": 4}]},
            "unknown field ladder.0.epoch; did you mean 'epochs'? (and 1 more)",
        ),
        (
            {"search": {"optimizer.lr": {"float": [0.1, 0.2, 0.3]}}},
            "search.optimizer.lr.float must have 2 entries at most, got 3",
        ),
        (
            {"search": {"optimizer.lr": {"float": [0.1, 0.2], "prior": float("nan")}}},
            "search.optimizer.lr.prior must be true or false, a finite number or a text, got nan",
        ),
        (
            {"search": {"training.seed": {"int": [0, 3]}}},
            "search.training.seed must not be searched: a seed is luck and no setting",
        ),
        (
            {"first": [{"label": "both", "grid": {"method.name": ["trades", "pgd_at"]}}]},
            "first[0].grid: only the best point of a grid is a baseline, so of several methods one",
        ),
        (
            {
                "first": [
                    {"label": "T, optimizer.lr 0.1", "method.name": "trades"},
                    {"label": "T", "method.name": "trades", "grid": {"optimizer.lr": [0.1, 0.02]}},
                ]
            },
            "first[1]: the label 'T, optimizer.lr 0.1' of a point of its grid is that of first[0]",
        ),
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


@pytest.mark.parametrize(
    ("search", "sentence"),
    [
        (
            {"optimizer.lr": {"float": [0.1, 0.2], "whn": {"method.name": "trades"}}},
            "unknown field search.optimizer.lr.whn; did you mean 'when'?",
        ),
        (
            {"optimizer.lr": {"float": [0.1, 0.2], "wanted": True}},
            "unknown field search.optimizer.lr.wanted; there are choice, float, int, log, prior, ",
        ),
        (
            {**LR, "attack.eps": {"float": [0.1, 0.2], "when": {"optimizer_lr": 1}}},
            "neither above it nor under `fixed`; did you mean 'optimizer.lr'?",
        ),
        (
            {
                "method.name": {"choice": ["trades"]},
                "attack.eps": {"float": [0.1, 0.2], "when": {"method.name": "TRADES"}},
            },
            "which is not among ['trades']; did you mean 'trades'?",
        ),
    ],
)
def test_a_hint_is_never_empty(tmp_path: Path, search: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpaceError, match=re.escape(sentence)):
        load_space(tmp_path, search=search, first=[])


def test_searched_parameters_may_be_nested_in_sections(tmp_path: Path) -> None:
    nested = {
        "method": {"name": {"choice": ["trades"]}},
        "optimizer": {"lr": {"float": [0.01, 0.3]}, "weight_decay": {"choice": [0.0, "1e-4"]}},
    }
    space = load_space(tmp_path, search=nested, first=[])
    assert [p.name for p in space.parameters] == [
        "method.name",
        "optimizer.lr",
        "optimizer.weight_decay",
    ]


def test_values_have_their_fields_types_wherever_they_stand(tmp_path: Path) -> None:
    space = load_space(
        tmp_path,
        fixed={**SMALL["fixed"], "attack.steps": "5", "validation.attack.eps": "8/255"},
        search={
            "method.name": {"choice": ["trades"]},
            "attack.eps": {"choice": ["4/255", "8/255"]},
            "optimizer.lr": {"float": ["1e-2", "3e-1"], "log": True},
            "optimizer.weight_decay": {
                "choice": ["1e-4", 0],
                "when": {"attack.eps": "8/255", "attack.steps": 5},
            },
        },
        first=[{"attack.eps": "8/255", "optimizer.lr": "1e-1", "optimizer.weight_decay": "1e-4"}],
    )
    assert space.parameters[1].ends() == (4 / 255, 8 / 255)
    assert space.parameters[3].ends() == (1e-4, 0.0)
    assert space.parameters[3].when == {"attack.eps": (8 / 255,), "attack.steps": (5,)}
    assert space.baselines[0].overrides == {
        "attack.eps": 8 / 255,
        "optimizer.lr": 0.1,
        "optimizer.weight_decay": 1e-4,
    }


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


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("search: [a]", "search must hold names and values, such as `attack.steps: {int:"),
        ("search: trades", "search must hold names and values"),
        ("fixed: [a]", "fixed must hold names and values, such as `data.name: digits`, got ['a']"),
        ("fixed: 3", "fixed must hold names and values"),
        ("search: {method.name: {choice: 3}}", "search.method.name.choice must be a list, got 3"),
        ("fixed: {attack.eps: 1}\nsearch: {attack: {eps: {float: [0, 1]}}}", "attack.eps is both"),
    ],
)
def test_a_section_of_the_wrong_kind_is_one_sentence_with_and_without_extends(
    tmp_path: Path, text: str, sentence: str
) -> None:
    write_space(tmp_path, "parent.yaml")
    (tmp_path / "alone.yaml").write_text(f"{text}\nladder: [{{epochs: 2}}]\n")
    (tmp_path / "child.yaml").write_text(f"extends: parent.yaml\n{text}\n")
    (tmp_path / "grandchild.yaml").write_text("extends: alone.yaml\nsearch: {}\n")
    for name in ("alone", "child", "grandchild"):
        with pytest.raises(SpaceError, match=re.escape(sentence)):
            SearchSpace.load(tmp_path / f"{name}.yaml")

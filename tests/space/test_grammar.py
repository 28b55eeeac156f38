import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from rkdsearch.errors import SpaceError
from rkdsearch.search.study_file import must_match
from rkdsearch.space.check import check_space
from rkdsearch.space.space import SearchSpace
from tests.results.rows import study, trial
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
            "search.attack.eps.float must be a valid tuple, got 'a' (and 1 more)",
        ),
        (
            {"search": {"attack.eps": {"float": [0.1, 0.2], "prior": [0.1]}}},
            (
                "search.attack.eps.prior must be a valid boolean, a valid integer, a valid number"
                " or a valid string, got [0.1]"
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
            "search.optimizer.lr.prior must be a valid boolean, a finite number or a valid string",
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


def test_a_file_extends_one_that_extends_another(tmp_path: Path) -> None:
    write_space(tmp_path, "base.yaml")
    (tmp_path / "middle.yaml").write_text("extends: base.yaml\nfixed: {attack.steps: 5}\n")
    (tmp_path / "leaf.yaml").write_text("extends: middle.yaml\nladder: [{epochs: 2}]\n")
    space = SearchSpace.load(tmp_path / "leaf.yaml")
    assert (space.fixed["attack.steps"], space.epochs) == (5, 2)
    assert [b.label for b in space.baselines] == ["published"]


def test_a_file_that_extends_itself_is_refused_with_the_circle(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(
        SpaceError, match=r"a\.yaml extends b\.yaml extends a\.yaml: a file must not extend itself"
    ):
        SearchSpace.load(tmp_path / "a.yaml")


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


def test_published_settings_are_named_by_their_method(tmp_path: Path) -> None:
    space = load_space(
        tmp_path,
        fixed={"data.name": "digits", "validation.attack.eps": 0.15, "optimizer.weight_decay": 0.0},
        first=["trades", {"published": "pgd_at", "attack.eps": 0.1}],
    )
    first, second = space.baselines
    assert first.label == "TRADES, published"
    assert second.label == "PGD-AT, published, attack.eps 0.1"
    assert first.overrides == {
        "method.name": "trades",
        "attack.eps": 0.15,
        "attack.steps": 10,
        "attack.relative_step_size": 0.2258,
        "optimizer.lr": 0.1,
    }
    assert second.overrides["attack.eps"] == 0.1
    with pytest.raises(SpaceError, match=r"first\[0\]: .*'RSLDA'; did you mean 'rslad'\?"):
        load_space(tmp_path, first=["RSLDA"])


def test_a_published_setting_is_trained_in_the_ball_of_the_validation_attack(
    tmp_path: Path,
) -> None:
    fixed = {"data.name": "digits", "validation.attack": {"norm": "l2", "eps": 0.5}}
    first = ["trades", {"published": "pgd_at", "attack.norm": "linf", "attack.eps": 0.1}]
    space = load_space(tmp_path, fixed=fixed, first=first)
    balls = [space.config(b.overrides).attack for b in space.baselines]
    assert [(ball.norm, ball.eps) for ball in balls] == [("l2", 0.5), ("linf", 0.1)]
    kept = load_space(
        tmp_path, fixed={**fixed, "attack": {"norm": "linf", "eps": 0.2}}, first=["trades"]
    )
    assert {"attack.norm", "attack.eps"}.isdisjoint(kept.baselines[0].overrides)


def test_a_prior_is_a_value_of_its_range_and_needs_beliefs(tmp_path: Path) -> None:
    def load(prior: object, **more: object) -> None:
        lr = {"float": [0.01, 0.3], "log": True, "prior": prior}
        load_space(tmp_path, search={**SMALL["search"], "optimizer.lr": lr}, **more)

    load(0.1, sampler={"beliefs": "medium"})
    with pytest.raises(
        SpaceError, match=r"optimizer.lr: its prior must be in \[0.01, 0.3\], got 1"
    ):
        load(1, sampler={"beliefs": "medium"})
    wide = {"float": [0.01, 3.0], "prior": True}
    with pytest.raises(SpaceError, match=r"its prior must be in \[0.01, 3.0\], got True; move an"):
        load_space(tmp_path, search={**SMALL["search"], "optimizer.lr": wide})
    with pytest.raises(SpaceError, match=r"a prior is used by `sampler\.beliefs` alone"):
        load(0.1)


def test_the_front_of_an_earlier_study_stands_for_baselines(tmp_path: Path) -> None:
    earlier = tmp_path / "earlier"
    front = {"status": "finished", "hyperparameters": '{"optimizer.lr": 0.05}'}
    study(
        earlier,
        trial("t00003", 0.9, 0.5, **front),
        trial("t00004", 0.8, 0.6, status="finished", hyperparameters='{"optimizer.lr": 0.2}'),
        trial("t00005", 0.7, 0.4, **front),  # dominated
    )
    space = load_space(tmp_path, first=[*SMALL["first"], {"study": "earlier"}])
    named = {b.label: b.overrides.get("optimizer.lr") for b in space.baselines}
    assert named == {
        "published": 0.1,
        "t00003 of earlier": 0.05,
        "t00004 of earlier": 0.2,
    }
    shutil.rmtree(earlier)  # what was read is kept with the study
    assert SearchSpace.of(space.merged, "again").baselines == space.baselines


def test_an_earlier_study_without_a_front_is_refused_with_its_place(tmp_path: Path) -> None:
    study(tmp_path / "earlier", trial("t00000", 0.9, 0.5, "running"))
    for entry, law in {
        "earlier": r"first\[0\].study: .*earlier has no front yet",
        "nowhere": r"first\[0\].study: .*nowhere: a study is a folder",
    }.items():
        with pytest.raises(SpaceError, match=law):
            load_space(tmp_path, first=[{"study": entry}])
    with pytest.raises(SpaceError, match="names a folder and stands alone"):
        load_space(tmp_path, first=[{"study": "earlier", "label": "mine"}])


def test_two_baselines_must_not_have_one_label(tmp_path: Path) -> None:
    first = [{"label": "mine", "optimizer.lr": lr, "method.name": "natural"} for lr in (0.1, 0.2)]
    law = r"first\[1\]: its label 'mine' is that of first\[0\] too; .* another `label`"
    with pytest.raises(SpaceError, match=law):
        load_space(tmp_path, first=first)


def test_a_prior_is_for_what_does_not_decide_which_parameters_a_run_has(tmp_path: Path) -> None:
    beliefs = {"beliefs": "medium"}
    ladder = [{"epochs": 2}, {"epochs": 4}]
    search = {
        **SMALL["search"],
        "method.name": {**SMALL["search"]["method.name"], "prior": "trades"},
    }
    with pytest.raises(SpaceError, match=r"search.method.name: a prior must not be given to what"):
        load_space(tmp_path, search=search, sampler=beliefs, ladder=ladder)
    lr = {**SMALL["search"], "optimizer.lr": {"float": [0.01, 0.3], "prior": 0.1}}
    with pytest.raises(SpaceError, match=r"alone, and there is no baseline under `first`; set"):
        load_space(tmp_path, search=lr, sampler=beliefs, ladder=ladder, first=[])
    # one that a parent has is left out where nothing uses it
    write_space(tmp_path, "parent.yaml", search=lr, sampler=beliefs, ladder=ladder)
    (tmp_path / "child.yaml").write_text("extends: parent.yaml\nsampler: {beliefs: none}\n")
    child = SearchSpace.load(tmp_path / "child.yaml")
    assert [p.prior for p in child.parameters] == [None, None, None]


def test_a_baselines_grid_is_one_baseline_for_each_of_its_points(tmp_path: Path) -> None:
    space = load_space(
        tmp_path, first=[{"published": "trades", "grid": {"optimizer.lr": ["1e-1", 0.03]}}]
    )
    assert [(b.label, b.overrides["optimizer.lr"]) for b in space.baselines] == [
        ("TRADES, published, optimizer.lr 0.1", 0.1),
        ("TRADES, published, optimizer.lr 0.03", 0.03),
    ]
    assert {b.family for b in space.baselines} == {"TRADES, published"}
    with pytest.raises(SpaceError, match=r"first\[0\].grid must have a list of values"):
        load_space(tmp_path, first=[{"published": "trades", "grid": {"optimizer.lr": 0.1}}])


def test_a_grid_has_no_value_twice(tmp_path: Path) -> None:
    for twice in ([0.1, 0.1], [0.03, 0.1, "1e-1"]):
        entry = {"published": "trades", "grid": {"optimizer.lr": twice}}
        with pytest.raises(
            SpaceError, match=r"first\[0\].grid.optimizer.lr: a value is there twice, and .*; leave"
        ):
            load_space(tmp_path, first=[entry])


def test_a_published_label_says_what_the_entry_changes(tmp_path: Path) -> None:
    first = [
        {"published": "trades", "optimizer": {"lr": "5e-2", "momentum": 0.8}},
        {"published": "trades", "optimizer.lr": 0.1, "method.name": "trades"},  # as published
        {"published": "trades", "optimizer.lr": 0.07, "label": "mine"},
        {"published": "pgd_at", "attack.steps": 5, "grid": {"optimizer.lr": [0.01]}},
    ]
    fixed = {k: v for k, v in SMALL["fixed"].items() if k != "attack.steps"}
    space = load_space(tmp_path, fixed=fixed, first=first)
    assert [(b.label, b.family) for b in space.baselines] == [
        ("TRADES, published, optimizer.lr 0.05, optimizer.momentum 0.8",) * 2,
        ("TRADES, published",) * 2,
        ("mine",) * 2,
        (
            "PGD-AT, published, attack.steps 5, optimizer.lr 0.01",
            "PGD-AT, published, attack.steps 5",
        ),
    ]
    # a paper's value is no change, whatever the space fixes
    papers = load_space(tmp_path, first=[{"published": "trades", "attack.steps": 10}])
    assert papers.baselines[0].label == "TRADES, published"
    for other in ({"method.name": "pgd_at"}, {"grid": {"method.name": ["pgd_at"]}}):
        other |= {"published": "trades"}
        law = "published names the method, trades, and method.name another, .*pgd_at.*; write `pub"
        with pytest.raises(SpaceError, match=law):
            load_space(tmp_path, first=[other])


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


def extended(folder: Path, child: str, **parent: Any) -> SearchSpace:
    """The small space with changes, and a child that extends it."""
    write_space(folder, "parent.yaml", **parent)
    (folder / "child.yaml").write_text(f"extends: parent.yaml\n{child}")
    return SearchSpace.load(folder / "child.yaml")


def test_where_a_child_searches_nothing_its_parents_fixed_value_holds(tmp_path: Path) -> None:
    fixed = {**SMALL["fixed"], "attack.eps": 0.15, "optimizer.momentum": 0.8}
    eps = "  attack.eps: {float: [0.1, 0.2], when: {method.name: trades}}\n"
    child = f"search:\n{eps}  student.width: {{choice: [4, 6]}}\n"
    space = extended(tmp_path, child, fixed=fixed)
    assert check_space(space, samples=5)
    baseline = space.config(space.baselines[0].overrides)
    assert (baseline.student.width, baseline.attack.eps) == (4, 0.15)
    other = space.config({"method.name": "pgd_at", "student.width": 6})
    assert (other.student.width, other.attack.eps) == (6, 0.15)
    # a study that was begun before has no such entry
    assert not {"fixed.student.width", "fixed.attack.eps"} & must_match(space).keys()
    again = SearchSpace.of(space.merged, "again")
    assert again.config(again.baselines[0].overrides) == baseline


def test_a_published_setting_keeps_its_own_value_of_what_is_searched(tmp_path: Path) -> None:
    fixed = {**SMALL["fixed"], "optimizer.weight_decay": 0.5, "attack.eps": 0.15}
    search = "search: {optimizer.weight_decay: {float: [0, 1]}, attack: {eps: {float: [0, 1]}}}\n"
    own = extended(tmp_path, f"{search}first: [trades]\n", fixed=fixed)
    assert own.baselines[0].overrides["optimizer.weight_decay"] == 2e-4
    # and of its parent's baselines, those that the parent trained
    first = ["trades", {"published": "pgd_at", "attack": {"eps": 0.3}}]
    space = extended(tmp_path, search, fixed=fixed, first=first)
    configs = [space.config(baseline.overrides) for baseline in space.baselines]
    assert [(c.optimizer.weight_decay, c.attack.eps) for c in configs] == [(0.5, 0.15), (0.5, 0.3)]
    assert [b.label for b in space.baselines] == [
        "TRADES, published",
        "PGD-AT, published, attack.eps 0.3",
    ]


def test_another_name_in_a_child_discards_what_its_parent_fixed_there(tmp_path: Path) -> None:
    fixed = {**SMALL["fixed"], "student.width": 8, "optimizer.momentum": 0.5}
    del fixed["student"]
    fixed |= {"student.name": "small_cnn"}
    child = "search: {student.name: {choice: [small_cnn, mlp]}}\n"
    space = extended(tmp_path, child, fixed=fixed)
    widths = {
        name: space.config({"method.name": "trades", "student.name": name}).student.width
        for name in ("small_cnn", "mlp")
    }
    assert widths == {"small_cnn": 8, "mlp": None}
    assert space.config(space.baselines[0].overrides).student.width == 8
    # sgd is the name that a parent without one means
    child = "fixed: {optimizer.name: adamw}\n"
    assert "optimizer.momentum" not in extended(tmp_path, child, fixed=fixed).fixed
    child = "fixed: {optimizer.name: sgd}\n"
    assert extended(tmp_path, child, fixed=fixed).fixed["optimizer.momentum"] == 0.5
    child = "search: {optimizer.name: {choice: [sgd, adamw]}}\n"
    searched = extended(tmp_path, child, fixed=fixed)
    trades = {"method.name": "trades"}
    assert searched.config({**trades, "optimizer.name": "sgd"}).optimizer.momentum == 0.5
    assert searched.config({**trades, "optimizer.name": "adamw"}).optimizer.momentum == 0.9
    # the parent's width is that of the names that it searches
    del fixed["student.name"]
    names = {**SMALL["search"], "student.name": {"choice": ["small_cnn", "mlp"]}}
    for name, kept in {"resnet18": None, "mlp": 8}.items():
        child = f"fixed: {{student.name: {name}}}\n"
        assert (
            extended(tmp_path, child, fixed=fixed, search=names).fixed.get("student.width") == kept
        )


def test_null_takes_a_parameter_out_also_in_its_section(tmp_path: Path) -> None:
    for child in ("optimizer.lr: null", "optimizer: {lr: null}", "optimizer: null"):
        space = extended(tmp_path, f"search: {{{child}}}\n")
        assert [p.name for p in space.parameters] == ["method.name", "method.consistency_weight"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("search: [a]", "search must hold names and values, such as `attack.steps: {int:"),
        ("search: trades", "search must hold names and values"),
        ("fixed: [a]", "fixed must hold names and values, such as `data.name: digits`, got ['a']"),
        ("fixed: 3", "fixed must hold names and values"),
        ("search: {method.name: {choice: 3}}", "search.method.name.choice must be a valid list"),
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


@pytest.mark.parametrize("value", ["null", "[p.yaml]", "3", "''"])
def test_extends_names_one_file(tmp_path: Path, value: str) -> None:
    (tmp_path / "child.yaml").write_text(f"extends: {value}\nladder: [{{epochs: 2}}]\n")
    with pytest.raises(SpaceError, match=r"child.yaml: extends names one search space, such as"):
        SearchSpace.load(tmp_path / "child.yaml")


def test_a_null_that_takes_nothing_out_of_the_search_is_a_typo(tmp_path: Path) -> None:
    write_space(tmp_path, "parent.yaml")
    (tmp_path / "child.yaml").write_text("extends: parent.yaml\nsearch: {optimizer.l: null}\n")
    with pytest.raises(
        SpaceError,
        match=r"child.yaml: search.optimizer.l: null takes a parameter out of the search, .*; did"
        r" you mean 'optimizer.lr'",
    ):
        SearchSpace.load(tmp_path / "child.yaml")
    (tmp_path / "child.yaml").write_text(
        "extends: parent.yaml\nsearch: {method: null}\nfixed: {method.name: pgd_at}\nfirst: []\n"
    )
    child = SearchSpace.load(tmp_path / "child.yaml")
    assert [p.name for p in child.parameters] == ["optimizer.lr"]

"""Space files that extend another: what a child takes, changes and takes out."""

from pathlib import Path

import pytest

from rkdsearch.errors import SpaceError
from rkdsearch.search.study_file import must_match
from rkdsearch.space.check import check_space
from rkdsearch.space.space import SearchSpace
from tests.search.files import SMALL, load_child, write_space


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


def test_where_a_child_searches_nothing_its_parents_fixed_value_holds(tmp_path: Path) -> None:
    fixed = {**SMALL["fixed"], "attack.eps": 0.15, "optimizer.momentum": 0.8}
    eps = "  attack.eps: {float: [0.1, 0.2], when: {method.name: trades}}\n"
    child = f"search:\n{eps}  student.width: {{choice: [4, 6]}}\n"
    space = load_child(tmp_path, child, fixed=fixed)
    assert check_space(space, samples=5)
    baseline = space.config(space.baselines[0].overrides)
    assert (baseline.student.width, baseline.attack.eps) == (4, 0.15)
    other = space.config({"method.name": "pgd_at", "student.width": 6})
    assert (other.student.width, other.attack.eps) == (6, 0.15)
    # a study that was begun before has no such entry
    assert not {"fixed.student.width", "fixed.attack.eps"} & must_match(space).keys()
    again = SearchSpace.of(space.merged, "again")
    assert again.config(again.baselines[0].overrides) == baseline


def test_another_name_in_a_child_discards_what_its_parent_fixed_there(tmp_path: Path) -> None:
    fixed = {**SMALL["fixed"], "student.width": 8, "optimizer.momentum": 0.5}
    del fixed["student"]
    fixed |= {"student.name": "small_cnn"}
    child = "search: {student.name: {choice: [small_cnn, mlp]}}\n"
    space = load_child(tmp_path, child, fixed=fixed)
    widths = {
        name: space.config({"method.name": "trades", "student.name": name}).student.width
        for name in ("small_cnn", "mlp")
    }
    assert widths == {"small_cnn": 8, "mlp": None}
    assert space.config(space.baselines[0].overrides).student.width == 8
    # sgd is the name that a parent without one means
    child = "fixed: {optimizer.name: adamw}\n"
    assert "optimizer.momentum" not in load_child(tmp_path, child, fixed=fixed).fixed
    child = "fixed: {optimizer.name: sgd}\n"
    assert load_child(tmp_path, child, fixed=fixed).fixed["optimizer.momentum"] == 0.5
    child = "search: {optimizer.name: {choice: [sgd, adamw]}}\n"
    searched = load_child(tmp_path, child, fixed=fixed)
    trades = {"method.name": "trades"}
    assert searched.config({**trades, "optimizer.name": "sgd"}).optimizer.momentum == 0.5
    assert searched.config({**trades, "optimizer.name": "adamw"}).optimizer.momentum == 0.9
    # the parent's width is that of the names that it searches
    del fixed["student.name"]
    names = {**SMALL["search"], "student.name": {"choice": ["small_cnn", "mlp"]}}
    for name, kept in {"resnet18": None, "mlp": 8}.items():
        child = f"fixed: {{student.name: {name}}}\n"
        assert (
            load_child(tmp_path, child, fixed=fixed, search=names).fixed.get("student.width")
            == kept
        )


def test_what_other_images_keep_of_their_parent_is_told(tmp_path: Path) -> None:
    fixed = {**SMALL["fixed"], "data.validation_fraction": 0.2, "data.test_fraction": 0.3}
    told: list[str] = []
    write_space(tmp_path, "parent.yaml", fixed=fixed)
    child = tmp_path / "child.yaml"
    child.write_text("extends: parent.yaml\nfixed: {data.name: 'folder:photos'}\n")
    space = SearchSpace.load(child, told.append)
    assert "data.test_fraction" not in space.fixed
    assert space.fixed["data.validation_fraction"] == 0.2
    assert told == [
        f"{child}: other images keep data.validation_fraction 0.2 of the file that this one extends"
    ]
    told.clear()
    named = "{data: {name: 'folder:photos', validation_fraction: 0.2}}"
    for same in ("{data.split_seed: 1}", named):
        child.write_text(f"extends: parent.yaml\nfixed: {same}\n")
        SearchSpace.load(child, told.append)
    assert told == []


def test_null_takes_a_parameter_out_also_in_its_section(tmp_path: Path) -> None:
    for child in ("optimizer.lr: null", "optimizer: {lr: null}", "optimizer: null"):
        space = load_child(tmp_path, f"search: {{{child}}}\n")
        assert [p.name for p in space.parameters] == ["method.name", "method.consistency_weight"]


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

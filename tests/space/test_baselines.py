"""Baselines: published settings, their labels, grids and priors."""

from pathlib import Path

import pytest

from rkdsearch.errors import SpaceError
from rkdsearch.space.space import SearchSpace
from tests.search.files import SMALL, load_child, load_space, write_space


def test_published_settings_are_named_by_their_method(tmp_path: Path) -> None:
    space = load_space(
        tmp_path,
        fixed={"data.name": "digits", "validation.attack.eps": 0.15, "optimizer.weight_decay": 0.0},
        first=["trades", {"published": "pgd_at", "attack.eps": 0.1}],
    )
    first, second = space.baselines
    assert first.label == "TRADES, published, optimizer.weight_decay 0.0"
    assert second.label == "PGD-AT, published, optimizer.weight_decay 0.0, attack.eps 0.1"
    assert first.overrides == {
        "method.name": "trades",
        "attack.eps": 0.15,
        "attack.steps": 10,
        "attack.relative_step_size": 0.2258,
        "optimizer.lr": 0.1,
    }
    assert second.overrides["attack.eps"] == 0.1
    for name, scale in (("digits", 0.1), ("cifar100", 0.01)):
        (ard,) = load_space(tmp_path, fixed={"data.name": name}, first=["ard"]).baselines
        assert ard.overrides["method.kl_scale"] == scale  # a mean over the classes
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


def test_two_baselines_must_not_have_one_label(tmp_path: Path) -> None:
    first = [{"label": "mine", "optimizer.lr": lr, "method.name": "natural"} for lr in (0.1, 0.2)]
    law = r"first\[1\]: its label 'mine' is that of first\[0\] too; .* another `label`"
    with pytest.raises(SpaceError, match=law):
        load_space(tmp_path, first=first)


def test_a_baselines_grid_is_one_baseline_for_each_of_its_points(tmp_path: Path) -> None:
    space = load_space(
        tmp_path, first=[{"published": "trades", "grid": {"optimizer.lr": ["1e-1", 0.03]}}]
    )
    assert [(b.label, b.overrides["optimizer.lr"]) for b in space.baselines] == [
        ("TRADES, published, attack.steps 2, optimizer.lr 0.1", 0.1),
        ("TRADES, published, attack.steps 2, optimizer.lr 0.03", 0.03),
    ]
    assert {b.family for b in space.baselines} == {"TRADES, published, attack.steps 2"}
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


def test_a_label_hides_no_departure_from_the_paper(tmp_path: Path) -> None:
    fixed = {k: v for k, v in SMALL["fixed"].items() if k != "attack.steps"}
    weighed = {**fixed, "method": {"name": "trades", "consistency_weight": 1.0}}
    search = {"attack.eps": {"float": [0.1, 0.2]}}
    (trades,) = load_space(tmp_path, fixed=weighed, search=search, first=["trades"]).baselines
    assert trades.label == "TRADES, published, method.consistency_weight 1.0"
    slow = {**fixed, "optimizer.lr": 0.05}
    entry = {"published": "pgd_at", "optimizer.lr": 0.05}
    (pgd,) = load_space(tmp_path, fixed=slow, search=search, first=[entry]).baselines
    assert pgd.label == "PGD-AT, published, optimizer.lr 0.05"


def test_a_published_setting_keeps_its_own_value_of_what_is_searched(tmp_path: Path) -> None:
    fixed = {**SMALL["fixed"], "optimizer.weight_decay": 0.5, "attack.eps": 0.15}
    search = "search: {optimizer.weight_decay: {float: [0, 1]}, attack: {eps: {float: [0, 1]}}}\n"
    own = load_child(tmp_path, f"{search}first: [trades]\n", fixed=fixed)
    assert own.baselines[0].overrides["optimizer.weight_decay"] == 2e-4
    # and of its parent's baselines, those that the parent trained
    first = ["trades", {"published": "pgd_at", "attack": {"eps": 0.3}}]
    space = load_child(tmp_path, search, fixed=fixed, first=first)
    configs = [space.config(baseline.overrides) for baseline in space.baselines]
    assert [(c.optimizer.weight_decay, c.attack.eps) for c in configs] == [(0.5, 0.15), (0.5, 0.3)]
    assert [b.label for b in space.baselines] == [
        "TRADES, published, attack.steps 2, attack.eps 0.15, optimizer.weight_decay 0.5",
        "PGD-AT, published, attack.steps 2, attack.eps 0.3, optimizer.weight_decay 0.5",
    ]

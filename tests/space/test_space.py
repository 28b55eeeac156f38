from pathlib import Path

import numpy as np

from tests.search.files import load_space


def test_a_methods_own_parameter_exists_only_where_the_method_does(tmp_path: Path) -> None:
    space, rng = load_space(tmp_path), np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(60)]
    assert {d["method.name"] for d in drawn} == {"natural", "pgd_at", "trades"}
    assert all(("method.consistency_weight" in d) == (d["method.name"] == "trades") for d in drawn)


def test_values_outside_their_range_are_not_in_the_space(tmp_path: Path) -> None:
    space = load_space(tmp_path)
    inside = {"method.name": "trades", "method.consistency_weight": 6.0, "optimizer.lr": 0.1}
    assert space.searched(space.config(inside)) == inside
    assert space.searched(space.config({**inside, "optimizer.lr": 0.5})) is None


def test_a_field_that_a_baseline_leaves_to_its_default_is_searched_too(tmp_path: Path) -> None:
    space = load_space(
        tmp_path,
        fixed={"data.name": "digits", "student.name": "small_cnn"},
        search={
            "method.name": {"choice": ["trades", "pgd_at"]},
            "method.consistency_weight": {"float": [1, 9], "when": {"method.name": "trades"}},
            "attack.eps": {"choice": ["8/255", "4/255"]},
            "student.width": {"int": [2, 32]},
        },
        first=[{"method.name": "trades"}],
    )
    assert space.searched(space.config(space.baselines[0].overrides)) == {
        "method.name": "trades",
        "method.consistency_weight": 6.0,
        "attack.eps": 8 / 255,
        "student.width": 16,
    }

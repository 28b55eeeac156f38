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
    assert space.searched(inside) == inside
    assert space.searched({**inside, "optimizer.lr": 0.5}) is None
    assert space.searched({"method.name": "trades", "optimizer.lr": 0.1}) is None

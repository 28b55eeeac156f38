from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rkdsearch.space.space import SearchSpace
from tests.analysis.fake_trainer import FakeTrainer
from tests.analysis.scripts import script

live, record, rules = script("live"), script("record"), script("rules")
OVERRIDES = {
    "method.name": "pgd_at",
    "attack.eps": 0.1,
    "attack.steps": 10,
    "attack.relative_step_size": 0.5,
    "optimizer.lr": 0.1,
    "optimizer.weight_decay": 0.001,
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "Trainer", FakeTrainer)
    monkeypatch.setattr(
        live,
        "teachers_of",
        lambda space, study: {
            "teachers.robust.sha256": "0" * 64,
            "teachers.robust.path": "teacher",
        },
    )
    FakeTrainer.trained.clear()


def curve(**overrides: Any) -> Any:
    return live.Digits(SearchSpace.load(record.DIGITS), {}, 0).curve({**OVERRIDES, **overrides})


def test_a_run_is_trained_only_as_far_as_somebody_looks_and_nothing_twice() -> None:
    shown = curve()
    assert FakeTrainer.trained == []
    shown.full.values_at(6)
    shown.full.values_at(6)
    assert FakeTrainer.trained == [(epoch, 10) for epoch in range(1, 7)]
    shown.full.values_at(18)
    assert FakeTrainer.trained == [(epoch, 10) for epoch in range(1, 19)]
    assert shown.full.delivers() == pytest.approx((0.1, 0.5))


def test_under_the_cap_it_is_another_run_which_may_go_on_without_it() -> None:
    shown = curve()
    shown.run(rules.WHOLE, 1, afresh=True).values_at(18)
    assert FakeTrainer.trained == [(epoch, 2) for epoch in range(1, 19)]
    shown.run(rules.WHOLE, 2, afresh=False).values_at(54)
    assert FakeTrainer.trained[18:] == [(epoch, 10) for epoch in range(19, 55)]
    shown.run(rules.WHOLE, 2, afresh=True).values_at(54)
    assert FakeTrainer.trained[54:] == [(epoch, 10) for epoch in range(1, 55)]
    within = curve(**{"attack.steps": 2})
    assert within.full is within.capped is within.continued


def test_a_run_that_diverges_is_worth_nothing_from_there_on() -> None:
    shown = curve(**{"optimizer.weight_decay": 0.01}).full
    assert shown.values_at(6)[0] > 0
    assert shown.values_at(18) == (0.0, 0.0)
    assert shown.delivers() == (0.0, 0.0)


def test_a_search_that_is_in_the_file_is_not_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, chosen = tmp_path / "live.parquet", (rules.RANDOM, "random, whole ladder")
    live.live(1, 4.0, 60, tmp_path, file, chosen)
    made = len(FakeTrainer.trained)
    live.live(2, 4.0, 60, tmp_path, file, chosen)
    assert made < len(FakeTrainer.trained) < 3 * made
    rows = pd.read_parquet(file)
    assert rows.groupby(["rule", "seed"]).ngroups == 4
    assert (rows.groupby(["rule", "seed"])["compute"].max() <= 4.0).all()
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith("random, whole ladder                 2   ")
    assert printed[-2].startswith(rules.RANDOM)
    before = len(FakeTrainer.trained)
    live.live(2, 4.0, 60, tmp_path, file, chosen)
    assert len(FakeTrainer.trained) == before


def test_rules_that_are_given_the_published_settings_train_them_first_and_pay_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    whole = live.Digits.curve

    def curve_of(self: Any, overrides: dict[str, Any]) -> Any:
        asked.append(overrides)
        return whole(self, overrides)

    monkeypatch.setattr(live.Digits, "curve", curve_of)
    file = tmp_path / "live.parquet"
    live.live(1, 8.0, 60, tmp_path, file, ("beliefs, medium",))
    # digits.yaml's baselines of searched methods, at their published temperature of 1
    names = [one["method.name"] for one in asked[:6]]
    assert names == ["rslad", "iad", "crdnd", "ardir", "pgd_at", "trades"]
    assert [one.get("method.temperature") for one in asked[:4]] == [1.0] * 4
    assert {one["method.name"] for one in asked[6:]} <= set(names)
    assert len(asked) > 8
    # the first is paid for: a full run of ten steps is one
    assert pd.read_parquet(file)["compute"].iloc[1] >= 1.0


def test_a_search_that_finished_nothing_is_kept_too(tmp_path: Path) -> None:
    file = tmp_path / "live.parquet"
    for _ in range(2):
        live.live(1, 0.2, 60, tmp_path, file, (rules.RANDOM,))
    rows = pd.read_parquet(file)
    assert rows[["compute", "hypervolume"]].to_numpy().tolist() == [[0.0, 0.0]]


def test_the_bar_is_the_mean_of_what_random_search_ends_with() -> None:
    def one(rule: str, seed: int, compute: list[float], volumes: list[float]) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "rule": rule,
                "seed": seed,
                "compute": compute,
                "hypervolume": volumes,
                "configurations": 5,
            }
        )

    rows = pd.concat(
        [
            one(rules.RANDOM, 0, [0, 1, 8], [0, 0.1, 0.4]),
            one(rules.RANDOM, 1, [0, 8], [0, 0.2]),
            one("x", 0, [0, 2, 4], [0, 0.2, 0.31]),
        ]
    )
    lines = live.table(rows).splitlines()
    assert lines[0] == "live on digits, bar 0.3000, 8.0 full runs of compute"
    assert lines[2].split()[-5:] == ["never", "1.000", "never", "5", "2"]  # one of two reached it
    assert lines[3].split()[-5:] == ["0.500", "0.500", "0.500", "5", "2"]

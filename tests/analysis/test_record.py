from collections import Counter
from math import log
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd
import pytest

from tests.analysis.fake_trainer import FakeTrainer
from tests.analysis.scripts import script

record, curves = script("record"), script("curves")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "Trainer", FakeTrainer)
    monkeypatch.setattr(
        record,
        "teachers_of",
        lambda space, study: {
            "teachers.robust.sha256": "0" * 64,
            "teachers.robust.path": "teacher",
        },
    )


def kinds(number: int, attack_steps: int) -> list[tuple[Any, ...]]:
    return [
        (kind.names[-1], kind.fidelities[-1].epochs, dict(kind.changes))
        for kind in record.kinds(number, attack_steps)
    ]


def test_a_configuration_is_trained_in_full_and_under_the_cap_and_an_early_one_in_more_ways() -> (
    None
):
    assert kinds(35, 10) == [
        ("full", 54, {}),
        ("continued", 54, {}),
        ("unscaled", 18, {"attack.steps": 2}),
        ("seed 1", 54, {"training.seed": 1}),
    ]
    assert kinds(36, 10) == [("full", 54, {}), ("capped", 18, {})]
    assert kinds(36, 2) == [("full", 54, {})]  # within the cap, the capped run is the full one


def test_every_third_configuration_is_a_published_one_or_near_it_or_anywhere_in_its_method() -> (
    None
):
    space = record.SearchSpace.load(record.DIGITS)
    drawn = [record.drawn(space, number) for number in range(180)]
    assert Counter(how for how, _ in drawn) == {
        "space": 120,
        "published": 6,
        "near": 30,
        "method": 24,
    }
    named = Counter(values["method.name"] for how, values in drawn if how != "space")
    assert named == dict.fromkeys(["rslad", "iad", "crdnd", "ardir", "pgd_at", "trades"], 10)
    published = {values["method.name"]: values for how, values in drawn if how == "published"}
    assert published["rslad"] == dict(space.baselines[0].overrides)
    near = [values for how, values in drawn if how == "near"]
    factors = [abs(log(values["optimizer.lr"] / 0.1)) for values in near]
    assert 0.1 < mean(factors) < log(2)  # the range has a factor of 20
    assert all(space.searched(space.config(values)) == values for values in near)


def test_the_table_grows_by_whole_configurations_and_nothing_is_trained_twice(
    tmp_path: Path,
) -> None:
    file = tmp_path / "runs.parquet"
    assert record.record(2, 60, tmp_path, file) == 2
    first = pd.read_parquet(file)
    assert record.record(3, 60, tmp_path, file) == 3
    second = pd.read_parquet(file)
    pd.testing.assert_frame_equal(second[second["configuration"] < 2], first)
    FakeTrainer.trained.clear()
    assert record.record(3, 60, tmp_path, file) == 3
    assert FakeTrainer.trained == []
    assert not second.duplicated(["configuration", "run", "epoch"]).any()


def test_a_row_says_what_its_epochs_cost_in_attack_steps_and_of_which_run_they_are(
    tmp_path: Path,
) -> None:
    record.record(3, 60, tmp_path, tmp_path / "runs.parquet")
    rows = pd.read_parquet(tmp_path / "runs.parquet")
    one = rows[(rows["configuration"] == 2) & (rows["training_attack_steps"] == 10)].set_index(
        ["run", "epoch"]
    )
    assert one.loc["full", "attack_steps_so_far"].to_dict() == {
        epoch: 10 * epoch for epoch in (2, *range(6, 55, 6))
    }
    assert one.loc["capped", "attack_steps_so_far"].to_dict() == {2: 4, 6: 12, 12: 24, 18: 36}
    assert one.loc["continued", "attack_steps_so_far"].to_dict() == {
        epoch: 36 + 10 * (epoch - 18) for epoch in range(24, 55, 6)
    }
    assert one.loc["unscaled", "attack_steps"].unique() == [2]
    assert set(one.loc["seed 1", "seed"]) == {1}


def test_a_run_that_diverges_is_in_the_table_once_and_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = {
        "method.name": "pgd_at",
        "attack.steps": 2,
        "attack.eps": 0.1,
        "attack.relative_step_size": 0.5,
        "optimizer.lr": 0.1,
    }
    monkeypatch.setattr(
        "rkdsearch.space.space.SearchSpace.sample",
        lambda space, rng: {**sample, "optimizer.weight_decay": 0.01},
    )
    record.record(1, 60, tmp_path, tmp_path / "runs.parquet")
    rows = pd.read_parquet(tmp_path / "runs.parquet")
    assert rows.groupby("run")["epoch"].apply(list).to_dict() == {
        "full": [2, 6, 0],
        "seed 1": [2, 6, 0],
    }
    assert curves.read(tmp_path / "runs.parquet") == []
    FakeTrainer.trained.clear()
    record.record(1, 60, tmp_path, tmp_path / "runs.parquet")
    assert FakeTrainer.trained == []


def test_recording_stops_when_its_time_is_up(tmp_path: Path) -> None:
    assert record.record(5, -1.0, tmp_path, tmp_path / "runs.parquet") == 0


def test_ranks_are_compared_within_methods_and_between_them(tmp_path: Path) -> None:
    """A rung that ranks every method's settings rightly, and the methods the other way round."""
    rows = []
    for number in range(9):
        method, place = divmod(number, 3)
        for run, epoch, robust in (
            ("full", 54, 0.3 * method + 0.1 * place),
            ("full", 6, 0.9 - 0.3 * method + 0.1 * place),
        ):
            row = {"configuration": number, "method": str(method), "run": run, "epoch": epoch}
            rows.append({**row, "training_attack_steps": 10, "robust_accuracy": robust})
    pd.DataFrame(rows).to_parquet(tmp_path / "runs.parquet")
    said = record.within_and_between(tmp_path / "runs.parquet").splitlines()
    line = next(line for line in said if line.startswith("6 epochs "))
    assert line.split()[-3:] == ["9", "1.000", "-1.000"]

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from tests.analysis.scripts import script

curves, rules = script("curves"), script("rules")


def run(measured: list[tuple[float, float]]) -> Any:
    """A run validated every 6 epochs; what it measures is true."""
    values = np.array(measured)
    return curves.Run(np.arange(6, 6 * len(values) + 1, 6), values, values)


def test_a_full_run_with_a_ten_step_attack_costs_one_and_its_parts_add_up() -> None:
    assert curves.cost_of(0, 54, 10) == pytest.approx(1.0)
    # an epoch is its attack's steps and 2.9; each of the 9 validations 0.43 * (10 + 1/3)
    assert curves.cost_of(0, 54, 2) == pytest.approx(
        (54 * 4.9 + 9 * 0.43 * 31 / 3) / (54 * 12.9 + 9 * 0.43 * 31 / 3)
    )
    assert sum(curves.cost_of(*part, 5) for part in ((0, 6), (6, 18), (18, 54))) == pytest.approx(
        curves.cost_of(0, 54, 5)
    )
    # a rung between two validations has one of its own
    assert curves.cost_of(0, 2, 2) + curves.cost_of(2, 6, 2) - curves.cost_of(
        0, 6, 2
    ) == pytest.approx(0.43 * 31 / 3 / (54 * 12.9 + 39.99))


@pytest.mark.parametrize(
    ("attack_steps", "afresh", "last"),
    [
        (10, True, (0, 54, 10)),
        (10, False, (18, 54, 10)),
        (2, True, (18, 54, 2)),
        (2, False, (18, 54, 2)),
    ],
)
def test_a_cap_is_lifted_by_a_run_from_the_first_epoch_only_where_it_bound(
    attack_steps: int, afresh: bool, last: tuple[int, ...]
) -> None:
    shown = run([(0.5, 0.5)] * 9)
    curve = curves.Curve(attack_steps, shown, shown, shown)
    costs = [curve.cost(rules.WHOLE, rung, afresh=afresh) for rung in range(3)]
    assert costs == pytest.approx(
        [curves.cost_of(0, 6, 2), curves.cost_of(6, 18, 2), curves.cost_of(*last)]
    )


def test_each_rung_of_the_whole_ladder_looks_at_the_run_that_it_trained() -> None:
    full, capped, continued = (run([(level, level)] * 9) for level in (0.3, 0.4, 0.5))
    curve = curves.Curve(10, full, capped, continued)
    assert [curve.run(rules.WHOLE, rung, afresh=True) for rung in range(3)] == [
        capped,
        capped,
        full,
    ]
    assert [curve.run(rules.WHOLE, rung, afresh=False) for rung in range(3)] == [
        capped,
        capped,
        continued,
    ]
    assert [curve.run(rules.LENGTH, rung, afresh=False) for rung in range(3)] == [full, full, full]


def test_a_run_is_judged_by_its_best_epoch_so_far_and_both_values_come_from_that_one() -> None:
    shown = run(
        [
            (0.5, 0.1),
            (0.6, 0.4),
            (0.9, 0.05),
            (0.8, 0.2),
            (0.7, 0.3),
            (0.7, 0.2),
            (0.9, 0.0),
            (0.9, 0.0),
            (0.9, 0.0),
        ]
    )
    assert shown.values_at(6) == (0.5, 0.1)
    # the third has the best clean accuracy and the worse mean
    assert shown.values_at(18) == (0.6, 0.4)
    assert shown.values_at(54) == shown.delivers() == (0.6, 0.4)


def test_simulated_robust_accuracy_peaks_and_decays_where_weights_hardly_decay() -> None:
    overrides = {
        "method.name": "iad",
        "attack.eps": 0.2,
        "attack.steps": 10,
        "optimizer.lr": 0.1,
        "method.temperature": 2.0,
    }
    little = (
        curves.Simulated("straight", 3)
        .curve({**overrides, "optimizer.weight_decay": 1.2e-5})
        .full.true
    )
    enough = (
        curves.Simulated("straight", 3)
        .curve({**overrides, "optimizer.weight_decay": 8e-3})
        .full.true
    )
    assert little[:, 1].argmax() < 7
    assert little[-1, 1] < 0.8 * little[:, 1].max()
    assert enough[-1, 1] > 0.93 * enough[:, 1].max()
    assert (np.diff(little[:, 0]) > 0).all()  # clean accuracy does not decay


def test_the_same_configuration_has_the_same_runs_and_another_seed_others() -> None:
    overrides = curves.simulated_space().sample(np.random.default_rng(0))
    first, again, other = (curves.Simulated("dented", seed).curve(overrides) for seed in (0, 0, 1))
    assert (first.full.measured == again.full.measured).all()
    assert (first.capped.measured == again.capped.measured).all()
    assert (first.full.measured != other.full.measured).any()


def test_a_configuration_within_the_cap_has_one_run_and_others_go_on_from_their_capped_one() -> (
    None
):
    overrides = {
        "method.name": "trades",
        "attack.eps": 0.1,
        "optimizer.lr": 0.05,
        "optimizer.weight_decay": 1e-4,
    }
    within = curves.Simulated("straight", 0).curve({**overrides, "attack.steps": 2})
    assert within.full is within.capped is within.continued
    beyond = curves.Simulated("straight", 0).curve({**overrides, "attack.steps": 10})
    early = curves.VALIDATED <= 18
    assert (beyond.continued.measured[early] == beyond.capped.measured[early]).all()
    assert (beyond.continued.measured[~early] != beyond.capped.measured[~early]).all()


@pytest.mark.parametrize(
    ("ladder", "rung", "low", "high"),
    # 0.58, 0.71, 0.92, 0.70, 0.91 on 110 recorded digits configurations: a simulation in which
    # early values say all would flatter early stopping
    [
        ("LOWER", 0, 0.4, 0.8),
        ("WHOLE", 0, 0.7, 0.9),
        ("WHOLE", 1, 0.87, 0.97),
        ("LENGTH", 0, 0.75, 0.92),
        ("LENGTH", 1, 0.93, 0.99),
    ],
)
def test_a_cheap_simulated_run_ranks_configurations_nearly_as_a_full_one_does(
    ladder: str, rung: int, low: float, high: float
) -> None:
    landscape, rng = curves.Simulated("bulging", 0), np.random.default_rng(0)
    shown = [landscape.curve(landscape.space.sample(rng)) for _ in range(60)]
    rungs = getattr(rules, ladder)
    cheap = [sum(c.run(rungs, rung, afresh=True).values_at(rungs[rung].epochs)) for c in shown]
    assert low < spearmanr(cheap, [sum(c.full.values_at(54)) for c in shown])[0] < high


def test_where_all_is_clear_early_values_mislead_less_and_nothing_is_noisy() -> None:
    rhos = []
    for clear in (False, True):
        landscape, rng = curves.Simulated("bulging", 0, clear), np.random.default_rng(0)
        shown = [landscape.curve(landscape.space.sample(rng)) for _ in range(60)]
        rhos.append(
            spearmanr(
                [sum(c.capped.values_at(6)) for c in shown],
                [sum(c.full.values_at(54)) for c in shown],
            )[0]
        )
    assert rhos == pytest.approx([0.83, 0.905], abs=0.02)
    assert all(c.full.values_at(54) == pytest.approx(c.full.delivers()) for c in shown)


# ------------------------------------------------------------------------------- the recorded table


def recorded(file: Path, numbers: range, *, broken: int | None = None) -> None:
    """Configuration n has clean accuracy n / 10 and robust accuracy 0.5 + n / 100.

    Under the cap, clean accuracy is 0.05 less, and 8 and 9 change places.

    Only number 2 was trained on without the cap; the runs of number `broken` broke off.
    """
    frames = []
    for number in numbers:
        parts = {"full": [2, *range(6, 55, 6)], "capped": [2, 6, 12, 18]} | (
            {"continued": [24, 54]} if number == 2 else {}
        )
        for name, epochs in parts.items():
            kept = epochs[:2] if number == broken else epochs
            frames.append(
                pd.DataFrame(
                    {
                        "configuration": number,
                        "drawn": "space",
                        "overrides": json.dumps({"attack.eps": number / 100, "method.name": "iad"}),
                        "method": "iad",
                        "training_attack_steps": 5,
                        "run": name,
                        "epoch": kept,
                        "clean_accuracy": (
                            0.1
                            * (
                                {8: 9, 9: 8}.get(number, number) - 0.5
                                if name == "capped"
                                else number
                            )
                        ),
                        "robust_accuracy": 0.5 + 0.01 * number,
                        "cpu_seconds": [float(e) for e in kept],
                    },
                    index=range(len(kept)),
                )
            )
    pd.concat(frames).to_parquet(file)


def test_a_recorded_table_is_read_without_the_runs_that_broke_off(tmp_path: Path) -> None:
    recorded(tmp_path / "runs.parquet", range(1, 6), broken=3)
    runs = curves.read(tmp_path / "runs.parquet")
    assert [o["attack.eps"] for o, _ in runs] == [0.01, 0.02, 0.04, 0.05]
    last, second = runs[-1][1], runs[1][1]
    assert last.full.values_at(6) == pytest.approx((0.5, 0.55))
    assert last.capped.values_at(18) == pytest.approx((0.45, 0.55))
    assert last.continued is last.full  # it was not trained on
    assert second.continued.values_at(18) == pytest.approx((0.15, 0.52))
    assert second.continued.values_at(54) == pytest.approx((0.2, 0.52))


def test_a_replay_meets_only_what_was_drawn_from_the_whole_space(tmp_path: Path) -> None:
    file = tmp_path / "runs.parquet"
    recorded(file, range(1, 4))
    table = pd.read_parquet(file)
    table.loc[table["configuration"].eq(2), "drawn"] = "near"
    table.to_parquet(file)
    assert [o["attack.eps"] for o, _ in curves.read(file)] == [0.01, 0.03]


def test_recorded_runs_are_met_in_an_order_of_its_own_for_every_seed(tmp_path: Path) -> None:
    recorded(tmp_path / "runs.parquet", range(1, 5))
    runs = curves.read(tmp_path / "runs.parquet")
    orders = [
        [
            curves.Recorded(curves.simulated_space(), runs, seed).given(n)["attack.eps"]
            for n in range(4)
        ]
        for seed in range(4)
    ]
    assert all(sorted(order) == [0.01, 0.02, 0.03, 0.04] for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_the_agreement_of_cheap_runs_is_told_for_all_and_for_the_better_half(
    tmp_path: Path,
) -> None:
    recorded(tmp_path / "runs.parquet", range(1, 10))
    lines = script("record").agreement(tmp_path / "runs.parquet").splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "2 epochs",
        "6 epochs",
        "18 epochs",
        "2 epochs, 2 attack steps",
        "6 epochs, 2 attack steps",
        "18 epochs, 2 attack steps",
    ]
    # one swap: rho = 1 - 6 * 2 / (9 * 80) and 1 - 6 * 2 / (5 * 24), tau = (35 - 1) / 36; robust
    # accuracies keep their order; a third of the CPU time
    assert lines[-1].split()[-8:] == [
        "9",
        "0.983",
        "0.94",
        "0.900",
        "1.000",
        "1.00",
        "1.000",
        "0.33",
    ]
    assert lines[3].split()[-8:-4] == ["9", "1.000", "1.00", "1.000"]

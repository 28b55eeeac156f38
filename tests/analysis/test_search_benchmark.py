import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rkdsearch.search.settings import SamplerConfig, SchedulerConfig
from rkdsearch.search.study import Study
from rkdsearch.training.trainer import Best, EpochResult

BENCHMARKS = Path(__file__).parents[2] / "analysis" / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    """analysis/benchmarks/search.py, which is a script and no package."""
    sys.path.insert(0, str(BENCHMARKS))
    yield import_module("search")
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def curves(benchmark: ModuleType) -> ModuleType:
    """analysis/benchmarks/curves.py, on the path by now."""
    return import_module("curves")


def curve(curves: ModuleType, measured: list[tuple[float, float]], attack_steps: int = 10) -> Any:
    """A run validated every 6 epochs; what it measures is true."""
    values = np.array(measured)
    return curves.Curve(np.arange(6, 6 * len(values) + 1, 6), values, values, attack_steps)


# ------------------------------------------------------------------------------------------------------------------- curves


def test_a_full_run_with_a_ten_step_attack_costs_one_and_its_parts_add_up(curves: ModuleType) -> None:
    assert curves.cost_of(54, 10) == pytest.approx(1.0)
    # per epoch 1 + 1/3 + steps passes, and 0.43 * (1/3 + 10) for each of the 9 validations
    assert curves.cost_of(54, 2) == pytest.approx((54 * (4 / 3 + 2) + 9 * 0.43 * 31 / 3) / (54 * (4 / 3 + 10) + 9 * 0.43 * 31 / 3))
    run = curve(curves, [(0.5, 0.5)] * 9, attack_steps=5)
    assert run.cost(0, 6) + run.cost(6, 18) + run.cost(18, 54) == pytest.approx(run.cost(0, 54))


def test_a_run_is_judged_by_its_best_epoch_so_far_and_both_values_come_from_that_one(curves: ModuleType) -> None:
    run = curve(curves, [(0.5, 0.1), (0.6, 0.4), (0.9, 0.05), (0.8, 0.2), (0.7, 0.3), (0.7, 0.2), (0.9, 0.0), (0.9, 0.0), (0.9, 0.0)])
    assert run.values_at(6) == (0.5, 0.1)
    assert run.values_at(18) == (0.6, 0.4)  # the third has the best clean accuracy and the worse mean
    assert run.values_at(54) == run.delivers() == (0.6, 0.4)


def test_simulated_robust_accuracy_peaks_and_decays_where_weights_hardly_decay(curves: ModuleType) -> None:
    overrides = {"method.name": "iad", "attack.eps": 0.2, "attack.steps": 10, "optimizer.lr": 0.1, "method.temperature": 2.0}
    little = curves.Simulated("straight", 3).curve({**overrides, "optimizer.weight_decay": 1.2e-5}).true
    enough = curves.Simulated("straight", 3).curve({**overrides, "optimizer.weight_decay": 8e-3}).true
    assert little[:, 1].argmax() < 6
    assert little[-1, 1] < 0.8 * little[:, 1].max()
    assert enough[-1, 1] > 0.93 * enough[:, 1].max()
    assert (np.diff(little[:, 0]) > 0).all()  # clean accuracy does not decay


def test_the_same_configuration_has_the_same_run_and_another_seed_another_one(curves: ModuleType) -> None:
    overrides = curves.simulated_space().sample(np.random.default_rng(0))
    first, again, other = (curves.Simulated("dented", seed).curve(overrides).measured for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_a_short_simulated_run_ranks_configurations_nearly_as_a_full_one_does(curves: ModuleType) -> None:
    from scipy.stats import spearmanr

    landscape, rng = curves.Simulated("bulging", 0), np.random.default_rng(0)
    runs = [landscape.curve(landscape.space.sample(rng)) for _ in range(60)]
    means = {rung: [sum(run.values_at(rung)) for run in runs] for rung in (6, 18, 54)}
    # on digits 0.969 and 0.981: a simulation in which early values say all would flatter early stopping
    assert 0.85 < spearmanr(means[6], means[54])[0] < 0.98
    assert 0.97 < spearmanr(means[18], means[54])[0] < 0.999


# -------------------------------------------------------------------------------------------------------------------- rules


def test_the_published_priority_misplaces_a_newcomer_that_dominates_all_others(benchmark: ModuleType) -> None:
    values = np.array([(0.4, 0.4), (0.3, 0.3), (0.2, 0.2), (0.1, 0.1), (0.9, 0.9)])
    assert list(benchmark.published_priorities(values)) == [4, 0, 1, 2, 3]  # read as places: the best is the last of five


def test_the_stock_pair_stops_below_the_upper_third_and_tells_optuna_that_it_is_complete(benchmark: ModuleType, curves: ModuleType) -> None:
    landscape = curves.Simulated("straight", 0)
    rule = benchmark.Stock(landscape.space, 0)
    decided = []
    for ordinal, mean in enumerate((0.5, 0.6, 0.55, 0.7)):
        overrides, _ = rule.propose(ordinal, [])
        trial = benchmark.Trial(ordinal, overrides, landscape.curve(overrides), rung=0)
        decided.append(rule.goes_on(trial, (mean, mean)))
        rule.ended(trial, (mean, mean))
    assert decided == [True, True, False, True]  # cutoffs: none, 0.5, 0.5667, 0.5667
    assert [t.state.name for t in rule._searcher._ot_study.trials] == ["COMPLETE"] * 4


@pytest.mark.parametrize(("sampler", "kind"), [("tpe", "promotion"), ("random", "stopping")])
def test_a_simulated_search_tries_and_stops_what_a_study_with_one_worker_does(
    benchmark: ModuleType, curves: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, kind: str
) -> None:
    sampling, scheduling = SamplerConfig.model_validate({"name": sampler}), SchedulerConfig.model_validate({"kind": kind})
    landscape = curves.Simulated("straight", 5)
    study = Study(tmp_path, replace(landscape.space, seed=7, sampler=sampling, scheduler=scheduling), 16, {})
    while (given := study.next()) is not None:
        run = landscape.curve(study.trials[given.trial_id].overrides)
        for epoch in range(len(study.trials[given.trial_id].epochs) + 1, 55):
            if not study.report(given.trial_id, result(run, epoch)):
                break

    monkeypatch.setattr(benchmark, "WORKERS", 1)
    simulated = benchmark._Search(landscape, benchmark.Ours(landscape.space, 7, sampling, scheduling), 16)
    full = [trial.ordinal for _, trial in simulated.run(math.inf)]

    assert [t.overrides for t in simulated.trials] == [t.overrides for t in study.trials.values()]
    assert [(6, 18, 54)[t.rung] for t in simulated.trials] == [t.epochs[-1].epoch for t in study.trials.values()]
    assert sorted(full) == sorted(t.ordinal for t in study.trials.values() if t.status == "finished")
    assert 0 < len(full) < 8


def result(run: Any, epoch: int) -> EpochResult:
    """What a worker would report of the simulated run."""
    known = epoch // 6 * 6
    index = run.judged(known) if known else 0
    best = Best(int(run.epochs[index]), float(run.measured[index, 0]), float(run.measured[index, 1]), 0.0) if known else None
    clean, robust = run.measured[epoch // 6 - 1] if epoch % 6 == 0 else (None, None)
    return EpochResult(epoch, 54, 1.0, {}, 0.1, 0.1, 1.0, run.attack_steps, clean, robust, best=best)


# ---------------------------------------------------------------------------------------------------------- one search, many


def test_compute_is_what_the_workers_were_busy_with_and_a_full_length_search_spends_all_of_it(
    benchmark: ModuleType, curves: ModuleType
) -> None:
    landscape = curves.Simulated("bulging", 0)
    searched = benchmark._Search(landscape, benchmark.RULES[benchmark.RANDOM](landscape.space, 0), 7)
    reached = list(searched.run(math.inf))
    assert len(reached) == 7
    assert searched.spent == pytest.approx(sum(t.curve.cost(0, 54) for t in searched.trials))
    assert reached[-1][0] == searched.spent


def test_a_track_counts_only_what_was_finished_by_then(benchmark: ModuleType) -> None:
    track = benchmark.Track(np.array([1.0, 2.0, 4.0]), np.array([0.1, 0.3, 0.3]), 5, 4.5)
    assert [track.at(c) for c in (0.5, 1.0, 3.9, 9.0)] == [0.0, 0.1, 0.3, 0.3]
    assert [track.reaches(v) for v in (0.05, 0.2, 0.31)] == [1.0, 2.0, math.inf]


def test_the_median_and_its_interval_hold_where_some_searches_never_reached_the_bar(benchmark: ModuleType) -> None:
    assert benchmark.median_with_interval([float(n) for n in range(1, 31)]) == (15.5, 10.0, 21.0)  # the textbook's ranks for n = 30
    assert benchmark.median_with_interval([0.1] * 20 + [math.inf] * 10) == (0.1, 0.1, math.inf)


def test_promotion_reaches_what_random_search_ends_with_for_less_than_its_compute(benchmark: ModuleType) -> None:
    rule = "random + MO-ASHA promotion"
    found = [benchmark.outcome(benchmark.Task("long", "straight", seed, rule, 12.0)) for seed in range(3)]
    assert sorted(o.to_the_bar for o in found)[1] < 0.7
    assert all(o.spent <= 12.0 for o in found)
    printed = benchmark.table(found, {})
    assert rule in printed
    assert "3/3" in printed


# ----------------------------------------------------------------------------------------------------------- the recorded table


def test_a_recorded_table_is_read_and_replayed_in_an_order_of_its_own_for_every_seed(
    benchmark: ModuleType, curves: ModuleType, tmp_path: Path
) -> None:
    epochs = list(range(6, 55, 6))
    frames = [
        pd.DataFrame(
            {
                "configuration": number,
                "overrides": json.dumps({"attack.eps": number / 100, "method.name": "iad"}),
                "training_attack_steps": 5,
                "epoch": epochs if number != 3 else epochs[:2],  # one that failed on its way
                "clean_accuracy": 0.1 * number,
                "robust_accuracy": 0.5,
            },
            index=range(9 if number != 3 else 2),
        )
        for number in range(1, 6)
    ]
    pd.concat(frames).to_parquet(tmp_path / "runs.parquet")
    runs = curves.read(tmp_path / "runs.parquet")
    assert [o["attack.eps"] for o, _ in runs] == [0.01, 0.02, 0.04, 0.05]
    assert runs[-1][1].values_at(6) == pytest.approx((0.5, 0.5))

    orders = [[curves.Recorded(curves.simulated_space(), runs, seed).given(n)["attack.eps"] for n in range(4)] for seed in range(4)]
    assert all(sorted(order) == [0.01, 0.02, 0.04, 0.05] for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    landscape = curves.Recorded(curves.simulated_space(), runs, 0)
    track = benchmark.search(landscape, benchmark.RULES[benchmark.RANDOM](landscape.space, 0), trials=4)
    assert track.hypervolume[-1] == pytest.approx(0.5 * 0.5)
    assert track.spent == pytest.approx(4 * curves.cost_of(54, 5))

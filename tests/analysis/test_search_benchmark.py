import math
from pathlib import Path
from types import ModuleType

import pytest

from tests.analysis.scripts import script
from tests.analysis.test_curves import recorded


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return script("search")


def test_the_median_and_its_interval_hold_where_some_searches_never_reached_the_bar(
    benchmark: ModuleType,
) -> None:
    # the textbook's ranks for n = 30
    assert benchmark.median_with_interval([float(n) for n in range(1, 31)]) == (15.5, 10.0, 21.0)
    assert benchmark.median_with_interval([0.1] * 20 + [math.inf] * 10) == (0.1, 0.1, math.inf)


def test_a_rule_that_never_reached_the_bar_is_taken_to_have_reached_it_at_the_very_end(
    benchmark: ModuleType,
) -> None:
    rows = [
        benchmark.Outcome(benchmark.Task("straight", seed, "any"), (), to_the_bar, 1, 1)
        for seed, to_the_bar in enumerate((0.2, 0.3))
    ]
    assert benchmark.against(rows, {0: 0.4, 1: math.inf}) == [0.5, 0.3]


def test_promotion_reaches_what_random_search_ends_with_for_less_than_its_compute(
    benchmark: ModuleType,
) -> None:
    rule = "random, whole ladder"
    found = [benchmark.outcome(benchmark.Task("straight", seed, rule, 20.0)) for seed in range(3)]
    assert sorted(o.to_the_bar for o in found)[1] < 0.7
    printed = benchmark.table(found)
    assert rule in printed
    assert "3/3" in printed


def test_the_recorded_table_is_replayed_by_schedulers_alone(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(tmp_path / "runs.parquet", range(1, 25))
    monkeypatch.setattr(benchmark, "TABLE", tmp_path / "runs.parquet")
    benchmark._table.cache_clear()
    benchmark._bar.cache_clear()
    found = benchmark.outcome(benchmark.Task(None, 0, "random, whole ladder"))
    assert 0 < found.to_the_bar < 1
    assert 1 <= found.full_length < found.configurations <= 24
    benchmark._table.cache_clear()
    benchmark._bar.cache_clear()

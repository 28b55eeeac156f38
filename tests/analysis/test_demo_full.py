"""The claim's arithmetic: whose front is compared, and with what interval."""

from importlib import util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from rkdsearch.results.states import Origin
from rkdsearch.results.store import Store
from tests.results.factory import CONFIG
from tests.results.rows import evaluated, study, trial


@pytest.fixture(scope="module")
def demo_full() -> ModuleType:
    file = Path(__file__).parents[2] / "analysis" / "demo_full.py"
    spec = util.spec_from_file_location("demo_full", file)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def replicated(
    ordinal: int, origin: str, clean: float, robust: float, seeds: int
) -> list[dict[str, object]]:
    """A configuration's own lucky run, and its replicates."""
    name = f"t{ordinal:05d}"
    own = trial(name, 0.99, 0.99, origin=origin, run__seed=0, config__method__name="rslad")
    again = [
        trial(f"{name}-r{n}", clean, robust, origin="replicate", run__seed=n)
        for n in range(1, seeds + 1)
    ]
    return [{**row, "ordinal": ordinal} for row in (own, *again)]


def test_the_front_is_of_one_origin_and_of_those_that_stayed_in_the_race(
    tmp_path: Path, demo_full: ModuleType
) -> None:
    study(
        tmp_path,
        *replicated(0, "baseline", 0.95, 0.80, seeds=12),
        *replicated(1, "search", 0.94, 0.70, seeds=12),
        *replicated(2, "search", 0.93, 0.60, seeds=12),  # dominated by the one before
        *replicated(3, "search", 0.97, 0.90, seeds=2),  # dropped out
    )
    (found,) = demo_full.front_of(tmp_path, Origin.SEARCH)
    assert found.ordinal == 1
    assert found.validation == (pytest.approx(0.94), pytest.approx(0.70))
    # seeds 1 to 4 decided who stays in the race
    assert found.trial_ids == tuple(f"t00001-r{n}" for n in range(5, 13))
    (published,) = demo_full.front_of(tmp_path, Origin.BASELINE)
    assert published.ordinal == 0


@pytest.mark.parametrize(
    ("fault", "why"),
    [({"status": "failed"}, "failed"), ({"flags": '["one_class"]'}, "is flagged (one_class)")],
)
def test_a_setting_with_a_failed_or_flagged_run_is_left_out_and_named(
    fault: dict[str, object],
    why: str,
    tmp_path: Path,
    demo_full: ModuleType,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = replicated(0, "baseline", 0.99, 0.90, seeds=12)
    broken[-1] |= {**fault, "config.method.name": "rslad"}
    study(tmp_path / "published", *broken, *replicated(1, "baseline", 0.94, 0.70, seeds=12))
    (found,) = demo_full.front_of(tmp_path / "published", Origin.BASELINE)
    assert found.ordinal == 1
    said = capsys.readouterr().out
    assert said == f"published: rslad of t00000 is left out: its seed 12 {why}\n"


def test_two_equal_fronts_differ_by_nothing_whatever_is_drawn(demo_full: ModuleType) -> None:
    right = np.random.default_rng(0).integers(0, 2, (8, 100, 2)).astype(float)
    assert demo_full._difference([right], [right.copy()]) == (0.0, 0.0, 0.0)


def test_a_front_does_not_win_by_the_luck_of_one_of_many(demo_full: ModuleType) -> None:
    # by seed right on 60 or 80 of 100 images: one is lucky on the first half, one on the second
    lucky = np.zeros((2, 8, 100, 2))
    lucky[:, :, :, 0] = 1
    lucky[:, :, :60, 1] = 1
    lucky[0, :4, 60:80, 1] = lucky[1, 4:, 60:80, 1] = 1
    alone = lucky[:1].copy()
    assert alone.mean(axis=(0, 1, 2)).tolist() == [1.0, 0.7]
    # the best of two on the same seeds would be worth 0.8 in each half
    assert demo_full._volume([*lucky]) == pytest.approx(0.6)


def test_only_the_best_checkpoints_newest_test_on_the_same_images_counts(
    tmp_path: Path, demo_full: ModuleType
) -> None:
    seeds = replicated(0, "search", 0.9, 0.5, seeds=2)
    study(tmp_path / "search", *seeds)
    store = Store(tmp_path / "search", CONFIG)
    tested = ("t00000-r1", "t00000-r2")
    for name in tested:
        for attack in ("clean", "autoattack"):
            evaluated(store, name, "11", attack=attack)
    evaluated(store, "t00000-r1", "00", attack="clean", split="other", subset_sha256="o")
    evaluated(store, "t00000-r1", "0", attack="clean", checkpoint="last", subset_sha256="l")
    setting = demo_full.Setting("search", 0, "x", "x", (0.9, 0.5), tested)
    assert demo_full._right(tmp_path, setting).tolist() == [[[1, 1], [1, 1]]] * 2
    evaluated(store, "t00000-r2", "11", attack="autoattack", subset_sha256="b", images=3)
    with pytest.raises(SystemExit, match="search: its students were tested on different images"):
        demo_full._right(tmp_path, setting)


def test_a_front_that_is_right_on_ten_images_more_of_a_hundred_is_above(
    demo_full: ModuleType,
) -> None:
    base = np.zeros((8, 100, 2))
    base[:, :90, 0], base[:, :60, 1] = 1, 1
    own = base.copy()
    own[:, 60:70, 1] = 1
    difference, low, high = demo_full._difference([own], [base])
    assert difference == pytest.approx(0.9 * 0.7 - 0.9 * 0.6)
    assert 0 < low < difference < high < 0.2


def test_seeds_are_drawn_as_blocks(demo_full: ModuleType) -> None:
    """One seed of eight decides: where it is not drawn, there is no difference."""
    base = np.ones((8, 50, 2))
    base[:, :, 1] = 0.5
    own = base.copy()
    own[0, :, 1] = 1.0
    difference, low, _ = demo_full._difference([own], [base])
    assert difference == pytest.approx(0.5 / 8)
    assert low == 0.0

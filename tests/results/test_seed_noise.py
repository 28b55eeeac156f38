from pathlib import Path

import pytest

from rkdsearch.results.seed_noise import replicated, seed_noise
from tests.results.rows import blocks, replicated_study, study, trial


def test_replicates_give_mean_and_sample_deviation_without_the_selected_run(tmp_path: Path) -> None:
    table = replicated(replicated_study(tmp_path).trials)
    assert table.index.tolist() == [0, 1]
    assert table["seeds"].tolist() == [3, 2]
    assert table["robust"].tolist() == pytest.approx([0.52, 0.54])
    assert table["robust_sd"].tolist() == pytest.approx([0.02, 0.02 / 2**0.5])
    assert table["robust_gap"].tolist() == pytest.approx([0.08, 0.01])
    assert table["failed"].tolist() == [1, 0]


def test_noise_is_pooled_over_contenders_and_the_selection_gap_is_a_mean(tmp_path: Path) -> None:
    noise = seed_noise(replicated_study(tmp_path).trials)
    assert noise is not None
    assert (noise.configurations, noise.runs) == (2, 5)
    assert noise.robust_sd == pytest.approx(((2 * 0.02**2 + 0.02**2 / 2) / 3) ** 0.5)
    assert (noise.clean_gap, noise.robust_gap) == (pytest.approx(0.01), pytest.approx(0.045))
    assert seed_noise(study(tmp_path / "b", trial("a", 0.9, 0.5)).trials) is None


def test_the_gap_of_a_baseline_is_the_seeds_alone_and_stands_apart(tmp_path: Path) -> None:
    again = {"origin": "replicate"}
    baseline = (
        trial("p", 0.90, 0.60, origin="baseline"),
        *(trial(f"p-r{n}", 0.9, robust, **again) for n, robust in enumerate((0.5, 0.4))),
    )
    alone = seed_noise(study(tmp_path / "alone", *baseline).trials)
    assert alone is not None
    assert (alone.configurations, alone.runs, alone.clean_gap, alone.robust_gap) == (
        1,
        2,
        None,
        None,
    )
    assert alone.baseline_robust_gap == pytest.approx(0.15)
    assert alone.robust_sd == pytest.approx(0.1 / 2**0.5)
    searched = (
        trial("s", 0.94, 0.55) | {"ordinal": 1},
        trial("s-r1", 0.92, 0.52, **again) | {"ordinal": 1},
    )
    both = seed_noise(study(tmp_path / "both", *baseline, *searched).trials)
    assert both is not None
    assert (both.configurations, both.robust_gap) == (2, pytest.approx(0.03))
    assert both.baseline_robust_gap == pytest.approx(0.15)


def test_one_replicate_each_says_nothing_about_deviations(tmp_path: Path) -> None:
    noise = seed_noise(
        study(tmp_path, trial("a", 0.9, 0.5), trial("a-r1", 0.9, 0.4, origin="replicate")).trials
    )
    assert noise is not None
    assert (noise.clean_sd, noise.robust_sd, noise.robust_gap) == (None, None, pytest.approx(0.1))
    assert (noise.robust_residual, noise.freedom) == (None, 0)


def test_what_a_seed_does_to_all_configurations_alike_is_taken_out_of_the_residual(
    tmp_path: Path,
) -> None:
    # Seed 2 is 0.06 better for everybody; what is left is +-0.005 in each of the four cells.
    rows = ((0, 1, 0.505), (0, 2, 0.555), (1, 1, 0.595), (1, 2, 0.665))
    noise = seed_noise(blocks(tmp_path, *rows).trials)
    assert noise is not None
    assert noise.seeds == (1, 2)
    assert noise.robust_sd == pytest.approx(((0.05**2 + 0.07**2) / 2 / 2) ** 0.5)
    assert (noise.robust_residual, noise.freedom) == (pytest.approx(0.01), 1)
    assert noise.clean_residual == pytest.approx(0)


def test_a_failed_replicate_leaves_a_hole_and_no_bias(tmp_path: Path) -> None:
    # Exactly additive: 0.5, 0.6, 0.7 with 0, 0.02 and 0.05 for the seeds; one cell is missing.
    rows = [
        (ordinal, seed, 0.5 + 0.1 * ordinal + (0.0, 0.02, 0.05)[seed])
        for ordinal in range(3)
        for seed in range(3)
        if (ordinal, seed) != (1, 2)
    ]
    noise = seed_noise(blocks(tmp_path, *rows).trials)
    assert noise is not None
    assert (noise.robust_residual, noise.freedom) == (pytest.approx(0, abs=1e-12), 3)


def test_seeds_that_no_two_configurations_share_are_no_blocks(tmp_path: Path) -> None:
    noise = seed_noise(blocks(tmp_path, (0, 1, 0.5), (0, 2, 0.6), (1, 3, 0.7), (1, 4, 0.8)).trials)
    assert noise is not None
    assert noise.robust_sd is not None
    assert (noise.robust_residual, noise.freedom) == (None, 0)

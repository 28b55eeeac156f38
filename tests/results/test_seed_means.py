from pathlib import Path

import pytest
from scipy.stats import t

from rkdsearch.results.seed_means import compare_means, over_seeds
from rkdsearch.results.store import Store
from rkdsearch.results.study import StudyResults, read_study
from tests.results.rows import blocks, evaluated


def evaluated_replicates(folder: Path, *runs: tuple[int, int, str]) -> StudyResults:
    """Replicates with test results: ordinal, training seed, right or wrong by image."""
    found = blocks(folder, *((ordinal, seed, 0.5) for ordinal, seed, _ in runs))
    for ordinal, seed, right in runs:
        evaluated(Store(folder), f"{ordinal}-r{seed}", right, images=len(right))
    return read_study(found.folder)


def test_a_configurations_test_result_is_the_mean_of_its_replicates_over_both_draws(
    tmp_path: Path,
) -> None:
    found = evaluated_replicates(
        tmp_path, (0, 1, "11110000"), (0, 2, "11111100"), (1, 1, "11000000"), (1, 2, "11000000")
    )
    first, second = over_seeds(found.tests, found.trials)
    assert (first.ordinal, first.attack, first.seeds, first.images) == (0, "pgd20", 2, 8)
    assert (first.estimate.value, second.estimate.value) == (0.625, 0.25)
    # Seeds: (0.25^2 / 2 + 0) / 2 with 2 degrees of freedom. Images: 1, 1, 1, 1, 0.5, 0.5, 0, 0 and
    # the four that are added: mean 7 / 12, variance 0.2196970.
    by_seeds, by_images = 0.015625 / 2, 0.21969696969696967 / 12
    effective = (by_seeds + by_images) ** 2 / (by_seeds**2 / 2 + by_images**2 / 8)
    half = float(t.ppf(0.975, effective)) * (by_seeds + by_images) ** 0.5
    assert first.estimate.low == pytest.approx(7 / 12 - half)
    assert first.estimate.high == pytest.approx(min(1.0, 7 / 12 + half))


def test_configurations_are_compared_by_the_seeds_that_they_share(tmp_path: Path) -> None:
    found = evaluated_replicates(
        tmp_path,
        *((0, 1, "11110000"), (0, 2, "11111100")),
        *((1, 1, "11000000"), (1, 2, "11110000"), (1, 3, "11111111")),
    )
    (one,) = compare_means(found.tests, found.trials, [("0-r1", "1-r1")])
    assert (one.first, one.second, one.attack, one.images) == ("0-r1", "1-r1", "pgd20", 8)
    assert one.difference.value == 0.25, "seed 3 has no partner"
    alone = evaluated_replicates(tmp_path / "b", (0, 1, "1100"), (1, 1, "1000"))
    assert compare_means(alone.tests, alone.trials, [("0-r1", "1-r1")]) == []


def test_one_replicate_each_has_a_mean_and_no_interval(tmp_path: Path) -> None:
    found = evaluated_replicates(tmp_path, (0, 1, "1110"), (1, 1, "1000"))
    means = over_seeds(found.tests, found.trials)
    assert [(m.estimate.value, m.has_interval) for m in means] == [(0.75, False), (0.25, False)]


def test_means_are_over_the_images_that_most_replicates_saw(tmp_path: Path) -> None:
    evaluated_replicates(tmp_path, (0, 1, "10"), (0, 2, "10"))
    store = Store(tmp_path)
    evaluated(store, "0-r1", "1111", images=4, subset_sha256="more")
    evaluated(store, "0-r2", "0000", attack_seed=1, images=2)
    found = read_study(tmp_path)
    # Two replicates saw the two images, one of them four more: the two are what counts.
    (mean,) = over_seeds(found.evaluations, found.trials)
    assert (mean.seeds, mean.images, mean.estimate.value) == (2, 2, 0.5)

import numpy as np
import pytest
from scipy.stats import t

from rkdsearch.results import intervals
from rkdsearch.results.seed_noise import residual_variance


@pytest.mark.parametrize(
    ("correct", "images", "low", "high"),
    [
        (90, 100, 0.8256343, 0.9447709),
        (81, 263, 0.2552885, 0.3662096),  # Newcombe 1998, table I, method 3: 0.2553 to 0.3662
        (15, 148, 0.0623864, 0.1604872),  # Newcombe 1998: 0.0624 to 0.1605
        (0, 20, 0.0, 0.1611252),  # Newcombe 1998: 0.0000 to 0.1611
        (1, 29, 0.0061132, 0.1717552),  # Newcombe 1998: 0.0061 to 0.1718
        (10, 10, 0.7224672, 1.0),
    ],
)
def test_an_accuracy_has_wilsons_interval(
    correct: int, images: int, low: float, high: float
) -> None:
    found = intervals.wilson(correct, images)
    assert found.value == correct / images
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-7), pytest.approx(high, abs=1e-7))


@pytest.mark.parametrize(("correct", "images"), [(0, 0), (-1, 5), (6, 5)])
def test_an_impossible_count_is_refused(correct: int, images: int) -> None:
    with pytest.raises(ValueError, match="correct"):
        intervals.wilson(correct, images)


def test_a_paired_difference_counts_only_where_the_two_disagree() -> None:
    # 100 images: 60 right by both, 20 by a alone, 8 by b alone, 12 by none
    a, b = "1" * 60 + "1" * 20 + "0" * 8 + "0" * 12, "1" * 60 + "0" * 20 + "1" * 8 + "0" * 12
    found = intervals.paired_difference(a, b)
    # with one pair more on each side: 21 and 9 of 102, so 0.1176471 with a standard error of
    # 0.0524196
    assert found.value == pytest.approx(0.12)
    assert (found.low, found.high) == (
        pytest.approx(0.0149066, abs=1e-6),
        pytest.approx(0.2203876, abs=1e-6),
    )


def test_the_difference_turned_round_has_the_interval_turned_round() -> None:
    forth, back = (
        intervals.paired_difference("11010", "01001"),
        intervals.paired_difference("01001", "11010"),
    )
    assert (forth.value, forth.low, forth.high) == (-back.value, -back.high, -back.low)


def test_equal_results_differ_by_nothing_but_not_with_certainty() -> None:
    found = intervals.paired_difference("10" * 50, "10" * 50)
    assert found.value == 0.0
    assert found.high == -found.low == pytest.approx(1.959964 * (2 / 102 / 102) ** 0.5, abs=1e-6)


def test_an_interval_stays_between_minus_one_and_one() -> None:
    assert intervals.paired_difference("1", "0") == intervals.Estimate(
        1.0, pytest.approx(-0.733536, abs=1e-6), 1.0
    )


def test_flags_may_be_booleans() -> None:
    assert intervals.paired_difference(
        [True, False, True], [True, True, False]
    ) == intervals.paired_difference("101", "110")


def test_of_four_intervals_each_is_one_of_98_75_percent() -> None:
    a, b = "1" * 60 + "1" * 20 + "0" * 8 + "0" * 12, "1" * 60 + "0" * 20 + "1" * 8 + "0" * 12
    found = intervals.paired_difference(a, b, intervals=4)
    # 0.1176471 with a standard error of 0.0524196, as above, times 2.4977055
    assert (found.value, found.low) == (pytest.approx(0.12), pytest.approx(-0.0132816, abs=1e-6))


def test_ten_intervals_hold_at_once_nineteen_times_of_twenty() -> None:
    random, held = np.random.default_rng(0), 0
    for _ in range(150):
        # One network beside ten others, each right on an image with the chance of that image.
        hard = random.uniform(0.3, 0.9, size=100)
        one, *others = (random.uniform(size=100) < hard for _ in range(11))
        held += all(
            found.low <= 0 <= found.high
            for other in others
            for found in [intervals.paired_difference(list(one), list(other), intervals=10)]
        )
    assert held / 150 >= 0.93


def test_a_mean_over_seeds_holds_the_truth_nineteen_times_of_twenty() -> None:
    random, held = np.random.default_rng(1), 0
    for _ in range(200):
        # Truth 0.6; images differ by 0.2, seeds by 0.03 for all images; five settings share seeds.
        groups = []
        for _ in range(5):
            hard = np.clip(random.normal(0.6, 0.2, size=150), 0, 1)
            groups.append(
                [
                    "".join(
                        "01"[int(right)]
                        for right in random.uniform(size=150) < hard + random.normal(0, 0.03)
                    )
                    for _ in range(2)
                ]
            )
        variance, freedom = intervals.pooled_variance(
            [[run.count("1") / 150 for run in runs] for runs in groups]
        )
        found = intervals.mean_over_seeds(groups[0], variance, freedom)
        held += found.low <= 0.6 <= found.high
    assert 0.93 <= held / 200 <= 0.99


def test_a_perfect_mean_is_not_certain() -> None:
    found = intervals.mean_over_seeds(["1" * 20, "1" * 20], 0.0, 4)
    # As Agresti and Coull: 22 of 24 and 1.0 more of spread in images.
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.75 < found.low < 0.85


def test_a_difference_over_seeds_holds_the_truth_nineteen_times_of_twenty() -> None:
    random, held = np.random.default_rng(2), 0
    for _ in range(200):
        # Four settings, two seeds in common: a seed moves all by 0.04, and each by 0.01 more.
        hard = np.clip(random.normal(0.6, 0.2, size=120), 0, 1)
        truth = (0.0, 0.05, 0.1, 0.15)
        common = random.normal(0, 0.04, size=2)
        runs = [
            [
                "".join(
                    "01"[int(right)]
                    for right in random.uniform(size=120)
                    < hard + setting + seed + random.normal(0, 0.01)
                )
                for seed in common
            ]
            for setting in truth
        ]
        cells = [
            (n, s, run.count("1") / 120) for n, of in enumerate(runs) for s, run in enumerate(of)
        ]
        residual, freedom = residual_variance(*zip(*cells, strict=True))
        assert freedom == 3
        found = intervals.difference_over_seeds(runs[1], runs[0], residual, freedom)
        held += found.low <= 0.05 <= found.high
    assert held / 200 >= 0.93


def test_a_difference_over_seeds_in_literal_numbers() -> None:
    # Images: 1, 0, 0.5, 0, and 1 and -1 that are added: mean 0.25, variance 0.575.
    found = intervals.difference_over_seeds(["1110", "1010"], ["0110", "0000"], 0.01, 3)
    by_images, by_seeds = 0.575 / 6, 0.01
    effective = (by_images + by_seeds) ** 2 / (by_images**2 / 4 + by_seeds**2 / 3)
    half = float(t.ppf(0.975, effective)) * (by_images + by_seeds) ** 0.5
    assert found.value == 0.375
    assert found.low == pytest.approx(0.25 - half)
    wider = intervals.difference_over_seeds(["1110", "1010"], ["0110", "0000"], 0.01, 3, 5)
    assert wider.low < found.low


@pytest.mark.parametrize(("runs", "freedom"), [(["10", "1"], 1), (["", ""], 1), (["10", "11"], 0)])
def test_a_mean_over_other_images_or_without_a_known_spread_is_refused(
    runs: list[str], freedom: int
) -> None:
    with pytest.raises(ValueError, match="need runs on the same images"):
        intervals.mean_over_seeds(runs, 0.1, freedom)
    with pytest.raises(ValueError, match="as many runs on both sides"):
        intervals.difference_over_seeds(["10"], ["10", "11"], 0.1, 1)


def test_groups_of_one_say_nothing_about_the_variance_within() -> None:
    assert intervals.pooled_variance([[0.5], [0.7]]) == (0.0, 0)
    assert intervals.pooled_variance([[0.5, 0.6], [0.7, 0.7, 0.7], [0.1]]) == (
        pytest.approx(0.005 / 3),
        3,
    )


@pytest.mark.parametrize(("a", "b"), [("", ""), ("10", "1")])
def test_results_of_other_images_are_refused(a: str, b: str) -> None:
    with pytest.raises(ValueError, match="as many images"):
        intervals.paired_difference(a, b)


def test_the_paired_interval_holds_the_truth_nineteen_times_of_twenty() -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        # both, only a, only b, none: the truth is 0.10
        kinds = random.choice(4, size=150, p=[0.6, 0.15, 0.05, 0.2])
        found = intervals.paired_difference(
            [bool(k in {0, 1}) for k in kinds], [bool(k in {0, 2}) for k in kinds]
        )
        held += found.low <= 0.10 <= found.high
    assert 0.93 <= held / 1000 <= 0.97

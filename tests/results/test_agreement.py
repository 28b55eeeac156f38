"""How well a rung ranks the students that were trained to full length."""

from pathlib import Path

import pandas as pd
import pytest

from rkdsearch.results.agreement import Agreement, of_rungs, rank_agreement
from rkdsearch.results.study import read_study
from tests.results.factory import make_study


def test_a_rung_may_rank_settings_rightly_and_methods_the_other_way_round() -> None:
    """Three methods; full runs 0.0 to 0.8; the rung has the methods' order turned."""
    trials = [f"t{n}" for n in range(9)]
    full = pd.Series([0.1 * n for n in range(9)], index=trials)
    cheap = pd.Series([0.6, 0.7, 0.8, 0.3, 0.4, 0.5, 0.0, 0.1, 0.2], index=trials)
    method = pd.Series([*"aaabbbccc"], index=trials)
    found = rank_agreement(cheap, full, method)
    # ranks 7 8 9 4 5 6 1 2 3 of 1 to 9: squared differences 6 x 36 + 0
    assert found.overall == pytest.approx(1 - 6 * 216 / (9 * 80))
    assert found.within == pytest.approx(1.0)
    assert found.between == pytest.approx(-1.0)
    assert (found.trials, found.better_half) == (9, None)  # five are too few to be ranked


def test_a_method_of_one_trial_says_nothing_within_methods() -> None:
    trials = [f"t{n}" for n in range(10)]
    full = pd.Series([0.1 * n for n in range(10)], index=trials)
    eight = rank_agreement(full, full, pd.Series([*"aabbccddef"], index=trials))
    assert eight.within == pytest.approx(1.0)
    assert rank_agreement(full, full, pd.Series([*"aabbccdefg"], index=trials)).within is None


def test_trials_that_lack_one_of_both_are_left_out_and_a_constant_ranks_nothing() -> None:
    trials = [f"t{n}" for n in range(10)]
    full = pd.Series([0.1 * n for n in range(10)], index=trials)
    method = pd.Series(["a"] * 10, index=trials)
    two_less = full.drop(["t0", "t1"])
    found = rank_agreement(two_less, full, method)
    assert found == Agreement(8, pytest.approx(1.0), None, pytest.approx(1.0), None)
    assert rank_agreement(two_less.drop("t2"), full, method) == Agreement(7, *[None] * 4)
    assert rank_agreement(full * 0, full, method).overall is None


def test_the_rungs_of_a_study_are_compared_with_its_full_runs(tmp_path: Path) -> None:
    make_study(tmp_path)
    study = read_study(tmp_path)
    found = of_rungs(study.rungs, study.trials)
    # rungs of 3 and 8 epochs; of 24, full length, there is nothing to say
    assert {epochs: known.trials for epochs, known in found.items()} == {3: 33, 8: 33}
    assert (found[3].overall, found[8].overall) == pytest.approx((0.946, 0.961), abs=1e-3)
    assert (found[3].within, found[8].within) == pytest.approx((0.882, 0.918), abs=1e-3)
    assert (found[3].between, found[8].between) == pytest.approx((0.948, 0.988), abs=1e-3)
    assert of_rungs(study.rungs, study.trials.iloc[:0]) == {}
    assert of_rungs(study.rungs.iloc[:0], study.trials) == {}

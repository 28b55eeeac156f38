import json
from datetime import timedelta
from pathlib import Path
from typing import get_args

from rkdsearch.results.evaluations import compare, current_tests
from rkdsearch.results.states import ATTACKS, EvaluationAttack
from rkdsearch.results.store import Store
from rkdsearch.results.study import read_study
from tests.results.factory import START
from tests.results.rows import evaluated


def test_students_are_compared_on_the_same_images_only(tmp_path: Path) -> None:
    store = Store(tmp_path)
    evaluated(store, "a", "1110")
    evaluated(store, "b", "0110")
    evaluated(store, "a", "11", attack="clean")
    evaluated(store, "b", "01", attack="clean", subset_sha256="other")
    evaluated(store, "b", "0000", checkpoint="last")
    evaluated(store, "c", "1111", checkpoint="last")
    evaluated(store, "a", "0000", attack_seed=1)
    evaluated(store, "b", "1111", attack_seed=1)
    (found,) = compare(store.evaluations(), [("a", "b")])
    assert (found.attack, found.images, found.difference.value) == ("pgd20", 4, 0.25)
    assert compare(store.evaluations(), [("a", "c")]) == []


def test_a_quick_look_stands_behind_the_whole_evaluation_and_old_weights_behind_new_ones(
    tmp_path: Path,
) -> None:
    store, day = Store(tmp_path), START
    evaluated(store, "a", "1111", images=4, attack_seed=0, evaluated=day)
    evaluated(store, "a", "1100", images=4, attack_seed=1, evaluated=day)
    evaluated(store, "a", "10", images=2, subset_sha256="few", evaluated=day + timedelta(days=1))
    evaluated(store, "a", "11", images=2, subset_sha256="others", attack="clean", evaluated=day)
    evaluated(
        store,
        "a",
        "01",
        images=2,
        subset_sha256="few",
        attack="clean",
        evaluated=day + timedelta(days=1),
    )
    evaluated(store, "b", "1111", images=4, weights_sha256="old", evaluated=day)
    evaluated(
        store,
        "b",
        "01",
        images=2,
        subset_sha256="few",
        weights_sha256="new",
        evaluated=day + timedelta(days=1),
    )
    shown = (
        current_tests(store.evaluations())[["trial_id", "attack", "attack_seed", "per_image"]]
        .to_numpy()
        .tolist()
    )
    assert shown == [
        ["a", "clean", 0, "01"],
        ["a", "pgd20", 0, "1111"],
        ["a", "pgd20", 1, "1100"],
        ["b", "pgd20", 0, "01"],
    ]
    (found,) = compare(store.evaluations(), [("a", "b")])
    assert (found.images, found.difference.value) == (
        2,
        0.0,
    ), "the images that both of these weights saw"
    assert read_study(tmp_path).tests.equals(current_tests(store.evaluations()))
    assert current_tests(Store(tmp_path / "empty").evaluations()).empty


def test_students_are_compared_on_the_most_images_that_both_saw(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for trial_id, few, many in (("a", "11", "1111"), ("b", "00", "0111")):
        evaluated(store, trial_id, few, images=2, subset_sha256="few")
        evaluated(store, trial_id, many, images=4)
    (found,) = compare(store.evaluations(), [("a", "b")])
    assert (found.images, found.difference.value) == (4, 0.25)


def test_clean_results_pair_although_they_have_no_ball(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for trial_id, right in (("a", "11"), ("b", "01")):
        evaluated(
            store, trial_id, right, attack="clean", norm=None, eps=None, test_attack_steps=None
        )
    assert [c.attack for c in compare(store.evaluations(), [("a", "b")])] == ["clean"]


def test_comparisons_that_are_read_together_have_wider_intervals(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for trial_id, right in (("a", "1110"), ("b", "0110"), ("c", "0100")):
        evaluated(store, trial_id, right)
    (alone,) = compare(store.evaluations(), [("a", "b")])
    both = compare(store.evaluations(), [("a", "b"), ("a", "c")])
    assert [(c.first, c.second) for c in both] == [("a", "b"), ("a", "c")]
    assert both[0].difference.value == alone.difference.value == 0.25
    assert both[0].difference.low < alone.difference.low


def test_every_attack_of_the_evaluation_has_a_name_for_people() -> None:
    assert set(ATTACKS) == set(get_args(EvaluationAttack))


def test_results_under_two_versions_of_an_attack_are_not_compared(tmp_path: Path) -> None:
    store, (old, new) = Store(tmp_path), ({"version": 1}, {"version": 2})
    for settings, right, day in ((old, "1111", 0), (new, "1100", 1)):
        text = json.dumps(settings)
        for trial_id in ("a", "b"):
            flags = right if trial_id == "a" else "1000"
            when = START + timedelta(days=day)
            evaluated(store, trial_id, flags, attack_settings=text, evaluated=when)
    evaluated(store, "c", "0000", attack_settings=json.dumps(old))
    evaluated(store, "d", "0000", attack_settings=json.dumps({"version": 3}))
    (newest,) = compare(store.evaluations(), [("a", "b")])
    assert newest.difference.value == 0.25
    (older,) = compare(store.evaluations(), [("a", "c")])
    assert older.difference.value == 1.0
    assert compare(store.evaluations(), [("a", "d")]) == []


def test_transfer_is_compared_although_it_is_made_on_other_networks(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for trial_id, other, right in (("a", "b", "11"), ("b", "a", "01")):
        settings = json.dumps({"made on": [other]})
        evaluated(store, trial_id, right, attack="transfer", attack_settings=settings)
    (found,) = compare(store.evaluations(), [("a", "b")])
    assert found.difference.value == 0.5

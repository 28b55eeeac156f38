from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest
from scipy.stats import t

from rkdsearch.errors import StudyError
from rkdsearch.results.cells import CLEAN, ROBUST, parse, records
from rkdsearch.results.cost import Cost, by_method, cost_of, counted, survival
from rkdsearch.results.evaluations import compare, current_tests
from rkdsearch.results.front import configurations, front_rows, volume
from rkdsearch.results.objectives import USUAL
from rkdsearch.results.seed_means import compare_means, over_seeds
from rkdsearch.results.seed_noise import replicated, seed_noise
from rkdsearch.results.states import ATTACKS, EvaluationAttack
from rkdsearch.results.store import Store
from rkdsearch.results.study import StudyResults, read_study
from tests.results.factory import CONFIG, START, make_study


def trial(
    trial_id: str,
    clean: float | None,
    robust: float | None,
    status: str = "finished",
    **more: object,
) -> dict[str, object]:
    row = {
        "trial_id": trial_id,
        "ordinal": 0,
        "status": status,
        CLEAN: clean,
        ROBUST: robust,
    }
    return row | {name.replace("__", "."): value for name, value in more.items()}


def study(folder: Path, *rows: dict[str, object]) -> StudyResults:
    store = Store(folder, CONFIG)
    for row in rows:
        store.write_trial(row)
    return read_study(folder)


def test_only_trials_of_full_length_are_on_the_front(tmp_path: Path) -> None:
    found = study(
        tmp_path,
        trial("a", 0.9, 0.5),
        trial("b", 0.8, 0.6),
        trial("dominated", 0.8, 0.5),
        *(
            trial(f"better-{status}", 0.99, 0.99, status)
            for status in ("stopped", "running", "paused", "failed")
        ),
        trial("blind", None, None),
    )
    assert front_rows(found.trials)["trial_id"].tolist() == ["b", "a"]
    assert volume(found.front) == pytest.approx(0.8 * 0.6 + 0.1 * 0.5)


def test_the_front_of_nothing_is_empty(tmp_path: Path) -> None:
    found = study(tmp_path)
    assert len(front_rows(found.trials)) == 0
    assert volume(found.front) == 0.0
    assert cost_of(found.trials) == Cost({}, 0.0, 0.0, 0.0)
    assert (
        len(by_method(found.trials, found.front))
        == len(survival(found.rungs))
        == len(replicated(found.trials))
        == 0
    )


def test_other_objectives_give_another_front(tmp_path: Path) -> None:
    found = study(
        tmp_path,
        trial("a", 0.9, 0.5, metric__worst_class_accuracy=0.1),
        trial("b", 0.8, 0.4, metric__worst_class_accuracy=0.3),
    )
    assert front_rows(found.trials)["trial_id"].tolist() == ["a"]
    assert front_rows(found.trials, (*USUAL, "worst_class_accuracy"))["trial_id"].tolist() == [
        "b",
        "a",
    ]


def test_cost_adds_all_trials_also_those_in_vain(tmp_path: Path) -> None:
    spent = {
        "run__wall_seconds": 10.0,
        "run__device_seconds": 20.0,
        "run__started": START,
        "run__updated": START.replace(minute=1),
    }
    found = study(
        tmp_path,
        trial("a", 0.9, 0.5, **spent),
        trial("b", None, None, "failed", **spent),
        trial("c", None, None, "running"),
    )
    assert cost_of(found.trials) == Cost(
        {"finished": 1, "failed": 1, "running": 1}, 40.0, 20.0, 60.0
    )


def test_methods_are_judged_by_their_finished_trials(tmp_path: Path) -> None:
    found = study(
        tmp_path,
        trial("a", 0.9, 0.5, config__method__name="rslad"),
        trial("b", 0.95, 0.9, "stopped", config__method__name="rslad"),
        trial("c", 0.8, 0.6, config__method__name="crdnd", reconstructed=True),
        trial("d", None, None, "failed"),
    )
    rows = records(by_method(found.trials, found.front))
    assert [
        (r["method"], r["trials"], r["finished"], r["on_front"], r["robust"], r["reconstructed"])
        for r in rows
    ] == [
        ("crdnd", 1, 1, 1, 0.6, True),
        ("rslad", 2, 1, 1, 0.5, False),
        ("unknown", 1, 0, 0, None, False),
    ]


def test_the_last_decision_on_a_rung_is_the_one_that_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for trial_id, decisions in {
        "a": ["paused", "promoted"],
        "b": ["paused"],
        "c": ["stopped"],
    }.items():
        rows = [
            {
                "epochs": 3,
                "validation_attack_steps": 10,
                "robust_accuracy": 0.5,
                "decided": START.replace(minute=n),
                "decision": d,
            }
            for n, d in enumerate(decisions)
        ]
        store.write_rungs(trial_id, rows)
    row = records(survival(store.rungs()))[0]
    assert {
        key: row[key] for key in ("epochs", "reached", "promoted", "continued", "paused", "stopped")
    } == {
        "epochs": 3,
        "reached": 3,
        "promoted": 1,
        "continued": 0,
        "paused": 1,
        "stopped": 1,
    }


def repeated(folder: Path) -> StudyResults:
    """Two contenders with three and two replicates, one without, and unfinished replicates."""
    again = {"origin": "replicate"}
    return study(
        folder,
        trial("a", 0.90, 0.60),
        *(trial(f"a-r{n}", 0.9, robust, **again) for n, robust in enumerate((0.50, 0.54, 0.52))),
        trial("a-r4", 0.9, 0.9, "failed", **again),
        trial("b", 0.94, 0.55) | {"ordinal": 1},
        *(
            trial(f"b-r{n}", 0.92, robust, **again) | {"ordinal": 1}
            for n, robust in enumerate((0.53, 0.55))
        ),
        trial("c", 0.99, 0.50) | {"ordinal": 2},
    )


def test_repeats_give_mean_and_sample_deviation_of_the_fresh_seeds_alone(tmp_path: Path) -> None:
    table = replicated(repeated(tmp_path).trials)
    assert table.index.tolist() == [0, 1]
    assert table["seeds"].tolist() == [3, 2]
    assert table["robust"].tolist() == pytest.approx([0.52, 0.54])
    assert table["robust_sd"].tolist() == pytest.approx([0.02, 0.02 / 2**0.5])
    assert table["robust_gap"].tolist() == pytest.approx([0.08, 0.01])
    assert table["failed"].tolist() == [1, 0]


def test_where_contenders_were_repeated_fresh_seeds_name_the_front(tmp_path: Path) -> None:
    front = front_rows(repeated(tmp_path).trials)
    # b dominates a by its means, though a was the more robust run; c was no contender
    assert front["trial_id"].tolist() == ["b"]
    assert front[[CLEAN, ROBUST]].to_numpy().tolist() == [
        [pytest.approx(0.92), pytest.approx(0.54)]
    ]


def test_a_repeated_configuration_stands_at_its_means_and_the_others_at_their_one_run(
    tmp_path: Path,
) -> None:
    trials = repeated(tmp_path).trials
    found = configurations(trials)
    assert found["trial_id"].tolist() == ["a", "b", "c"]
    assert found[ROBUST].tolist() == pytest.approx([0.52, 0.54, 0.50])
    assert records(found[["seeds", "failed"]]) == [
        {"seeds": 3, "failed": 1}, {"seeds": 2, "failed": 0}, {"seeds": None, "failed": None},
    ]  # fmt: skip
    assert counted(trials, running=True) == "3 trials (3 finished) and 6 replicates"
    Store(tmp_path, CONFIG).write_trial(
        trial("b-r2", None, None, "running", origin="replicate") | {"ordinal": 1}
    )
    trials = read_study(tmp_path).trials
    assert counted(trials, running=True) == "3 trials (3 finished) and 6 of 7 replicates"
    assert configurations(trials)[ROBUST].tolist() == [
        0.60,
        0.55,
        0.50,
    ]


def test_until_the_last_repeat_is_over_the_front_is_named_by_single_runs(tmp_path: Path) -> None:
    found = repeated(tmp_path)
    Store(tmp_path, CONFIG).write_trial(
        trial("b-r2", None, None, "running", origin="replicate") | {"ordinal": 1}
    )
    assert front_rows(found.trials)["trial_id"].tolist() == ["b"]
    assert front_rows(read_study(tmp_path).trials)["trial_id"].tolist() == ["a", "b", "c"]


def test_the_studys_objectives_name_its_front_and_its_hypervolume(tmp_path: Path) -> None:
    worst = "metric.worst_class_accuracy"
    study(tmp_path, trial("a", 0.80, 0.50) | {worst: 0.40}, trial("b", 0.80, 0.55) | {worst: 0.05})
    assert read_study(tmp_path).front["trial_id"].tolist() == ["b"]
    (tmp_path / "study.json").write_text(
        '{"objectives": ["clean_accuracy", "worst_class_accuracy"]}', encoding="utf-8"
    )
    found = read_study(tmp_path)
    assert found.front["trial_id"].tolist() == ["a"]
    assert found.volume == pytest.approx(0.80 * 0.40)


@pytest.mark.parametrize(
    "objectives",
    ["null", '["clean_accuracy"]', '["clean_accuracy", "somebody_elses"]', '"clean_accuracy"'],
)
def test_objectives_that_are_none_of_ours_leave_the_usual_pair(
    tmp_path: Path, objectives: str
) -> None:
    (tmp_path / "study.json").write_text(f'{{"objectives": {objectives}}}', encoding="utf-8")
    assert read_study(tmp_path).objectives == USUAL


def test_a_student_that_is_larger_than_the_search_allowed_is_on_no_front(tmp_path: Path) -> None:
    study(
        tmp_path,
        trial("a", 0.90, 0.60, run__parameters=5_001),
        trial("b", 0.80, 0.50, run__parameters=5_000),
        trial("c", 0.70, 0.55),
    )
    (tmp_path / "study.json").write_text('{"constraints": {"parameters": 5000}}', encoding="utf-8")
    assert read_study(tmp_path).front["trial_id"].tolist() == ["c", "b"]


def test_what_the_search_asked_of_full_length_trials_is_asked_of_the_front(tmp_path: Path) -> None:
    study(tmp_path, trial("a", 0.90, 0.60), trial("b", 0.94, 0.55), trial("c", 0.99, 0.50))
    (tmp_path / "study.json").write_text(
        '{"constraints": {"clean_accuracy": 0.92, "robust_accuracy": 0.51}}', encoding="utf-8"
    )
    found = read_study(tmp_path)
    assert found.front["trial_id"].tolist() == ["b"]
    assert volume(found.front) == pytest.approx(0.94 * 0.55)


def test_noise_is_pooled_over_contenders_and_luck_is_its_mean(tmp_path: Path) -> None:
    noise = seed_noise(repeated(tmp_path).trials)
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


def test_one_fresh_seed_each_says_nothing_about_deviations(tmp_path: Path) -> None:
    noise = seed_noise(
        study(tmp_path, trial("a", 0.9, 0.5), trial("a-r1", 0.9, 0.4, origin="replicate")).trials
    )
    assert noise is not None
    assert (noise.clean_sd, noise.robust_sd, noise.robust_gap) == (None, None, pytest.approx(0.1))
    assert (noise.robust_residual, noise.freedom) == (None, 0)


def blocks(folder: Path, *rows: tuple[int, int, float]) -> StudyResults:
    """Replicates of configurations: ordinal, training seed, robust accuracy."""
    return study(
        folder,
        *(
            trial(f"{ordinal}-r{seed}", 0.9, robust, origin="replicate", run__seed=seed)
            | {"ordinal": ordinal}
            for ordinal, seed, robust in rows
        ),
    )


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


def examined(store: Store, trial_id: str, right: str, **more: object) -> None:
    row = {
        "trial_id": trial_id,
        "checkpoint": "best",
        "attack": "pgd20",
        "attack_seed": 0,
        "per_image": right,
        "subset_sha256": "c",
    }
    store.write_evaluation(row | more)


def test_students_are_compared_on_the_same_images_only(tmp_path: Path) -> None:
    store = Store(tmp_path)
    examined(store, "a", "1110")
    examined(store, "b", "0110")
    examined(store, "a", "11", attack="clean")
    examined(store, "b", "01", attack="clean", subset_sha256="other")
    examined(store, "b", "0000", checkpoint="last")
    examined(store, "c", "1111", checkpoint="last")
    examined(store, "a", "0000", attack_seed=1)
    examined(store, "b", "1111", attack_seed=1)
    (found,) = compare(store.evaluations(), [("a", "b")])
    assert (found.attack, found.images, found.difference.value) == ("pgd20", 4, 0.25)
    assert compare(store.evaluations(), [("a", "c")]) == []


def test_a_quick_look_stands_behind_the_whole_exam_and_old_weights_behind_new_ones(
    tmp_path: Path,
) -> None:
    store, day = Store(tmp_path), START
    examined(store, "a", "1111", images=4, attack_seed=0, evaluated=day)
    examined(store, "a", "1100", images=4, attack_seed=1, evaluated=day)
    examined(store, "a", "10", images=2, subset_sha256="few", evaluated=day + timedelta(days=1))
    examined(store, "a", "11", images=2, subset_sha256="others", attack="clean", evaluated=day)
    examined(
        store,
        "a",
        "01",
        images=2,
        subset_sha256="few",
        attack="clean",
        evaluated=day + timedelta(days=1),
    )
    examined(store, "b", "1111", images=4, weights_sha256="old", evaluated=day)
    examined(
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
        examined(store, trial_id, few, images=2, subset_sha256="few")
        examined(store, trial_id, many, images=4)
    (found,) = compare(store.evaluations(), [("a", "b")])
    assert (found.images, found.difference.value) == (4, 0.25)


def test_clean_results_pair_although_they_have_no_ball(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for trial_id, right in (("a", "11"), ("b", "01")):
        examined(
            store, trial_id, right, attack="clean", norm=None, eps=None, test_attack_steps=None
        )
    assert [c.attack for c in compare(store.evaluations(), [("a", "b")])] == ["clean"]


def test_comparisons_that_are_read_together_have_wider_intervals(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for trial_id, right in (("a", "1110"), ("b", "0110"), ("c", "0100")):
        examined(store, trial_id, right)
    (alone,) = compare(store.evaluations(), [("a", "b")])
    both = compare(store.evaluations(), [("a", "b"), ("a", "c")])
    assert [(c.first, c.second) for c in both] == [("a", "b"), ("a", "c")]
    assert both[0].difference.value == alone.difference.value == 0.25
    assert both[0].difference.low < alone.difference.low


def evaluated_replicates(folder: Path, *runs: tuple[int, int, str]) -> StudyResults:
    """Replicates with test results: ordinal, training seed, right or wrong by image."""
    found = blocks(folder, *((ordinal, seed, 0.5) for ordinal, seed, _ in runs))
    for ordinal, seed, right in runs:
        examined(Store(folder), f"{ordinal}-r{seed}", right, images=len(right))
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
    examined(store, "0-r1", "1111", images=4, subset_sha256="more")
    examined(store, "0-r2", "0000", attack_seed=1, images=2)
    found = read_study(tmp_path)
    # Two replicates saw the two images, one of them four more: the two are what counts.
    (mean,) = over_seeds(found.evaluations, found.trials)
    assert (mean.seeds, mean.images, mean.estimate.value) == (2, 2, 0.5)


def test_every_attack_of_the_evaluation_has_a_name_for_people() -> None:
    assert set(ATTACKS) == set(get_args(EvaluationAttack))


def test_missing_values_become_none(tmp_path: Path) -> None:
    (row,) = records(study(tmp_path, trial("a", None, 0.5)).trials)
    assert (
        row[CLEAN],
        row[ROBUST],
        row["error"],
        row["metric.best_epoch"],
        row["run.started"],
    ) == (
        None,
        0.5,
        None,
        None,
        None,
    )


@pytest.mark.parametrize("text", [None, "", "{", "[1]", "3", float("nan")])
def test_text_that_is_no_json_object_says_nothing(text: object) -> None:
    assert parse(text) == {}


def test_a_folder_that_is_not_there_is_the_users_to_correct(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="a study is a folder that `rkdsearch tune` made"):
        read_study(tmp_path / "typo")


def test_a_study_without_description_is_called_by_its_folder(tmp_path: Path) -> None:
    make_study(tmp_path / "copied", trials=3, evaluated=False)
    (tmp_path / "copied" / "study.json").unlink()
    assert read_study(tmp_path / "copied").name == "copied"

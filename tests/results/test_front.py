from dataclasses import replace
from pathlib import Path

import pytest

from rkdsearch.results.cells import CLEAN, ROBUST, records
from rkdsearch.results.cost import Cost, by_method, cost_of, counted, survival
from rkdsearch.results.front import configurations, front_rows, kept_off, volume
from rkdsearch.results.objectives import USUAL
from rkdsearch.results.seed_noise import replicated
from rkdsearch.results.store import Store
from rkdsearch.results.study import read_study
from tests.results.factory import CONFIG
from tests.results.rows import replicated_study, study, trial


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


def test_where_contenders_have_replicates_these_name_the_front(tmp_path: Path) -> None:
    trials = replicated_study(tmp_path).trials
    equal = trials[~trials["trial_id"].isin(["a-r2", "a-r4"])]
    front = front_rows(equal)
    # b dominates a by its means, though a was the more robust run; c was no contender
    assert front["trial_id"].tolist() == ["b"]
    assert front[[CLEAN, ROBUST]].to_numpy().tolist() == [
        [pytest.approx(0.92), pytest.approx(0.54)]
    ]


def test_of_unequally_replicated_contenders_those_with_the_most_name_the_front(
    tmp_path: Path,
) -> None:
    trials = replicated_study(tmp_path).trials
    # a has three replicates, b two with better means
    assert front_rows(trials)["trial_id"].tolist() == ["a"]
    # a seed that failed is no reason to be judged by the lucky ones
    fewer = trials[~trials["trial_id"].isin(["a-r1", "a-r2"])]
    assert front_rows(fewer)["trial_id"].tolist() == ["b"]


def test_a_replicated_configuration_stands_at_its_means_and_the_others_at_their_one_run(
    tmp_path: Path,
) -> None:
    trials = replicated_study(tmp_path).trials
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


def test_until_the_last_replicate_is_over_the_front_is_named_by_single_runs(tmp_path: Path) -> None:
    found = replicated_study(tmp_path)
    Store(tmp_path, CONFIG).write_trial(
        trial("b-r2", None, None, "running", origin="replicate") | {"ordinal": 1}
    )
    assert front_rows(found.trials)["trial_id"].tolist() == ["a"]
    assert front_rows(read_study(tmp_path).trials)["trial_id"].tolist() == ["a", "b", "c"]


def by_class(clean: float, robust: float, *classes: float) -> dict[str, object]:
    """Cells of a trial that was validated on 200 images."""
    return {
        CLEAN: clean,
        ROBUST: robust,
        "metric.worst_class_accuracy": 0.0,
        "metric.by_class.clean_accuracy": list(classes),
        "fidelity.validation_images": 200,
    }


def test_a_student_that_learned_nothing_is_on_the_front_where_none_has_alone(
    tmp_path: Path,
) -> None:
    # nearly all images are given one class, whose accuracy no attack changes
    guess = by_class(0.11, 0.10, *[0.99], *[0.01] * 9)
    learner = by_class(0.60, 0.05, *[0.6] * 10)
    rows = [
        trial("guess", 0, 0) | guess | {"ordinal": 0},
        trial("another", 0, 0) | guess | {"ordinal": 1, ROBUST: 0.11, CLEAN: 0.10},
    ]
    alone = study(tmp_path / "alone", *rows)
    assert front_rows(alone.trials)["trial_id"].tolist() == ["another", "guess"]
    found = study(tmp_path / "both", *rows, trial("learner", 0, 0) | learner | {"ordinal": 2})
    assert front_rows(found.trials)["trial_id"].tolist() == ["learner"]


def test_equal_numbers_of_right_images_are_equal_means_whatever_their_order(
    tmp_path: Path,
) -> None:
    again = {"origin": "replicate"}
    found = study(
        tmp_path,
        *(
            trial(f"{name}{suffix}", clean, right / 404, **(again if suffix else {}))
            | {"ordinal": ordinal}
            for ordinal, (name, clean, counts) in enumerate(
                (("a", 0.78, (284, 275)), ("b", 0.79, (281, 278)))
            )
            for suffix, right in zip(("", "-r1", "-r2"), (280, *counts), strict=True)
        ),
    )
    # 559 of 808 images each, and b is better on clean ones
    assert front_rows(found.trials)["trial_id"].tolist() == ["b"]


def test_a_replicate_that_never_learned_is_in_the_means_whatever_its_flags(tmp_path: Path) -> None:
    again = {"origin": "replicate"}
    lucky, unlucky = by_class(0.8, 0.5, *[0.8] * 10), by_class(0.1, 0.08, 0.7, 0.3, *[0.0] * 8)
    rows = [
        trial("a", 0, 0) | lucky,
        trial("a-r1", 0, 0, **again) | lucky,
        trial("a-r2", 0, 0, **again) | lucky,
        trial("a-r3", 0, 0, **again) | unlucky | {"flags": ["huge_eps"]},
    ]
    found = study(tmp_path, *rows)
    (row,) = records(front_rows(found.trials))
    assert (row["trial_id"], row["seeds"]) == ("a", 3)
    assert kept_off(found.trials) == []


def test_an_empty_front_has_its_reason(tmp_path: Path) -> None:
    assert study(tmp_path / "a", trial("a", 0.9, 0.5, "running")).why_no_front == (
        "none of its trials has finished"
    )
    assert study(tmp_path / "b", trial("b", 0.9, 0.5) | {"flags": ["random"]}).why_no_front == (
        "flags keep every finished student off it"
    )
    again = {"origin": "replicate"}
    some = study(
        tmp_path / "some",
        trial("a", 0.9, 0.5) | {"flags": ["random"]},
        trial("a-r1", 0.9, 0.5, **again),
        trial("b", 0.8, 0.6) | {"ordinal": 1},
    )
    assert some.front.empty
    assert some.why_no_front == (
        "flags keep the students with the most replicates off it, and the others have fewer"
    )
    some = study(
        tmp_path / "within",
        trial("a", 0.8, 0.5),
        trial("a-r1", 0.8, 0.5, **again),
        trial("b", 0.9, 0.4) | {"ordinal": 1},
    )
    some = replace(some, description={"constraints": {"clean_accuracy": 0.85}})
    assert some.front.empty
    assert some.why_no_front == (
        "no student with the most replicates is within its constraints (clean_accuracy 0.85)"
    )
    found = study(tmp_path / "c", trial("c", 0.9, 0.5))
    found = replace(found, description={"constraints": {"clean_accuracy": 0.99}})
    assert found.front.empty
    assert found.why_no_front == (
        "no finished student is within its constraints (clean_accuracy 0.99)"
    )


def test_a_replicate_that_gives_one_class_is_in_the_means_and_keeps_nobody_off(
    tmp_path: Path,
) -> None:
    again = {"origin": "replicate"}
    lucky, unlucky = by_class(0.8, 0.5, *[0.8] * 10), by_class(0.1, 0.1, 1.0, *[0.0] * 9)
    rows = [
        trial("a", 0, 0) | lucky,
        trial("a-r1", 0, 0, **again) | lucky,
        trial("a-r2", 0, 0, **again) | unlucky | {"flags": ["zero_gradients", "one_class"]},
    ]
    found = study(tmp_path, *rows)
    (row,) = records(front_rows(found.trials))
    assert (row["trial_id"], row["seeds"]) == ("a", 2)
    assert (row[CLEAN], row[ROBUST]) == pytest.approx((0.45, 0.3))
    assert kept_off(found.trials) == []
    # half of its seeds are not enough beside one that has learned, three of four are
    other = trial("b", 0, 0) | by_class(0.4, 0.2, *[0.4] * 10) | {"ordinal": 1}
    both = [*rows, other, *(other | again | {"trial_id": f"b-r{n}"} for n in (1, 2))]
    found = study(tmp_path / "half", *both)
    assert front_rows(found.trials)["trial_id"].tolist() == ["b"]
    more = [rows[1] | {"trial_id": f"a-r{n}"} for n in (3, 4)]
    more += [other | again | {"trial_id": f"b-r{n}"} for n in (3, 4)]
    found = study(tmp_path / "most", *both, *more)
    assert front_rows(found.trials)["trial_id"].tolist() == ["a"]
    masked = study(
        tmp_path / "masked", rows[0] | {"flags": ["one_class"]}
    )  # its own run is no replicate
    assert len(front_rows(masked.trials)) == 0

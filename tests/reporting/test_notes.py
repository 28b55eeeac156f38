"""Notes at the top of the page: what is missing, unfinished, or hidden by a headline."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rkdsearch.file_lock import one_writer
from rkdsearch.reporting import page
from rkdsearch.results.cells import CLEAN, records
from rkdsearch.results.front import configurations
from rkdsearch.results.study import read_study
from tests.reporting.pages import visible
from tests.results import version_1
from tests.results.factory import flag, make_study, repeat
from tests.results.rows import study, trial


def test_a_study_that_is_not_over_says_whether_it_is_running_or_was_stopped(
    tmp_path: Path,
) -> None:
    make_study(tmp_path, trials=12, running=2)
    stopped = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    assert "no process works on it: tune --resume goes on with 2 trials." in stopped
    assert "2 interrupted" in stopped
    with one_writer(tmp_path):
        running = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    assert "The search is not over: 2 trials running or paused, whose" in running
    assert "2 running" in running


def test_a_constant_prediction_is_named_and_never_the_headline(tmp_path: Path) -> None:
    store = make_study(tmp_path, trials=12, evaluated=False)
    described = json.loads((tmp_path / "study.json").read_text())
    teachers = {"robust": {"clean_accuracy": 0.9, "robust_accuracy": 0.1, "images": 360}}
    described |= {"chance": 0.1, "teachers": teachers}
    (tmp_path / "study.json").write_text(json.dumps(described))
    before = page.context(read_study(tmp_path))
    row = next(r for r in records(store.trials()) if r["status"] == "finished")
    # above chance by luck of the seed, within its interval; robust as no other: nothing moves it
    constant = {"metric.clean_accuracy": 0.12, "metric.robust_accuracy": 0.99}
    store.write_trial({**row, "trial_id": "constant", "label": None, **constant})
    after = page.context(read_study(tmp_path))
    assert after["best"]["trial_id"] == before["best"]["trial_id"] != "constant"
    text = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    assert "Students no better than chance on clean images: constant." in text
    assert re.search(
        r"robust teacher</th>.*AT CHANCE</span> no better than a constant", text, re.DOTALL
    )


@pytest.mark.parametrize(
    ("checks", "flagged"),
    [
        ({"images": 200, "right": 180, "unlike_differences": 90}, True),
        ({"images": 200, "right": 180, "unlike_differences": 3}, False),
        ({"images": "many", "right": {}, "unlike_differences": []}, False),
        ("none", False),
    ],
)
def test_a_flagged_teacher_is_named_with_the_reason(
    tmp_path: Path, checks: Any, *, flagged: bool
) -> None:
    make_study(tmp_path, trials=3, evaluated=False)
    described = json.loads((tmp_path / "study.json").read_text())
    described |= {"teachers": {"robust": {"robust_accuracy": 0.7, "checks": checks}}}
    (tmp_path / "study.json").write_text(json.dumps(described))
    text = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    said = "FLAGGED</span> its robust accuracy is not to be believed: wrong_gradients: the gradient"
    assert (said in " ".join(text.split())) == flagged


def test_a_single_run_above_the_replicated_front_is_told(tmp_path: Path) -> None:
    store = make_study(tmp_path, trials=60, evaluated=False)
    ordinals = read_study(tmp_path).front["ordinal"].tolist()
    repeat(store, ordinals[:1])
    told = page.context(read_study(tmp_path))
    assert told["best"]["seeds"] == 2
    assert any(
        re.match(r"The single run .* is more robust \(\d+\.\d %\) than", s) for s in told["missing"]
    )
    assert "most robust on the front" in visible(page.build(tmp_path).read_text(encoding="utf-8"))


def test_a_front_of_one_method_says_what_the_others_reached(tmp_path: Path) -> None:
    def of(method: str, *row: Any) -> dict[str, Any]:
        return trial(*row) | {"config.method.name": method}

    rows = [
        of("crdnd", "t00000", 0.9, 0.5),
        of("crdnd", "t00001", 0.8, 0.6) | {"ordinal": 1},
        of("iad", "t00002", 0.8, 0.55) | {"ordinal": 2},
        of("iad", "t00003", 0.85, 0.4) | {"ordinal": 3},
        of("trades", "t00004", 0.7, 0.6) | {"ordinal": 4},
    ]
    said = (
        "The front has one method, crdnd: one of its students is at least as accurate on both sides"
        " as the most robust one of each other method: iad · t00002 (80.0 % clean, 55.0 % robust);"
        " trades · t00004 (70.0 % clean, 60.0 % robust)."
    )
    assert said in page.context(study(tmp_path / "one", *rows))["missing"]
    two = [*rows, of("trades", "t00005", 0.7, 0.65) | {"ordinal": 5}]
    told = page.context(study(tmp_path / "two", *two))["missing"]
    assert not any("one method" in sentence for sentence in told)
    alone = page.context(study(tmp_path / "alone", *rows[:2]))["missing"]
    assert not any("one method" in sentence for sentence in alone)


def test_a_flagged_single_run_is_not_called_lucky(tmp_path: Path) -> None:
    rows = [
        trial("t00000", 0.9, 0.5),
        trial("t00000-r1", 0.9, 0.5, origin="replicate"),
        trial("t00001", 0.9, 0.75) | {"ordinal": 1},
    ]
    told = page.context(study(tmp_path / "sound", *rows))["missing"]
    assert any("The single run" in text and "one run may be lucky" in text for text in told)
    rows[2] |= {"flags": '["zero_gradients"]'}
    told = page.context(study(tmp_path / "masked", *rows))["missing"]
    assert not any("The single run" in text for text in told)


def test_only_methods_that_the_front_dominates_are_called_each_other_one(tmp_path: Path) -> None:
    def of(method: str, *row: Any) -> dict[str, Any]:
        return trial(*row) | {"config.method.name": method}

    rows = [
        of("crdnd", "t00000", 0.9, 0.5),
        of("crdnd", "t00000-r1", 0.9, 0.5) | {"origin": "replicate"},
        of("iad", "t00001", 0.8, 0.45) | {"ordinal": 1},
        of("trades", "t00002", 0.7, 0.6) | {"ordinal": 2},  # a single run: on no front
    ]
    told = page.context(study(tmp_path, *rows))["missing"]
    assert (
        "The front has one method, crdnd: one of its students is at least as accurate on both sides"
        " as the most robust one of these: iad · t00001 (80.0 % clean, 45.0 % robust)."
    ) in told


def test_who_dropped_out_of_the_race_is_told(tmp_path: Path) -> None:
    rows = [
        trial("t00000", 0.9, 0.5),
        trial("t00001", 0.8, 0.6) | {"ordinal": 1},
        *(trial(f"t00000-r{n}", 0.9, 0.5, origin="replicate") for n in (1, 2, 3)),
        trial("t00001-r1", 0.99, 0.99, origin="replicate") | {"ordinal": 1},
    ]
    told = page.context(study(tmp_path, *rows))["missing"]
    assert (
        "With fewer than 3 replicates, and so on no front, are t00001: others had better means over"
        " the same seeds."
    ) in told


def test_whose_replicates_failed_is_told(tmp_path: Path) -> None:
    again = {"origin": "replicate"}
    rows = [
        trial("t00000", 0.9, 0.5),
        trial("t00001", 0.8, 0.6) | {"ordinal": 1},
        *(trial(f"t00000-r{n}", 0.9, 0.5, **again) for n in (1, 2)),
        trial("t00001-r1", 0.99, 0.99, **again) | {"ordinal": 1},
        trial("t00001-r2", None, None, "failed", **again) | {"ordinal": 1},
        trial("t00002", 0.8, 0.7) | {"ordinal": 2},
        *(trial(f"t00002-r{n}", None, None, "failed", **again) | {"ordinal": 2} for n in (1, 2)),
    ]
    found = study(tmp_path, *rows)
    assert found.front["trial_id"].tolist() == ["t00000"]
    told = page.context(found)["missing"]
    assert (
        "On no front, because replicates failed (their number): t00001 (1), t00002 (2); nobody is"
        " judged by the seeds that went well."
    ) in told
    assert not any("others had better means" in text for text in told)


def test_replicates_of_a_round_that_is_not_over_are_in_no_mean(tmp_path: Path) -> None:
    longer = {"fidelity.of_epochs": 9}
    rows = [
        trial("t00000", 0.9, 0.5) | longer,
        trial("t00000-r1", 0.8, 0.4, origin="replicate") | longer,
        trial("t00001", 0.8, 0.3) | {"ordinal": 1} | longer,
        trial("t00001-r1", 0.8, 0.3, "running", origin="replicate") | {"ordinal": 1} | longer,
        # of the full length of before, all of which are over
        trial("t00002", 0.7, 0.3) | {"ordinal": 2, "fidelity.of_epochs": 6},
        *(
            trial(f"t00002-r{n}", 0.7, 0.2, origin="replicate")
            | {"ordinal": 2, "fidelity.of_epochs": 6}
            for n in (1, 2)
        ),
    ]
    found = study(tmp_path, *rows)
    seeds = configurations(found.trials).set_index("trial_id")["seeds"]
    assert seeds.isna().tolist() == [True, True, False]
    assert not any("better means" in text for text in page.context(found)["missing"])


def test_trials_of_a_shorter_full_run_are_told_and_drawn_hollow(tmp_path: Path) -> None:
    make_study(tmp_path)
    whole = read_study(tmp_path)
    best = whole.front["trial_id"].iloc[0]
    short = whole.trials["trial_id"].isin([best, "trades-002"])
    trials = whole.trials.copy()
    trials.loc[short, "fidelity.of_epochs"] = 12
    study = replace(whole, trials=trials)
    assert best not in set(study.front["trial_id"])
    text = page.render(study)
    assert (
        "2 finished trials of a shorter full run, of 12 epochs, from before the space had longer"
        " ones: on no front, and drawn hollow."
    ) in text
    assert text.count(">OF 12 EPOCHS</span>") >= 2
    assert "a shorter full run, of" not in page.render(whole)
    assert "OF 12 EPOCHS" not in page.render(whole)
    clean = set(trials.loc[short, CLEAN])
    for trace in page.context(study)["pictures"]["pareto"]["data"]:
        if trace["mode"].startswith("markers") and clean & set(trace["x"]):
            symbol = trace["marker"]["symbol"]
            symbols = [symbol] if isinstance(symbol, str) else symbol
            assert all(each.endswith("-open") for each in symbols)


def test_a_front_of_one_method_says_why_the_others_are_not_on_it(good: str, tmp_path: Path) -> None:
    store = make_study(tmp_path, trials=12, evaluated=False)
    row = next(r for r in records(store.trials()) if r["status"] == "finished")
    best = {"metric.clean_accuracy": 0.99, "metric.robust_accuracy": 0.99}
    store.write_trial({**row, "trial_id": "best", "config.method.name": "iad", **best})
    text = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    assert (
        "All students on the front are trained by iad. Each finished student of another method is"
        " dominated by one of them on validation images, was kept off"
    ) in text
    assert "All students on the front" not in visible(good)


def test_a_single_run_beside_replicates_is_not_said_to_be_dominated(tmp_path: Path) -> None:
    store = make_study(tmp_path, evaluated=False)
    front = read_study(tmp_path).front
    repeat(store, front["ordinal"].tolist()[:1])
    whole = read_study(tmp_path)
    assert set(whole.front["trial_id"]) < set(front["trial_id"])  # others of it have one run
    assert (
        "All students on the front are trained by"
        f" {whole.front['config.method.name'].iloc[0]}. Each finished student of another method is"
        " dominated by one of them on validation images (by means over replicates), has fewer"
        " replicates or none, was kept off"
    ) in visible(page.render(whole))


def test_a_study_whose_test_set_is_closed_says_so(tmp_path: Path) -> None:
    make_study(tmp_path, trials=12, evaluated=False)
    text = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    assert "The test set has not been opened" in text
    assert "Wilson" not in text


def test_a_student_that_flags_keep_off_the_front_is_named_with_its_reason(tmp_path: Path) -> None:
    store = make_study(tmp_path)
    flag(store, "igdm-044", "huge_eps")
    text = visible(page.render(read_study(tmp_path)))
    assert "Kept off the front by flags, on validation images alone." in text
    assert re.search(r"<li>igdm-044: huge_eps: the network stays right where", text)
    assert "igdm-044" not in read_study(tmp_path).front["trial_id"].tolist()


def test_what_nobody_checked_is_called_so(tmp_path: Path) -> None:
    make_study(tmp_path)
    assert "not checked" not in visible(page.render(read_study(tmp_path)))
    version_1.rewrite(tmp_path)
    text = visible(page.render(read_study(tmp_path)))
    assert "<br><small>not checked</small>" in text
    assert "33 of the trials that may be on the front were not checked for signs" in text


def test_an_empty_study_says_what_is_missing(tmp_path: Path) -> None:
    text = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    assert "No trial has written a row yet." in text
    assert "There is no study.json" in text

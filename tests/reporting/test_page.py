import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkdsearch.errors import StudyError
from rkdsearch.file_lock import one_writer
from rkdsearch.reporting import page
from rkdsearch.reporting.by_class import by_class
from rkdsearch.results.cells import CLEAN, ROBUST, records
from rkdsearch.results.intervals import paired_difference
from rkdsearch.results.store import Store
from rkdsearch.results.study import read_study
from tests.results import version_1
from tests.results.factory import flag, make_study, repeat, write_tests
from tests.results.rows import study, trial

EVIL = "</script><img src=x onerror=document.title='owned'>{{ 7 * 7 }}\u2028'\"&<b>"


class Elements(HTMLParser):
    """Every tag with its attributes, and the text inside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if (
            self.tags
            and self.tags[-1][0] == "script"
            and len(self.scripts) < sum(tag == "script" for tag, _ in self.tags)
        ):
            self.scripts.append(data)


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evil")
    make_study(folder, trials=24, running=2, evil=EVIL)
    return page.build(folder)


@pytest.fixture(scope="module")
def good_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    make_study(folder)
    return folder


@pytest.fixture(scope="module")
def good(good_study: Path) -> str:
    return page.build(good_study).read_text(encoding="utf-8")


def visible(text: str) -> str:
    """The page without its scripts, as one line."""
    return re.sub(r"\s+", " ", re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL))


def test_the_page_says_when_the_search_began_as_one_would(good: str) -> None:
    assert "Begun 2026-11-20 09:00 UTC." in visible(good)


def test_the_page_says_once_what_the_validation_images_are_to_the_teacher(good: str) -> None:
    assert (
        visible(good).count(" validation images; flagged: it was trained on all of them</td>") == 1
    )


def test_no_text_of_a_study_becomes_markup(evil: Path) -> None:
    elements = Elements(evil.read_text(encoding="utf-8"))
    assert not {"img", "b", "iframe", "object", "embed", "link", "base", "form"} & {
        tag for tag, _ in elements.tags
    }
    assert [tag for tag, _ in elements.tags].count("script") == 3
    assert not [
        name for _, attributes in elements.tags for name in attributes if name.startswith("on")
    ]
    assert "{{ 7 * 7 }}" in visible(evil.read_text(encoding="utf-8")), (
        "labels are text, not templates"
    )


def test_hovering_shows_text_and_no_markup(evil: Path) -> None:
    pictures = json.loads(Elements(evil.read_text(encoding="utf-8")).scripts[0])
    texts = json.dumps(pictures, ensure_ascii=False)
    assert "&lt;img src=x" in texts
    assert "<img" not in texts


def test_only_the_two_scripts_of_the_page_may_run(evil: Path) -> None:
    text = evil.read_text(encoding="utf-8")
    elements = Elements(text)
    (policy,) = [
        a["content"]
        for tag, a in elements.tags
        if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    assert allowed == {
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for script in elements.scripts[1:]
    }
    assert "unsafe-eval" not in policy
    assert "unsafe-inline" not in policy.partition("style-src")[0]


def test_the_page_asks_no_network_for_anything(good: str) -> None:
    elements = Elements(good)
    assert not [
        (tag, name)
        for tag, attributes in elements.tags
        for name in attributes
        if name in {"src", "href", "srcset", "action"}
    ]
    assert not re.search(r"@import|url\(", good[: good.index("</style>")])
    assert "showSendToCloud: false" in elements.scripts[2], "Plotly would offer to upload the study"


def test_all_pictures_are_svg(good: str) -> None:
    pictures = json.loads(Elements(good).scripts[0])
    assert set(pictures) == {"pareto", "curves", "reliability", "slices"}
    assert {trace["type"] for picture in pictures.values() for trace in picture["data"]} == {
        "scatter",
        "bar",
    }


def test_test_results_stand_beside_validation_with_n_eps_and_intervals(good: str) -> None:
    text = visible(good)
    assert "AutoAttack, linf eps = 8/255: n = 297 of 297 test images" in text
    assert "clean: n = 297 of 297 test images" in text
    assert "95 % Wilson intervals" in text
    row = next(row for row in text.split("<tr>") if "rslad · rslad-041" in row and "78.6" in row)
    assert re.findall(r'<td class="n">([\d.]+)', row) == [
        "90.7",
        "78.6",
        "62.9",
        "6.0",
        "88.2",
        "73.7",
        "72.4",
    ]


def test_rows_of_different_numbers_of_images_say_so(tmp_path: Path) -> None:
    store = make_study(tmp_path, trials=12)
    row = next(r for r in records(store.evaluations()) if r["attack"] == "pgd20")
    (file,) = (tmp_path / "evaluations").glob(f"{row['trial_id']}-best-pgd20-0-cccccccc-*")
    file.unlink()
    store.write_evaluation({**row, "subset_sha256": "d" * 64, "images": 60})
    text = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    assert "PGD-20, linf eps = 8/255: n = 60 or 297 of 297 test images" in text
    assert "AutoAttack, linf eps = 8/255: n = 297 of 297 test images" in text
    text = section(text, "The front, with test results")
    assert text.count(", n = 60</small>") == 1
    assert text.count(", n = 297</small>") == len(store.evaluations()) // 3 - 1


def section(text: str, title: str) -> str:
    """The visible text from this heading to the next."""
    begin = text.index(f">{title}")
    return text[begin : text.index("<h2>", begin)]


def test_each_member_of_the_front_is_compared_with_each_baseline_clean_and_attacked(
    good: str, good_study: Path
) -> None:
    store = Store(good_study)
    table = section(visible(good), "The front against each baseline")
    trials = store.trials()
    front = list(read_study(good_study).front["trial_id"])
    baselines = list(trials.loc[trials["origin"] == "baseline", "trial_id"])
    assert len(baselines) == 6
    pairs = {frozenset((a, b)) for a in front for b in baselines if a != b}
    body = table[table.index("<tbody>") :]
    assert body.count("<tr>") == len(pairs)
    assert re.findall(r'<th class="n">([^<]+)</th>', table) == ["clean", "PGD-20", "AutoAttack"]
    cells = re.findall(
        r'<td class="n">([+-][\d.]+)<br><small>([+-][\d.]+) to ([+-][\d.]+), n = 297</small></td>',
        body,
    )
    assert len(cells) == 3 * len(pairs)
    assert all(float(low) <= float(value) <= float(high) for value, low, high in cells)
    assert f"The {len(cells)} intervals of this table hold at once 19 times of 20" in table
    # The widest and the narrowest as Bonett and Price have them at 1 - 0.05 / m.
    rows = records(store.evaluations())
    flags = {(r["trial_id"], r["attack"]): r["per_image"] for r in rows}
    expected = [
        paired_difference(flags[a, attack], flags[b, attack], len(cells))
        for a in front
        for b in baselines
        if a != b
        for attack in ("clean", "pgd20", "autoattack")
    ]
    shown = {tuple(f"{100 * v:+.1f}" for v in (e.value, e.low, e.high)) for e in expected}
    assert set(cells) <= shown


def test_a_member_that_loses_to_one_baseline_is_not_hidden_behind_another(tmp_path: Path) -> None:
    # As robust as the first baseline on validation, and less on test images than the second.
    store = Store(tmp_path)
    for ordinal, (name, origin, robust, right) in enumerate(
        (
            ("searched", "search", 0.61, "1" * 140 + "0" * 160),
            ("first", "baseline", 0.60, "1" * 140 + "0" * 160),
            ("second", "baseline", 0.60, "1" * 170 + "0" * 130),
        )
    ):
        store.write_trial(
            {
                "trial_id": name,
                "ordinal": ordinal,
                "origin": origin,
                "label": name,
                "status": "finished",
                CLEAN: 0.9,
                ROBUST: robust,
            }
        )
        store.write_evaluation(
            {
                "trial_id": name,
                "label": name,
                "checkpoint": "best",
                "split": "test",
                "attack": "autoattack",
                "attack_seed": 0,
                "images": 300,
                "of_images": 300,
                "correct": right.count("1"),
                "accuracy": right.count("1") / 300,
                "low": 0.0,
                "high": 1.0,
                "flags": [],
                "per_image": right,
                "subset_sha256": "c" * 64,
            }
        )
    text = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    table = section(text, "The front against each baseline")
    assert re.findall(r"<td>(\w+)</td> <td class=\"n\">([+-][\d.]+)<", table) == [
        ("first", "+0.0"),
        ("second", "-10.0"),
    ]
    assert "The 2 intervals of this table hold at once" in table


def test_accuracies_by_class_stand_in_a_table_of_the_front(good: str) -> None:
    assert "<h2>Accuracy by class</h2>" in good
    assert '<td class="n">12.3<br>4.6' in good
    assert '<th class="n">balanced</th>' in good


def test_of_many_classes_the_least_robust_are_shown_by_their_names() -> None:
    robust = [k / 100 for k in range(30, 0, -1)]
    row = {
        "metric.by_class.clean_accuracy": json.dumps([1.0] * 30),
        "metric.by_class.robust_accuracy": json.dumps(robust),
    }
    found = by_class([row, {}], [f"class {k}" for k in range(30)])
    assert found is not None
    assert (found["names"][0], found["names"][-1], found["left_out"]) == (
        "class 10",
        "class 29",
        10,
    )
    assert found["rows"][0]["cells"][-1] == (1.0, 0.01)
    assert by_class([{}], None) is None


def test_reconstructed_methods_say_so(good: str) -> None:
    text = visible(good)
    assert re.search(r"<th scope=\"row\">crdnd <span class=\"mark\"[^>]*>RECONSTRUCTED", text)
    assert not re.search(r"<th scope=\"row\">rslad <span", text)


def test_what_an_attack_complained_about_is_flagged_at_its_result_and_told_below(good: str) -> None:
    text = visible(good)
    row = next(
        row for row in text.split("<tr>") if "crdnd · crdnd-035" in row and "RECONSTRUCTED" in row
    )
    assert row.count(">flag 1</span>") == 3
    assert ">flag 1</span>" not in next(
        row for row in text.split("<tr>") if "igdm · igdm-044" in row
    )
    assert "<li>AutoAttack&#39;s package: white-box weaker than black-box</li>" in text


def test_a_study_that_is_not_over_says_whether_it_is_running_or_was_stopped(
    tmp_path: Path,
) -> None:
    make_study(tmp_path, trials=12, running=2)
    stopped = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    assert "The search was stopped, and no process works on it: 2 trials go on with" in stopped
    assert "2 interrupted" in stopped
    with one_writer(tmp_path):
        running = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    assert "The search is not over: 2 trials are running or paused" in running
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
        " as the most robust one of each other method, iad · t00002 (80.0 % clean, 55.0 % robust);"
        " trades · t00004 (70.0 % clean, 60.0 % robust)."
    )
    assert said in page.context(study(tmp_path / "one", *rows))["missing"]
    two = [*rows, of("trades", "t00005", 0.7, 0.65) | {"ordinal": 5}]
    told = page.context(study(tmp_path / "two", *two))["missing"]
    assert not any("one method" in sentence for sentence in told)
    alone = page.context(study(tmp_path / "alone", *rows[:2]))["missing"]
    assert not any("one method" in sentence for sentence in alone)


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
        "2 finished trials have a shorter full run, of 12 epochs, from before the space had longer"
        " ones: they are on no front, and drawn hollow."
    ) in text
    assert "a shorter full run, of" not in page.render(whole)
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


def test_an_empty_study_says_what_is_missing(tmp_path: Path) -> None:
    text = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    assert "No trial has written a row yet." in text
    assert "There is no study.json" in text


def test_a_study_whose_test_set_is_closed_says_so(tmp_path: Path) -> None:
    make_study(tmp_path, trials=12, evaluated=False)
    text = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    assert "The test set has not been opened" in text
    assert "Wilson" not in text


def test_rows_without_configuration_or_description_are_shown_all_the_same(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_trial({"trial_id": "a", "status": "finished", CLEAN: 0.9, ROBUST: 0.5})
    store.write_trial({"trial_id": "b", "status": "failed"})
    (tmp_path / "trials" / "c.parquet").write_text("half")
    (tmp_path / "study.json").write_text(
        '{"name": 3, "space": ["odd"], "ladder": 7, "validation_attack": "?",'
        ' "teachers": {"robust": 1,'
        ' "natural": {}}}'
    )
    text = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    assert "unknown · a" in text
    assert "c.parquet in trials could not be read and is left out." in text


def test_means_over_replicates_and_the_delivered_network_have_a_row_each(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name, robust, seed in (("a", 0.56, 0), ("a-r1", 0.50, 1), ("a-r2", 0.54, 2)):
        store.write_trial(
            {
                "trial_id": name,
                "ordinal": 3,
                "origin": "replicate" if "-" in name else "search",
                "status": "finished",
                "run.seed": seed,
                CLEAN: 0.9,
                ROBUST: robust,
            }
        )
    text = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    rows = section(text, "The front").split("<tr>")
    (means,) = [row for row in rows if "means over 2 replicates" in row]
    (delivered,) = [row for row in rows if "its delivered network, training seed 0" in row]
    assert "52.0<br><small>± 2.8</small>" in means
    assert "over replicates, ± one standard deviation over these: other runs than" in text
    assert ">56.0</td>" in delivered
    assert "56.0" not in means
    assert "52.0" not in delivered
    assert "1 configuration was trained again with other training seeds (1, 2), 2 runs" in text
    assert "Runs of one configuration differ by 0.0 clean and 2.8 robust percentage points" in text
    assert (
        "better than their replicates by +0.0 clean and +4.0 robust, on average. That is selection"
        " bias and the effect of another training seed together." in text
    )
    assert "The seeds are the same for all" not in text, "one configuration has no blocks"
    assert "first runs of baselines" not in text


def test_seeds_that_all_configurations_share_are_blocks_and_both_figures_are_said(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    cells = {(0, 1): 0.505, (0, 2): 0.555, (1, 1): 0.595, (1, 2): 0.665}
    for ordinal, origin, first in ((0, "baseline", 0.60), (1, "search", 0.70)):
        own = {"trial_id": f"t{ordinal}", "origin": origin, "run.seed": 0, ROBUST: first}
        again = [
            {
                "trial_id": f"t{ordinal}-r{seed}",
                "origin": "replicate",
                "run.seed": seed,
                ROBUST: cells[ordinal, seed],
            }
            for seed in (1, 2)
        ]
        for row in (own, *again):
            store.write_trial({"ordinal": ordinal, "status": "finished", CLEAN: 0.9, **row})
    text = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    assert "differ by 0.0 clean and 4.3 robust percentage points" in text
    assert "0.0 clean and 1.0 robust are left" in text
    assert "1 degrees of freedom" in text
    assert "by +0.0 clean and +7.0 robust, on average" in text
    assert "were better than theirs by +0.0 and +7.0: the effect of the seed alone." in text


def test_replicates_are_counted_apart_and_their_test_results_are_means(tmp_path: Path) -> None:
    store = make_study(tmp_path)
    repeat(store, (2, 41, 44))
    runs = [
        (f"{name}-r{n}", "", 0.9, 0.7)
        for name in ("igdm-044", "rslad-041", "trades-002")
        for n in (1, 2)
    ]
    write_tests(store, runs, np.random.default_rng(0))
    text = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    assert "<dd>60<small>33 finished, 24 stopped, 3 failed; and 6 replicates</small></dd>" in text
    assert "60 trials (33 finished, 24 stopped, 3 failed) and 6 replicates as a table" in text
    assert "device time, all trials and replicates</th>" in text
    assert text.count("igdm-044-r1") == 1, "its own row; its test result is in the mean"
    rows = section(text, "The front, with test results").split("<tr>")
    (means,) = [row for row in rows if "igdm · igdm-044" in row]
    tests = {(r["trial_id"], r["attack"]): r["correct"] / 297 for r in records(store.evaluations())}
    both = [tests[f"igdm-044-r{n}", "autoattack"] for n in (1, 2)]
    assert f"{100 * sum(both) / 2:.1f}<br><small>" in means
    assert means.count(", 2 training seeds</small>") == 3
    delivered = rows[rows.index(means) + 1]
    assert "its delivered network" in delivered
    assert f"{100 * tests['igdm-044', 'autoattack']:.1f}<br><small>" in delivered
    assert "training seeds" not in delivered.replace("training seed 44", "")
    delivered_table, means_table = section(text, "The front against each baseline").split(
        "</table>"
    )[:2]
    assert "They cover the draw of images, not training seeds" in delivered_table
    assert "over images and training seeds (Student's t, seeds as blocks)" in means_table
    body = means_table[means_table.index("<tbody>") :]
    (row,) = [row for row in body.split("<tr>") if "igdm · igdm-044" in row]
    against = [tests[f"trades-002-r{n}", "autoattack"] for n in (1, 2)]
    assert "<td>TRADES, published</td>" in row
    assert f"{50 * (sum(both) - sum(against)):+.1f}<br>" in row
    pictures = json.loads(
        Elements((tmp_path / "report.html").read_text(encoding="utf-8")).scripts[0]
    )
    assert "training.seed" not in json.dumps(pictures)
    assert "-r1" not in json.dumps(pictures)


def test_several_attack_seeds_are_not_called_training_seeds(tmp_path: Path) -> None:
    store = make_study(tmp_path, trials=12)
    row = next(r for r in records(store.evaluations()) if r["attack"] == "pgd20")
    store.write_evaluation({**row, "attack_seed": 1})
    text = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    assert text.count("1 of 2 attack seeds") == 1


def test_every_attack_that_a_network_met_has_a_column(tmp_path: Path) -> None:
    store = make_study(tmp_path, trials=12)
    row = next(r for r in records(store.evaluations()) if r["attack"] == "pgd20")
    for attack in ("margin", "square"):
        store.write_evaluation({**row, "attack": attack})
    table = section(
        visible(page.build(tmp_path).read_text("utf-8")), "The front, with test results"
    )
    assert re.findall(r'<th class="n">([^<]+)<br><small>test</small>', table) == [
        "clean",
        "PGD-20",
        "margin attack",
        "Square",
        "AutoAttack",
    ]


def test_classes_on_test_images_are_those_of_delivered_networks_under_the_strongest_attack(
    tmp_path: Path,
) -> None:
    store = make_study(tmp_path, trials=12)
    front = list(read_study(tmp_path).front["trial_id"])
    counts = {"clean": [9, 8], "pgd20": [7, 6], "autoattack": [5, 2]}
    for row in records(store.evaluations()):
        if row["trial_id"] in front:
            classes = {name: [n, 10] for name, n in zip("ab", counts[row["attack"]], strict=True)}
            store.write_evaluation({**row, "per_class": classes})
    text = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    table = text[text.index("Clean accuracy of each class on test images") :].split("</table>")[0]
    assert "below it its accuracy under AutoAttack" in table
    body = table[table.index("<tbody>") :]
    assert body.count("<tr>") == len(front)
    assert re.findall(r'<td class="n">([\d.]+)<br>([\d.]+)</td>', body) == [
        ("85.0", "35.0"),
        ("90.0", "50.0"),
        ("80.0", "20.0"),
    ] * len(front)


def test_other_images_and_balls_stand_apart_and_openings_are_counted(tmp_path: Path) -> None:
    store = make_study(tmp_path, trials=12)
    row = next(r for r in records(store.evaluations()) if r["attack"] == "pgd20")
    assert "other balls" not in visible(page.build(tmp_path).read_text(encoding="utf-8"))
    wider = {**row, "eps": 16 / 255, "own_ball": False, "accuracy": 0.123}
    store.write_evaluation(wider)
    store.write_evaluation({**row, "split": "other", "dataset": "cifar10c/fog.npy, severity 5"})
    for number, searching in ((1, False), (2, True)):
        store.write_opening(
            {
                "opening": f"{number}",
                "opened": datetime(2026, 11, 20 + number, 10, tzinfo=UTC),
                "command": "rkdsearch evaluate studies/digits --front",
                "split": "test",
                "images": 297,
                "of_images": 297,
                "checkpoints": {"a": "1" * 64, "b": "2" * 64},
                "attacks": ["clean", "autoattack linf 8/255 seed 0"],
                "searching": searching,
                "trials": 12,
            }
        )
    text = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    assert "2 results on other images or in other balls" in text
    assert "<td>linf eps = 16/255</td>" in text
    assert "<td>cifar10c/fog.npy, severity 5</td>" in text
    assert "12.3" not in section(text, "The front, with test results").split("</table>")[0]
    assert "The test images were opened 2 times" in text
    assert text.count(">SEARCHING</span>") == 1
    assert "2026-11-21 10:00 UTC" in text


def test_the_teachers_reliability_is_said_to_be_on_validation_images(good: str) -> None:
    said = section(visible(good), "Reliability of the teacher")
    assert "Predictions of the teacher on validation images" in said
    assert "trained" not in said


def test_the_page_is_replaced_whole_and_may_go_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    out = tmp_path / "pages" / "digits.html"
    for _ in range(2):
        assert page.build(tmp_path / "study", out) == out
    assert [path.name for path in out.parent.iterdir()] == ["digits.html"]
    assert list((tmp_path / "study").iterdir()) == []


def test_a_place_that_cannot_be_written_is_the_users_to_change(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "study").mkdir()
    with pytest.raises(StudyError, match="name another place with --out"):
        page.build(tmp_path / "study", tmp_path / "file" / "report.html")


# what UTF-8 can write: asked for by that name, hypothesis would try every character, for a second
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.recursive(
        TEXT | st.integers() | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
        max_leaves=5,
    )
)
def test_embedded_json_returns_as_it_was_and_holds_no_tag(value: object) -> None:
    text = str(page.embedded(value))
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)


@pytest.mark.browser
def test_a_browser_draws_the_pictures_and_runs_nothing_else(evil: Path) -> None:
    chromium = shutil.which("chromium")
    assert chromium is not None
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--virtual-time-budget=5000",
    ]
    done = subprocess.run(
        [chromium, *flags, "--enable-logging=stderr", "--dump-dom", evil.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (
        done.stdout.count('class="plotly-graph-div') + done.stdout.count('class="js-plotly-plot')
        == 4
    )
    assert done.stdout.count('class="main-svg"') >= 8
    assert "<title>owned" not in done.stdout
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]


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


def test_of_many_trials_the_front_and_one_in_a_few_are_drawn_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "DRAWN", 20)
    make_study(tmp_path, trials=60)
    study = read_study(tmp_path)
    shown = page.context(study)
    names = {row["trial_id"] for row in shown["listed"]}
    assert names >= set(study.front["trial_id"])
    assert names >= set(study.trials.loc[study.trials["origin"] == "baseline", "trial_id"])
    assert 20 <= len(names) < 35
    assert f"Drawn and listed are {len(names)} of 60 trials" in visible(page.render(study))
    assert "one in 3 of the others" in visible(page.render(study))


def test_a_file_that_is_no_page_is_not_overwritten(tmp_path: Path) -> None:
    make_study(tmp_path, trials=3)
    before = (tmp_path / "study.json").read_bytes()
    with pytest.raises(StudyError, match=r"study.json: is no HTML page, and is not overwritten"):
        page.build(tmp_path, tmp_path / "study.json")
    assert (tmp_path / "study.json").read_bytes() == before
    (tmp_path / "empty.html").touch()
    for name in ("empty.html", "empty.html"):  # the second time over a page
        assert page.build(tmp_path, tmp_path / name).stat().st_size > 0

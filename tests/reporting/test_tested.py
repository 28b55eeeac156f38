"""Results on test images, on the page."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from rkdsearch.reporting import page
from rkdsearch.results.cells import CLEAN, ROBUST, records
from rkdsearch.results.intervals import paired_difference
from rkdsearch.results.store import Store
from rkdsearch.results.study import read_study
from tests.reporting.pages import Elements, section, visible
from tests.results.factory import make_study, repeat, write_tests


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
        "differed from their replicates by +0.0 clean and +4.0 robust, on average. That is"
        " selection bias and the effect of another training seed together." in text
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
    assert "differed from theirs by +0.0 and +7.0: the effect of the seed alone." in text


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


def test_other_images_and_balls_stand_apart_and_openings_are_counted(tmp_path: Path) -> None:
    store = make_study(tmp_path, trials=12)
    row = next(r for r in records(store.evaluations()) if r["attack"] == "pgd20")
    assert "other balls" not in visible(page.build(tmp_path).read_text(encoding="utf-8"))
    wider = {**row, "eps": 16 / 255, "own_ball": False, "accuracy": 0.123}
    store.write_evaluation(wider)
    # a quick look afterwards does not hide what more images said
    look = {"images": 3, "accuracy": 0.456, "subset_sha256": "d" * 64}
    store.write_evaluation({**wider, **look, "evaluated": datetime(2027, 1, 1, tzinfo=UTC)})
    clean = next(r for r in records(store.evaluations()) if r["attack"] == "clean")
    aside = {"split": "other", "dataset": "mine.npz", "eps": 0.0, "training_seed": 7}
    store.write_evaluation({**clean, **aside})
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
    assert "3 results on other images or in other balls" in text
    others = text.split("results on other images or in other balls")[1].split("</table>")[0]
    assert "12.3" in others
    assert "45.6" not in others
    assert f"<small>{clean['trial_id']}, training seed 7</small>" in text
    assert "None eps" not in text
    assert "<td>linf eps = 16/255</td>" in text
    assert "<td>cifar10c/fog.npy, severity 5</td>" in text
    assert "12.3" not in section(text, "The front, with test results").split("</table>")[0]
    assert "The test images were opened 2 times" in text
    assert text.count(">SEARCHING</span>") == 1
    assert "2026-11-21 10:00 UTC" in text

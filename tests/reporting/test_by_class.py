"""Accuracies by class, on the page."""

import json
import re
from pathlib import Path

from rkdsearch.reporting import page
from rkdsearch.reporting.by_class import by_class
from rkdsearch.results.cells import records
from rkdsearch.results.study import read_study
from tests.reporting.pages import visible
from tests.results.factory import TEST_IMAGES, make_study


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
            # a stronger attack on other images says nothing beside this clean accuracy
            weaker = {"attack": "margin", "subset_sha256": "b" * 64, "per_class": {"a": [0, 10]}}
            store.write_evaluation({**row, **weaker})
    text = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    table = text[text.index(f"Clean accuracy of each class on {TEST_IMAGES} test images") :].split(
        "</table>"
    )[0]
    assert "below it its accuracy under AutoAttack" in table
    body = table[table.index("<tbody>") :]
    assert body.count("<tr>") == len(front)
    assert re.findall(r'<td class="n">([\d.]+)<br>([\d.]+)</td>', body) == [
        ("85.0", "35.0"),
        ("90.0", "50.0"),
        ("80.0", "20.0"),
    ] * len(front)

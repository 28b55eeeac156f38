import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkdsearch.errors import StudyError
from rkdsearch.report import page
from rkdsearch.results.cells import CLEAN, ROBUST, records
from rkdsearch.results.store import Store
from tests.results.factory import make_study, repeat, write_tests

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
def good(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("good")
    make_study(folder)
    return page.build(folder).read_text(encoding="utf-8")


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
    (tmp_path / "evaluations" / f"{row['trial_id']}-best-pgd20-0-cccccccc.parquet").unlink()
    store.write_evaluation({**row, "subset_sha256": "d" * 64, "images": 60})
    text = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    assert "PGD-20, linf eps = 8/255: n = 60 or 297 of 297 test images" in text
    assert "AutoAttack, linf eps = 8/255: n = 297 of 297 test images" in text
    assert text.count(", n = 60</small>") == 1
    assert text.count(", n = 297</small>") == len(store.evaluations()) // 3 - 1


@pytest.mark.parametrize(("eps", "text"), [(8 / 255, "8/255"), (0.15, "0.15"), (0.5, "0.5")])
def test_a_radius_is_written_as_the_field_writes_it(eps: float, text: str) -> None:
    assert page.radius(eps) == text


def test_the_most_robust_student_is_compared_with_natural_and_best_baseline_in_pairs(
    good: str,
) -> None:
    text = visible(good)
    pairs = text[text.index("<h2>Paired comparisons") : text.index("<h2>Methods")]
    assert pairs.count("igdm · igdm-044") == 6
    assert pairs.count("natural · natural-010") == 3
    assert pairs.count("RSLAD, published") == 3
    assert "+64.3 to +74.9" in pairs


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
    assert "<li>white-box weaker than black-box</li>" in text


def test_a_running_study_says_that_it_is_not_over(evil: Path) -> None:
    assert "The search is not over: 2 trials are running or paused" in visible(
        evil.read_text(encoding="utf-8")
    )


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


def test_the_front_of_repeated_contenders_shows_means_spread_and_luck(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name, robust in {"a": 0.56, "a-r1": 0.50, "a-r2": 0.54}.items():
        origin = "replicate" if "-" in name else "search"
        row = {
            "trial_id": name,
            "ordinal": 3,
            "origin": origin,
            "status": "finished",
            CLEAN: 0.9,
            ROBUST: robust,
        }
        store.write_trial(row)
    text = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    assert "<small>± 2.8, n = 2 replicates</small>" in text
    assert "1 configurations were trained again with other seeds, 2 runs in all" in text
    assert "by 0.0 and robust accuracy by 2.8 percentage points" in text
    assert "better than their replicates by +0.0 clean and +4.0 robust, on average." in text


def test_repeats_are_counted_apart_and_are_no_trials_of_their_own(tmp_path: Path) -> None:
    store = make_study(tmp_path)
    repeat(store, (2, 41, 44))
    write_tests(store, [("igdm-044-r1", "", 0.9, 0.7)], np.random.default_rng(0))
    text = visible(page.build(tmp_path).read_text(encoding="utf-8"))
    assert "<dd>60<small>33 finished, 24 stopped, 3 failed; and 6 replicates</small></dd>" in text
    assert "60 trials (33 finished, 24 stopped, 3 failed) and 6 replicates as a table" in text
    assert text.count("igdm-044-r1") == 2, "its test result and its own row"
    pictures = json.loads(
        Elements((tmp_path / "report.html").read_text(encoding="utf-8")).scripts[0]
    )
    assert "training.seed" not in json.dumps(pictures)
    assert "-r1" not in json.dumps(pictures)


def test_the_page_is_replaced_whole_and_may_go_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    out = tmp_path / "pages" / "digits.html"
    for _ in range(2):
        assert page.build(tmp_path / "study", out) == out
    assert [path.name for path in out.parent.iterdir()] == ["digits.html"]
    assert list((tmp_path / "study").iterdir()) == []


def test_a_place_that_cannot_be_written_is_the_users_to_change(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="name another place with --out"):
        page.build(tmp_path, tmp_path / "file" / "report.html")


@given(
    st.recursive(
        st.text() | st.integers() | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
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

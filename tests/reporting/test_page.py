import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkdsearch.errors import StudyError
from rkdsearch.reporting import page
from rkdsearch.results.cells import CLEAN, ROBUST
from rkdsearch.results.store import Store
from rkdsearch.results.study import read_study
from tests.reporting.pages import Elements, section, visible
from tests.results.factory import make_study, repeat


def test_the_page_says_when_the_search_began_as_one_would(good: str) -> None:
    assert "Begun 2026-11-20 09:00 UTC." in visible(good)


def test_the_page_says_once_what_the_validation_images_are_to_the_teacher(good: str) -> None:
    assert (
        visible(good).count(" validation images, not held out: it was trained on all of them</td>")
        == 1
    )


def test_what_a_network_or_an_attack_does_not_have_is_not_listed(tmp_path: Path) -> None:
    make_study(tmp_path, trials=6)
    described = json.loads((tmp_path / "study.json").read_text())
    described["validation_attack"] = {"norm": "linf", "relative_step_size": None, "restarts": 1}
    (tmp_path / "study.json").write_text(json.dumps(described))
    text = visible(page.render(read_study(tmp_path)))
    assert "norm = linf, restarts = 1" in text
    assert "None" not in text


def test_each_rung_is_compared_with_the_full_runs(good: str, tmp_path: Path) -> None:
    rungs = section(good, "Survival by rung")
    assert "rank correlation of robust accuracy there with that of the full run" in rungs
    assert re.search(r">0.95</td><td class=.n.>0.88</td><td class=.n.>0.95</td>", rungs)
    assert "–</td></tr>" in rungs  # full length itself
    make_study(tmp_path, trials=6)  # fewer than eight full runs
    few = section(page.render(read_study(tmp_path)), "Survival by rung")
    assert "best robust" in few
    assert "rank correlation" not in few


def test_a_list_that_is_thinned_has_single_runs_like_the_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repeat(make_study(tmp_path, trials=12), (2,))
    whole = {row["trial_id"]: row[ROBUST] for row in page.context(read_study(tmp_path))["listed"]}
    monkeypatch.setattr(page, "thinned", lambda trials, front: [t for t in trials if t["seeds"]])
    thin = {row["trial_id"]: row[ROBUST] for row in page.context(read_study(tmp_path))["listed"]}
    assert len(thin) == 1 + 2 < len(whole)
    assert thin.items() <= whole.items()


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


def test_reconstructed_methods_say_so(good: str) -> None:
    text = visible(good)
    assert re.search(r"<th scope=\"row\">crdnd <span class=\"mark\"[^>]*>RECONSTRUCTED", text)
    assert not re.search(r"<th scope=\"row\">rslad <span", text)


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

import json
from pathlib import Path
from typing import Any

import pytest

from rkdsearch.reporting import figures, pareto_figure, traces
from rkdsearch.results.cells import CLEAN, ROBUST, records
from rkdsearch.results.front import configurations
from rkdsearch.results.study import StudyResults, read_study
from tests.results.factory import make_study, repeat


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    folder = tmp_path_factory.mktemp("study")
    make_study(folder, running=2)
    return read_study(folder)


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    folder = tmp_path_factory.mktemp("repeated")
    repeat(make_study(folder), (2, 10, 35, 41, 44))
    return read_study(folder)


def rows(study: StudyResults) -> list[dict[str, Any]]:
    return records(configurations(study.trials))


def pareto(study: StudyResults) -> traces.Figure:
    trials, front = rows(study), records(study.front)
    return pareto_figure.pareto(trials, front, study.description["teachers"])


def test_every_measured_trial_is_drawn_once(study: StudyResults) -> None:
    drawn = [
        x
        for trace in pareto(study)["data"]
        if trace["name"] not in {"front", "robust teacher"}
        for x in trace["x"]
        if x is not None
    ]
    assert sorted(drawn) == sorted(study.trials[CLEAN].dropna())


def test_only_finished_trials_have_full_marks(study: StudyResults) -> None:
    finished = set(study.trials.loc[study.trials["status"] == "finished", CLEAN])
    for trace in pareto(study)["data"]:
        if trace["mode"].startswith("markers") and trace["name"] != "robust teacher":
            symbol = trace["marker"]["symbol"]
            symbols = [symbol] * len(trace["x"]) if isinstance(symbol, str) else symbol
            for x, each in zip(trace["x"], symbols, strict=True):
                assert x is None or (x in finished) != each.endswith("-open"), trace["name"]


def test_the_front_is_a_line_that_first_goes_down(study: StudyResults) -> None:
    line = pareto(study)["data"][0]
    assert line["line"]["shape"] == "vh"
    assert line["x"] == sorted(line["x"])
    assert line["y"] == sorted(line["y"], reverse=True)


def test_baselines_are_diamonds_and_the_teacher_a_star(study: StudyResults) -> None:
    by_name = {trace["name"]: trace for trace in pareto(study)["data"]}
    # of ten methods PGD-AT, RSLAD and TRADES have the colours of the first three
    assert by_name["baseline"]["marker"]["symbol"] == [
        "diamond",
        "diamond-wide",
        "diamond-wide",
        "diamond",
        "diamond",
        "diamond-wide",
    ]
    assert len(by_name["baseline"]["x"]) == 6
    assert (by_name["robust teacher"]["x"], by_name["robust teacher"]["y"]) == ([0.955], [0.755])


def test_no_two_of_twenty_eight_methods_share_a_look_nor_their_baselines() -> None:
    style = traces.looks([f"method_{n:02}" for n in range(28)])
    assert len({(look.colour, look.shape) for look in style.values()}) == 28
    assert len({(look.colour, look.baseline) for look in style.values()}) == 28
    assert style["method_07"] == traces.Look("#0072B2", "square", "diamond-wide")


def test_a_method_keeps_its_look_in_every_picture(study: StudyResults) -> None:
    trials = rows(study)
    slices = figures.slices(trials)
    assert slices is not None
    first = {
        t["name"]: (t["marker"]["symbol"], t["marker"]["color"])
        for t in pareto(study)["data"]
        if t.get("showlegend")
    }
    second = {t["name"]: (t["marker"]["symbol"], t["marker"]["color"]) for t in slices["data"]}
    assert len(second) >= 5
    assert all(first[name] == look for name, look in second.items())


def test_forty_two_methods_look_different() -> None:
    looks = traces.looks([f"method{n}" for n in range(42)])
    assert len({(look.colour, look.shape) for look in looks.values()}) == 42


def lies_in(view: Any, row: dict[str, Any]) -> bool:
    (x0, x1), (y0, y1) = view
    return bool(x0 <= row[CLEAN] <= x1 and y0 <= row[ROBUST] <= y1)


def test_the_default_view_hides_no_baseline_and_says_what_it_hides(study: StudyResults) -> None:
    layout = pareto(study)["layout"]
    default = (layout["xaxis"]["range"], layout["yaxis"]["range"])
    measured = [row for row in rows(study) if row[CLEAN] is not None]
    baselines = [row for row in measured if row["origin"] == "baseline"]
    assert len(baselines) == 6
    assert all(lies_in(default, row) for row in baselines)
    closer, wide, every = layout["updatemenus"][0]["buttons"]
    assert wide["args"] == [{f"{axis}.range": layout[axis]["range"] for axis in ("xaxis", "yaxis")}]
    near = closer["args"][0]
    view = (near["xaxis.range"], near["yaxis.range"])
    assert view[1][0] > 0.4, "undefended students do not squeeze the others there"
    outside = [row for row in measured if not lies_in(view, row)]
    hidden = sum(row["origin"] == "baseline" for row in outside)
    assert hidden == 1  # natural training
    assert closer["label"] == f"closer view: {len(outside)} marks outside, 1 of them baselines"
    assert every["label"] == "all trials"


def test_where_every_baseline_is_near_the_default_is_the_closer_view() -> None:
    def row(robust: float, origin: str) -> dict[str, Any]:
        return {CLEAN: 0.9, ROBUST: robust, "origin": origin, "status": "finished"}

    near = [row(0.5, "baseline"), row(0.6, "search"), row(0.55, "search")]
    far = row(0.02, "search")
    closer = pareto_figure.closer_view([*near, far], {})
    assert pareto_figure.default_view([*near, far], {}) == closer
    assert closer[ROBUST][0] > 0.4
    wide = pareto_figure.default_view([*near, far, row(0.1, "baseline")], {})
    assert 0.02 < wide[ROBUST][0] < 0.1, "as far as the baseline, and no further"
    far_baseline = [*near, far, row(0.1, "baseline")]
    labels = [
        button["label"]
        for button in pareto_figure._views(
            pareto_figure.closer_view(far_baseline, {}), wide, far_baseline
        )["buttons"]
    ]
    assert labels == [
        "closer view: 2 marks outside, 1 of them baselines",
        "all baselines: 1 mark outside",
        "all trials",
    ]


def test_a_number_searched_over_decades_has_a_logarithmic_axis(study: StudyResults) -> None:
    slices = figures.slices(rows(study))
    assert slices is not None
    kinds = {
        axis["title"]["text"]: axis["type"]
        for name, axis in slices["layout"].items()
        if name.startswith("xaxis")
    }
    assert kinds == {"attack.eps": "linear", "method.temperature": "log", "optimizer.lr": "log"}


def test_shares_of_the_teacher_are_those_of_the_last_epoch(study: StudyResults) -> None:
    front = records(study.front)
    figure = figures.reliability(records(study.epochs), front)
    assert figure is not None
    # nobody teaches the natural students
    taught = [row for row in front if row["config.method.name"] != "natural"]
    assert [len(trace["y"]) for trace in figure["data"]] == [len(taught)] * 3
    assert figure["data"][0]["x"][0] == pytest.approx(0.86 - 0.004 * 24)


def test_curves_draw_the_front_above_the_others(study: StudyResults) -> None:
    trials, front = rows(study), records(study.front)
    figure = figures.curves(trials, records(study.epochs), front)
    assert figure is not None
    colours = [trace["line"]["color"] for trace in figure["data"]]
    assert colours[-2 * len(front) :].count("$faint") == 0
    assert colours.count("$faint") == 2 * (len(trials) - len(front))


def test_a_study_without_numbers_has_no_such_pictures(tmp_path: Path) -> None:
    empty = read_study(tmp_path)
    assert records(empty.trials) == []
    assert (figures.curves([], [], []), figures.reliability([], []), figures.slices([])) == (
        None,
        None,
        None,
    )
    assert json.dumps(pareto_figure.pareto([], [], {}), allow_nan=False)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "1", None])
def test_a_value_that_is_no_number_is_not_drawn(value: object) -> None:
    assert not traces.is_number(value)
    assert (
        pareto_figure.drawable({"robust": {"clean_accuracy": value, "robust_accuracy": 0.5}}) == {}
    )


# ------------------------------------------------------------------------------------------ repeats


def test_who_was_replicated_is_one_mark_at_its_means_with_bars(repeated: StudyResults) -> None:
    marks = {
        hover: (x, y, sd)
        for trace in pareto(repeated)["data"]
        if trace.get("customdata")
        for hover, x, y, sd in zip(
            trace["customdata"],
            trace["x"],
            trace["y"],
            trace.get("error_y", {}).get("array", [None] * len(trace["x"])),
            strict=True,
        )
    }
    own = {row["trial_id"]: row for row in records(repeated.trials)}
    (mark,) = [
        value
        for hover, value in marks.items()
        if "igdm · igdm-044" in hover and "means over 2 replicates" in hover
    ]
    assert mark == pytest.approx(
        (
            own["igdm-044"][CLEAN] - 0.02,
            own["igdm-044"][ROBUST] - 0.02,
            0.02 / 2**0.5,
        )
    )
    assert sum(sd is not None for *_, sd in marks.values()) == 5
    assert not [hover for hover in marks if "-r1" in hover]


def test_the_front_goes_through_the_marks_that_made_it(repeated: StudyResults) -> None:
    front, *others = pareto(repeated)["data"]
    marks = {(x, y) for trace in others for x, y in zip(trace["x"], trace["y"], strict=True)}
    assert len(front["x"]) >= 2
    assert set(zip(front["x"], front["y"], strict=True)) <= marks


def test_the_seed_of_a_replicate_is_no_searched_value(repeated: StudyResults) -> None:
    slices = figures.slices(rows(repeated))
    assert slices is not None
    titles = [
        axis["title"]["text"] for name, axis in slices["layout"].items() if name.startswith("xaxis")
    ]
    assert titles == ["attack.eps", "method.temperature", "optimizer.lr"]


def test_the_teacher_lies_inside_the_closer_view_unless_nothing_defends_it(
    study: StudyResults,
) -> None:
    measured = [row for row in rows(study) if row[CLEAN] is not None]
    robust, natural = (
        {"clean_accuracy": 0.999, "robust_accuracy": 0.9},
        {
            "clean_accuracy": 0.999,
            "robust_accuracy": 0.01,
        },
    )
    view = pareto_figure.closer_view(measured, {"robust": robust, "natural": natural})
    assert view[ROBUST][0] > 0.4
    assert view[ROBUST][1] > 0.9
    assert view[CLEAN][1] > 0.999


def test_labels_keep_off_the_bars() -> None:
    row = {CLEAN: 0.5, ROBUST: 0.5, "clean_sd": 0.1, "robust_sd": 0.2}
    found = pareto_figure.obstacles([row], [], lambda clean, robust: (100 * clean, 100 * robust))
    assert {(40.0, 50.0), (50.0, 30.0)} < {(round(x, 6), round(y, 6)) for x, y in found}


def sized(*students: tuple[str, float, float, int]) -> list[dict[str, Any]]:
    """Finished students: name, clean and robust accuracy, weights; all of as many multiply-adds."""
    return [
        {
            "trial_id": name,
            "label": name,
            "origin": "search",
            "status": "finished",
            "reconstructed": False,
            "hyperparameters": "{}",
            "seeds": None,
            "config.method.name": "trades",
            "fidelity.epochs": 4,
            "fidelity.of_epochs": 4,
            "clean_sd": None,
            "robust_sd": None,
            CLEAN: clean,
            ROBUST: robust,
            "run.parameters": weights,
            "run.multiply_adds": 1_000,
        }
        for name, clean, robust, weights in students
    ]


def test_whoever_is_on_the_front_for_its_size_has_a_ring_and_is_no_corner_of_the_line() -> None:
    students = sized(
        ("large", 0.9, 0.6, 9_000), ("small", 0.8, 0.5, 1_000), ("robust", 0.7, 0.7, 9_000)
    )
    by_name = {
        trace["name"]: trace for trace in pareto_figure.pareto(students, students, {})["data"]
    }
    assert (by_name["front"]["x"], by_name["front"]["y"]) == ([0.7, 0.9], [0.7, 0.6])
    assert by_name["front, by another objective"]["x"] == [0.8]
    usual = pareto_figure.pareto(students[:2], students[:1], {})["data"]
    assert "front, by another objective" not in {trace["name"] for trace in usual}


def test_size_is_drawn_where_students_differ_in_it() -> None:
    students = sized(("large", 0.9, 0.6, 9_000), ("small", 0.8, 0.5, 1_000))
    drawn = figures.costs(students, students[:1])
    assert drawn is not None
    assert [
        drawn["layout"][axis]["title"]["text"] for axis in ("xaxis", "yaxis", "xaxis2", "yaxis2")
    ] == [
        "parameters",
        "robust accuracy",
        "parameters",
        "clean accuracy",
    ]
    assert [(trace["name"], trace["x"], trace["y"]) for trace in drawn["data"]] == [
        ("trades", [9_000, 1_000], [0.6, 0.5]), ("front", [9_000], [0.6]),
        ("trades", [9_000, 1_000], [0.9, 0.8]), ("front", [9_000], [0.9]),
    ]  # fmt: skip
    assert figures.costs(sized(("a", 0.9, 0.6, 9_000), ("b", 0.8, 0.5, 9_000)), []) is None

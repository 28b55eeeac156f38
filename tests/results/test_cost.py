from pathlib import Path

from rkdsearch.results.cells import records
from rkdsearch.results.cost import Cost, by_method, cost_of, survival
from rkdsearch.results.store import Store
from tests.results.factory import START
from tests.results.rows import study, trial


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


def test_a_student_that_a_flag_keeps_off_the_front_is_nobodys_best(tmp_path: Path) -> None:
    found = study(
        tmp_path,
        trial("a", 0.9, 0.5, config__method__name="rslad"),
        trial("b", 0.95, 0.75, config__method__name="rslad", flags='["zero_gradients"]')
        | {"ordinal": 1},
        trial("c", 0.8, 0.6, config__method__name="crdnd") | {"ordinal": 2},
    )
    rows = records(by_method(found.trials, found.front))
    assert [(r["method"], r["clean"], r["robust"]) for r in rows] == [
        ("crdnd", 0.8, 0.6),
        ("rslad", 0.9, 0.5),
    ]


def test_a_method_that_only_baselines_have_is_not_short_of_its_share(tmp_path: Path) -> None:
    spent = {"run__device_seconds": 60.0, "origin": "search"}
    found = study(
        tmp_path,
        trial("a", 0.9, 0.5, config__method__name="rslad", **spent),
        trial("b", 0.9, 0.4, "finished", config__method__name="ard", origin="baseline"),
        trial("c", 0.9, 0.4, config__method__name="iad", origin="baseline"),
    )
    short = {
        str(searched): {
            row["method"]: row["short"]
            for row in records(by_method(found.trials, found.front, searched))
        }
        for searched in (None, ["rslad", "iad"])
    }
    assert short == {
        "None": {"rslad": False, "ard": True, "iad": True},
        "['rslad', 'iad']": {"rslad": False, "ard": False, "iad": True},
    }


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

from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd

from rkdsearch.reporting import figures
from rkdsearch.results.nodes import by_node, machine_failures, node_stays

START = datetime(2026, 11, 29, 8, 0, tzinfo=UTC)


def epoch(trial_id: str, minute: int, node: str | None) -> dict[str, Any]:
    finished = START + timedelta(minutes=minute)
    return {"trial_id": trial_id, "node": node, "finished": finished, "seconds": 60.0}


def failure(trial_id: str, node: str | None, kind: str | None) -> dict[str, Any]:
    told = {"failure": kind, "error": f"{trial_id}: <b>lost</b>", "run.updated": START}
    return {"trial_id": trial_id, "run.node": node, **told}


EPOCHS = [
    epoch("t0", 1, "a 10.0.0.2"),
    epoch("t0", 2, "a 10.0.0.2"),
    epoch("t0", 5, "b 10.0.0.3"),
    epoch("t1", 2, "b 10.0.0.3"),
    epoch("old", 9, None),
]


def test_a_trial_that_moved_has_a_stretch_on_each_node() -> None:
    found = [(s.trial_id, s.node, s.epochs) for s in node_stays(pd.DataFrame(EPOCHS))]
    assert found == [("t0", "a 10.0.0.2", 2), ("t0", "b 10.0.0.3", 1), ("t1", "b 10.0.0.3", 1)]
    assert node_stays(pd.DataFrame(EPOCHS))[0].start == START
    assert node_stays(pd.DataFrame(EPOCHS))[0].end == START + timedelta(minutes=2)


def test_a_search_of_three_nodes_whose_node_was_killed_and_whose_driver_was_paused() -> None:
    """Rows of a real search (tests/cluster/test_losses.py), every fifth second of it."""
    begun = datetime(2026, 11, 29, 22, 6, 50, tzinfo=UTC)

    def at(trial_id: str, node: str, *seconds: int) -> list[dict[str, Any]]:
        return [
            {
                "trial_id": trial_id,
                "node": f"node{node[-1]} 10.77.248.{int(node[-1]) + 1}",
                "finished": begun + timedelta(seconds=second),
                "seconds": 0.6,
            }
            for second in seconds
        ]

    rows = [
        *at("t00000", "node2", 3, 8, 13, 18, 23, 28, 148, 153, 158),
        *at("t00001", "node1", 3, 5),
        *at("t00001", "node3", 23, 28, 148, 153, 158),
    ]
    found = node_stays(pd.DataFrame(rows))
    assert [(s.node[:5], s.trial_id, s.epochs) for s in found] == [
        ("node2", "t00000", 6),
        ("node2", "t00000", 3),
        ("node1", "t00001", 2),
        ("node3", "t00001", 2),
        ("node3", "t00001", 3),
    ]
    assert [row["moved"] for row in by_node(found, [])] == [0, 1, 0]
    picture = figures.nodes(found, [])
    assert picture is not None
    *_, moved = picture["data"]
    assert (moved["x"], moved["y"], moved["customdata"]) == (
        ["2026-11-29T22:06:55+00:00"],
        ["node1 10.77.248.2"],
        ["t00001 went on elsewhere"],
    )


def test_nodes_count_trials_epochs_moves_and_the_failures_of_machines() -> None:
    trials = [
        failure("t1", "b 10.0.0.3", "worker"),
        failure("t2", "b 10.0.0.3", "loss"),
        failure("t3", None, "files"),
        failure("t4", "b 10.0.0.3", None),
    ]
    assert [row["trial_id"] for row in machine_failures(trials)] == ["t1", "t3"]
    rows = by_node(node_stays(pd.DataFrame(EPOCHS)), trials)
    counts = {r["node"]: (r["trials"], r["epochs"], r["moved"], r["failed"]) for r in rows}
    assert counts == {"a 10.0.0.2": (1, 2, 1, 0), "b 10.0.0.3": (2, 2, 0, 1)}


def test_one_quiet_node_needs_no_picture_and_a_hostile_name_is_text() -> None:
    assert figures.nodes(node_stays(pd.DataFrame(EPOCHS[:2])), []) is None
    picture = figures.nodes(node_stays(pd.DataFrame([*EPOCHS, epoch("t9", 3, "<img src=x>")])), [])
    assert picture is not None
    assert "<img" not in str(picture)
    failed = figures.nodes(node_stays(pd.DataFrame(EPOCHS[:2])), [failure("t1", None, "worker")])
    assert failed is not None
    assert failed["data"][-1]["customdata"] == ["t1: t1: &lt;b&gt;lost&lt;/b&gt;"]

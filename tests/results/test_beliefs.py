import json
from typing import Any

import pandas as pd

from rkdsearch.results.beliefs import worth_of_baselines


def row(name: str, origin: str, by: str | None, clean: float, **more: Any) -> dict[str, Any]:
    return {
        "trial_id": name,
        "ordinal": int(name[1:]),
        "origin": origin,
        "proposed_by": by,
        "label": "",
        "status": "finished",
        "notes": "{}",
        "metric.clean_accuracy": clean,
        "metric.robust_accuracy": 0.6,
        **more,
    }


def near(label: str) -> str:
    return json.dumps({"belief": label})


TRIALS = pd.DataFrame(
    [
        row("t0", "baseline", "baseline", 0.90, label="RSLAD, paper"),
        row("t1", "baseline", "baseline", 0.80, label="ARD, published"),
        row("t2", "search", "belief", 0.92, notes=near("RSLAD, paper")),
        row("t3", "search", "belief", 0.90, notes=near("RSLAD, paper")),
        row("t4", "search", "belief", 0.95, notes=near("RSLAD, paper"), status="running"),
        row("t5", "search", "model", 0.99),
        row("t2", "replicate", "belief", 0.93, notes="{}"),
    ]
)


def test_each_baseline_stands_beside_the_trials_that_were_made_near_it() -> None:
    table = worth_of_baselines(TRIALS, TRIALS[TRIALS["trial_id"].isin(["t2", "t5"])])
    columns = ["label", "near", "finished", "better", "on_front"]
    assert table[columns].to_numpy().tolist() == [
        ["RSLAD, paper", 3, 2, 1, 1],  # an equal is not better
        ["ARD, published", 0, 0, 0, 0],
    ]


def test_a_search_without_beliefs_has_no_such_table() -> None:
    modelled = TRIALS[TRIALS["proposed_by"] != "belief"]
    assert worth_of_baselines(modelled, modelled).empty
    assert worth_of_baselines(TRIALS.drop(columns="proposed_by"), TRIALS).empty

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rkdsearch.search.study import Study
from rkdsearch.space.ladder import starting_rung
from rkdsearch.space.settings import SamplerConfig, SchedulerConfig
from rkdsearch.training.epoch import Best, EpochResult
from tests.analysis.scripts import script

SAMPLERS = {
    "tpe": {"name": "tpe"},
    "random": {"name": "random"},
    "tpe, shown five": {"name": "tpe", "startup": 3, "history": 5},
}
curves, rules, simulation = script("curves"), script("rules"), script("simulation")


def test_the_published_priority_misplaces_a_newcomer_that_dominates_all_others() -> None:
    values = np.array([(0.4, 0.4), (0.3, 0.3), (0.2, 0.2), (0.1, 0.1), (0.9, 0.9)])
    # read as places: the best is the last of five
    assert list(rules.published_priorities(values)) == [4, 0, 1, 2, 3]


def test_the_stock_pair_stops_below_the_upper_third_and_tells_optuna_that_it_is_complete() -> None:
    landscape = curves.Simulated("straight", 0)
    rule = rules.Stock(landscape.space)
    decided = []
    for ordinal, mean in enumerate((0.5, 0.6, 0.55, 0.7)):
        overrides, _ = rule.propose(ordinal, [])
        trial = simulation.Trial(
            ordinal, overrides, landscape.curve(overrides), rule.climbs(ordinal), rung=0
        )
        decided.append(rule.continues(trial, (mean, mean)))
        rule.ended(trial, (mean, mean))
    assert decided == [True, True, False, True]  # cutoffs: none, 0.5, 0.5667, 0.5667
    assert [t.state.name for t in rule._searcher._ot_study.trials] == ["COMPLETE"] * 4


@pytest.mark.parametrize(
    ("sampler", "settings", "ladder"),
    [
        ("tpe", {"kind": "promotion"}, "LENGTH"),
        ("tpe, shown five", {"kind": "promotion"}, "LENGTH"),
        ("random", {"kind": "stopping"}, "LENGTH"),
        ("tpe", {"kind": "promotion"}, "WHOLE"),
        ("random", {"kind": "promotion", "capped": "continued"}, "WHOLE"),
        ("tpe", {"kind": "promotion", "brackets": 3}, "WHOLE"),
        ("random", {"kind": "stopping", "brackets": 2}, "LENGTH"),
    ],
)
def test_a_simulated_search_tries_and_stops_what_a_study_with_one_worker_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sampler: str,
    settings: dict[str, Any],
    ladder: str,
) -> None:
    landscape = curves.Simulated("straight", 5)
    space = replace(
        landscape.space,
        seed=7,
        sampler=SamplerConfig.model_validate(SAMPLERS[sampler]),
        scheduler=SchedulerConfig.model_validate(settings),
        ladder=getattr(rules, ladder),
    )
    study = Study(tmp_path, space, 16, {})
    while (given := study.next()) is not None:
        trial = study.trials[given.trial_id]
        climbed = space.ladder[starting_rung(space.scheduler, trial.ordinal) :]
        rung = [r.epochs for r in climbed].index(given.fidelities[-1].epochs)
        run = landscape.curve(trial.hyperparameters).run(
            climbed, rung, afresh=space.scheduler.capped == "afresh"
        )
        for epoch in range(trial.position[1] + 1, given.fidelities[-1].epochs + 1):
            if not study.report(given.trial_id, result(run, epoch)):
                break

    monkeypatch.setattr(simulation, "WORKERS", 1)
    simulated = simulation.Search(landscape, rules.Ours(space), 16)
    full = [trial.ordinal for _, trial in simulated.run(math.inf)]

    assert [t.overrides for t in simulated.trials] == [
        t.hyperparameters for t in study.trials.values()
    ]
    assert [t.ladder[t.rung].epochs for t in simulated.trials] == [
        t.epochs[-1].epoch for t in study.trials.values()
    ]
    assert sorted(full) == sorted(
        t.ordinal for t in study.trials.values() if t.status == "finished"
    )
    assert 0 < len(full) < 9


def result(run: Any, epoch: int) -> EpochResult:
    """What a worker would report of the simulated run."""
    seen = run.epochs <= epoch
    index = run.judged(epoch) if seen.any() else 0
    best = (
        Best(
            int(run.epochs[index]),
            float(run.measured[index, 0]),
            float(run.measured[index, 1]),
            0.0,
        )
        if seen.any()
        else None
    )
    validated = np.flatnonzero(run.epochs == epoch)
    clean, robust = run.measured[validated[0]] if len(validated) else (None, None)
    return EpochResult(epoch, 54, 1.0, {}, 0.1, 0.1, 1.0, 10, clean, robust, best=best)

"""What is refused before it is a trial: laws of a run, and limits on what a student costs."""

import collections
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rkdsearch.search import feasibility
from rkdsearch.search.sampler import MODEL_ATTEMPTS, Proposal, propose
from rkdsearch.search.study import Study
from rkdsearch.space.space import SearchSpace
from tests.search.files import SIZES, FakeWorker, load_space, run

pytestmark = pytest.mark.usefixtures("unhurried")


def test_students_that_are_too_large_are_never_proposed(tmp_path: Path) -> None:
    search = {"student.width": {"int": [4, 32]}, "optimizer.lr": {"float": [0.01, 0.3]}}
    fixed = {"data.name": "digits", "student.name": "small_cnn", "method.name": "natural"}
    space = load_space(
        tmp_path, search=search, fixed=fixed, first=[], constraints={"parameters": 12_000}
    )
    weights = []
    study = Study(tmp_path / "s", space, 6, {})
    for _ in range(6):
        assignment = study.next()
        assert assignment is not None
        weights.append(study.trials[assignment.trial_id].costs["parameters"])
        study.fail(assignment.trial_id, "not trained here")
    assert len(weights) == 6
    assert max(weights) <= 12_000
    free = Study(
        tmp_path / "free",
        replace(space, constraints=space.constraints.model_copy(update={"parameters": 10**6})),
        6,
        {},
    )
    assert (
        max(
            free._add(n, "search", "", free.feasibility.proposal(n, free.observations())).costs[
                "parameters"
            ]
            for n in range(6)
        )
        > 12_000
    )


def test_where_no_student_is_small_enough_the_search_ends_with_a_sentence(tmp_path: Path) -> None:
    study = Study(tmp_path, load_space(tmp_path, first=[], constraints={"parameters": 1}), 2, {})
    assert study.next() is None
    assert study.done
    sentence = (
        r"after 0 configurations, 1,000 proposals in a row were infeasible or repeated;"
        r" of the last one: constraints.parameters must be >= the student's parameters, \d+, got 1;"
        r" raise"
    )
    study.close()
    assert study.exhausted is not None
    assert re.search(sentence, str(study.exhausted))


def test_what_runs_and_waits_has_its_end_before_a_space_without_more_says_so(
    tmp_path: Path,
) -> None:
    space = load_space(
        tmp_path, replicates={"seeds": 1, "contenders": 2}, scheduler={"reduction": 2}
    )
    study, worker = Study(tmp_path, space, 9, {}), FakeWorker()
    running = [study.next(), study.next(), study.next(), study.next()]
    allowed, tight = (
        study.feasibility,
        replace(space, constraints=space.constraints.model_copy(update={"parameters": 1})),
    )
    study.feasibility = feasibility.Feasibility(tight, {})  # nobody else is small enough
    assert study.next() is None
    assert not study.done
    study.feasibility = allowed
    for assignment in running:
        assert assignment is not None
        for result in worker.run(assignment):
            if not study.report(assignment.trial_id, result, {}):
                break
    worker.drive(study)
    assert str(study.exhausted).startswith("small: after 4 configurations")
    rows = pd.read_parquet(tmp_path / "trials")
    assert set(rows["status"]) == {"finished", "stopped"}
    assert set(rows["origin"]) == {"baseline", "search", "replicate"}


def test_a_small_part_of_a_space_is_found_where_there_is_one(tmp_path: Path) -> None:
    search = {"student.width": {"int": [2, 900]}, "optimizer.lr": {"float": [0.01, 0.3]}}
    fixed = {"data.name": "digits", "student.name": "mlp", "method.name": "natural"}
    space = load_space(
        tmp_path,
        search=search,
        fixed=fixed,
        first=[],
        constraints={"parameters": 300},
        sampler={"name": "random"},
    )
    study = Study(tmp_path, space, 3, {})
    widths = [
        study.trials[a.trial_id].hyperparameters["student.width"]
        for a in (study.next(), study.next(), study.next())
        if a
    ]
    assert len(widths) == 3
    assert max(widths) <= 3


def test_a_student_that_does_not_fit_the_images_is_asked_again(tmp_path: Path) -> None:
    search = {
        "student.name": {"choice": ["mlp", "torchvision:alexnet"]},
        "optimizer.lr": {"float": [0.01, 0.3]},
    }
    for name, changes in {
        "limit": {"constraints": {"parameters": 1e8}},
        "aim": {"objectives": ["clean_accuracy", "parameters"]},
    }.items():
        space = load_space(
            tmp_path,
            search=search,
            fixed={"data.name": "digits", "method.name": "natural"},
            first=[],
            **changes,
        )
        study = run(tmp_path / name, space, trials=6)
        assert [t.config.student.name for t in study.trials.values()] == ["mlp"] * 6
        study.trials["t00002"].hyperparameters["student.name"] = "torchvision:alexnet"
        study.ledger.write(study.trials["t00002"])
        said = list[str]()
        Study(tmp_path / name, space, 6, {}).reconcile(said.append)
        unreadable = "1 of 6 rows cannot be read by this space: kept, and not asked again"
        assert said == [f"{tmp_path / name}: {unreadable}"]


def test_a_proposal_that_breaks_a_law_of_the_run_is_replaced_by_another(tmp_path: Path) -> None:
    fixed = {"data.name": "digits", "method.name": "natural", "optimizer.nesterov": True}
    # without momentum there is no nesterov
    search = {
        "optimizer.momentum": {"choice": [0.0, 0.5, 0.9]},
        "optimizer.lr": {"float": [0.01, 0.3]},
    }
    space = load_space(tmp_path, fixed=fixed, search=search, first=[], sampler={"name": "random"})
    study = Study(tmp_path / "s", space, 12, {})
    momenta = [
        study.trials[assignment.trial_id].hyperparameters["optimizer.momentum"]
        for _ in range(12)
        if (assignment := study.next())
    ]
    assert len(momenta) == 12
    assert set(momenta) == {0.5, 0.9}


def test_where_every_proposal_breaks_a_law_the_error_names_the_law(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feasibility, "ATTEMPTS", 3)
    fixed = {
        "data.name": "digits",
        "method.name": "natural",
        "optimizer.nesterov": True,
        "optimizer.momentum": 0.0,
    }
    study = Study(
        tmp_path,
        load_space(tmp_path, fixed=fixed, search={"optimizer.lr": {"float": [0.1, 0.2]}}, first=[]),
        2,
        {},
    )
    law = (
        r"repeated; of the last one: t00000: .*nesterov needs sgd with momentum > 0, got sgd with"
        r" momentum 0.0; narrow the ranges that lead there$"
    )
    assert study.next() is None
    assert re.search(
        r"^small: after 0 configurations, 3 proposals in a row were infeasible or " + law,
        str(study.exhausted),
    )


def test_a_model_turns_away_from_students_that_are_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = collections.Counter[int]()

    def counted(space: SearchSpace, ordinal: int, *more: Any) -> Proposal:
        asked[ordinal] += 1
        return propose(space, ordinal, *more)

    monkeypatch.setattr(feasibility, "propose", counted)
    changes: dict[str, Any] = {**SIZES, "first": [], "sampler": {"name": "tpe", "startup": 10}}
    study = run(
        tmp_path,
        load_space(
            tmp_path, **changes, constraints={"parameters": 2_000}, scheduler={"name": "none"}
        ),
        trials=40,
    )
    assert max(t.costs["parameters"] for t in study.trials.values()) <= 2_000
    assert sum(asked[ordinal] for ordinal in range(10, 40)) < 5 * 30
    assert max(asked[ordinal] for ordinal in range(10, 40)) < MODEL_ATTEMPTS

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rkdsearch.errors import SpaceError
from rkdsearch.results.states import Origin, ProposedBy, Status
from rkdsearch.search import queue
from rkdsearch.search.feasibility import Feasibility
from rkdsearch.search.shares import Owed, Shares
from tests.search.files import SMALL, load_space, run

pytestmark = pytest.mark.usefixtures("unhurried")

SAMPLER = {"name": "tpe", "startup": 3, "minimum_per": {"method.name": 2}}


def test_each_choice_has_its_minimum_before_any_other_gets_more_and_a_full_run(
    tmp_path: Path,
) -> None:
    space = load_space(
        tmp_path, sampler=SAMPLER, scheduler={"name": "moasha", "reduction": 2}, seed=1
    )
    study = run(tmp_path / "s", space, trials=1 + 6)
    searched = [t for t in study.trials.values() if t.origin == Origin.SEARCH]
    methods = [t.hyperparameters["method.name"] for t in searched]
    assert sorted(methods[:3]) == sorted(methods[3:]) == ["natural", "pgd_at", "trades"]
    full = {t.hyperparameters["method.name"] for t in searched if t.status == Status.FINISHED}
    assert full == {"natural", "pgd_at", "trades"}


def test_the_least_served_choice_is_owed_next_and_nothing_when_all_are_served(
    tmp_path: Path,
) -> None:
    shares = Shares(load_space(tmp_path, sampler=SAMPLER))
    served = [(("method.name", name),) for name in ("natural", "pgd_at", "trades", "natural")]
    first = shares.owed(Counter(served))
    assert first is not None
    assert first[1] in ("pgd_at", "trades")
    assert shares.owed(Counter([*served, (("method.name", "trades"),)])) == (
        "method.name",
        "pgd_at",
    )
    assert shares.owed(Counter([*served, *served])) is None


@pytest.mark.parametrize(
    ("minimum", "sentence"),
    [
        ({"method.nmae": 2}, "method.nmae is no searched choice of every run; did you mean"),
        ({"optimizer.lr": 2}, "optimizer.lr is no searched choice of every run; there are method"),
    ],
)
def test_a_minimum_is_for_a_choice_that_every_run_has(
    tmp_path: Path, minimum: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SpaceError, match=sentence):
        load_space(tmp_path, sampler={"minimum_per": minimum})


def test_too_few_trials_for_the_minimum_are_said_before_the_search(tmp_path: Path) -> None:
    space = load_space(tmp_path, sampler=SAMPLER)
    assert [line for line in space.forecast(5) if "minimum_per" in line] == [
        (
            "WARNING: sampler.minimum_per asks for 6 searched trials, and there are 4: some choices"
            " have less than their share; ask for 7 trials"
        )
    ]
    assert not any("minimum_per" in line for line in space.forecast(7))


def test_a_child_that_fixes_the_choice_owes_it_nothing(tmp_path: Path) -> None:
    load_space(tmp_path, sampler=SAMPLER)
    (tmp_path / "child.yaml").write_text(
        "extends: small.yaml\nfixed: {method.name: trades}\nfirst: []\n"
    )
    child = type(load_space(tmp_path / "x")).load(tmp_path / "child.yaml")
    assert child.sampler.minimum_per == {}


def test_the_best_of_each_method_and_of_each_baseline_are_replicated(tmp_path: Path) -> None:
    grid = {"published": "natural", "grid": {"optimizer.lr": [0.3, 0.08]}}
    space = load_space(
        tmp_path,
        sampler=SAMPLER,
        first=[SMALL["first"][0], grid],
        scheduler={"name": "none"},
        replicates={"seeds": 1, "contenders": 2},
    )
    study = run(tmp_path / "s", space, trials=3 + 6)
    again = {t.ordinal for t in study.ledger.replicates}
    of = {t.ordinal: t for t in study.ledger.configurations}
    assert {of[n].config.to_dict()["method"]["name"] for n in again} == {
        "natural",
        "pgd_at",
        "trades",
    }
    assert {of[n].label for n in again if of[n].label} == {
        "published",
        "NATURAL, published, optimizer.lr 0.08",
    }


def test_too_few_trials_for_the_minimum_are_said_without_a_scheduler_too(tmp_path: Path) -> None:
    space = load_space(tmp_path, sampler=SAMPLER, scheduler={"name": "none"})
    assert any("minimum_per asks for 6" in line for line in space.forecast(5))
    assert not any("minimum_per" in line for line in space.forecast(7))


UNSTEPPED = {name: value for name, value in SMALL["fixed"].items() if name != "attack.steps"}
FEW = {
    "method.name": {"choice": ["pgd_at", "trades"]},
    "attack.steps": {"choice": [1, 2], "when": {"method.name": "pgd_at"}},
    "optimizer.lr": {"float": [0.01, 0.2], "log": True, "when": {"method.name": "trades"}},
}


MINIMUM = {"name": "tpe", "startup": 3, "minimum_per": {"method.name": 4}}


def test_a_choice_of_which_nothing_is_left_is_owed_no_more(tmp_path: Path) -> None:
    space = load_space(tmp_path, fixed=UNSTEPPED, search=FEW, first=[], sampler=MINIMUM)
    study = run(tmp_path / "s", space, trials=8)
    methods = Counter(t.hyperparameters["method.name"] for t in study.trials.values())
    assert methods == {"pgd_at": 2, "trades": 6}


def test_a_choice_without_a_feasible_configuration_is_owed_nothing(tmp_path: Path) -> None:
    width = {"student.width": {"choice": [2, 64]}}
    space = load_space(
        tmp_path,
        fixed={**SMALL["fixed"], "student": {"name": "small_cnn"}},
        search={**SMALL["search"], **width},
        constraints={"parameters": 5000},
        sampler={"name": "tpe", "startup": 3, "minimum_per": {"student.width": 3}},
        first=[],
    )
    study = run(tmp_path / "s", space, trials=4)
    widths = Counter(t.hyperparameters["student.width"] for t in study.trials.values())
    assert (widths, study.exhausted) == ({2: 4}, None)


def test_an_enqueued_configuration_is_no_proposal_of_its_choice(tmp_path: Path) -> None:
    space = load_space(tmp_path, sampler=SAMPLER, first=[])
    (tmp_path / "s").mkdir()
    for number in range(2):
        queue.enqueue(tmp_path / "s", {"method.name": "natural", "optimizer.lr": 5.0 + number}, "")
    study = run(tmp_path / "s", space, trials=6)
    proposed = Counter(
        t.hyperparameters["method.name"]
        for t in study.trials.values()
        if t.proposed_by != ProposedBy.QUEUE
    )
    assert proposed == {"natural": 2, "pgd_at": 2, "trades": 2}


@pytest.mark.parametrize("method", ["pgd_at", "trades"])
def test_what_is_left_of_a_finite_space_is_proposed_to_the_choice_that_is_owed(
    tmp_path: Path, method: str
) -> None:
    rates = {"choice": [0.01, 0.02, 0.03, 0.04], "when": {"method.name": "trades"}}
    searched = {**FEW, "optimizer.lr": rates}
    space = load_space(tmp_path, fixed=UNSTEPPED, search=searched, first=[], sampler=MINIMUM)
    found = Feasibility(space, {})._unasked(0, set(), set(), Owed("method.name", method))
    assert found.hyperparameters["method.name"] == method
    assert found.by == ProposedBy.MINIMUM

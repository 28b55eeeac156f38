import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import optuna
import pytest
from optuna.trial import TrialState

from rkdsearch.search.history import select_history
from rkdsearch.search.sampler import (
    Observation,
    Proposal,
    build_sampler,
    frozen_trial,
    propose,
    quiet_optuna,
    seed_of,
)
from rkdsearch.space.settings import SamplerConfig
from rkdsearch.space.space import SearchSpace
from tests.search.files import load_space

NAMES = get_args(SamplerConfig.model_fields["name"].annotation)


def history(count: int) -> list[Observation]:
    found = []
    for i in range(count):
        params: dict[str, Any] = {
            "method.name": ["natural", "pgd_at", "trades"][i % 3],
            "optimizer.lr": 0.01 * (i % 20 + 1),
        }
        if i % 3 == 2:
            params["method.consistency_weight"] = 1.0 + i % 5
        found.append(
            Observation(params, (0.5 + 0.01 * (i % 7), 0.4 - 0.01 * (i % 5)), rungs_short=i % 3)
        )
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_proposes_legal_runs_and_repeats_itself(tmp_path: Path, name: str) -> None:
    space = load_space(tmp_path, sampler={"name": name, "startup": 4})
    seen = history(12)
    for ordinal in (0, 1, 12, 13):
        proposal = propose(space, ordinal, seen[:ordinal])
        space.config(proposal.hyperparameters)
        assert space.searched(space.config(proposal.hyperparameters)) == proposal.hyperparameters
        assert propose(space, ordinal, seen[:ordinal]) == proposal


# given the same history, it insists on its one best guess
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"gp"}))
def test_every_configuration_is_another_one(tmp_path: Path, name: str) -> None:
    space = load_space(tmp_path, sampler={"name": name, "startup": 4})
    rates = {
        propose(space, ordinal, history(8)).hyperparameters["optimizer.lr"]
        for ordinal in range(8, 14)
    }
    assert len(rates) == 6


def test_what_the_ledger_holds_moves_the_model(tmp_path: Path) -> None:
    space = load_space(tmp_path)
    others = [
        Observation(s.hyperparameters, o.values, o.rungs_short)
        for s, o in zip(history(12), history(12)[::-1], strict=True)
    ]
    different = [propose(space, n, history(12)) != propose(space, n, others) for n in range(12, 18)]
    assert any(different)


def test_half_of_what_is_remembered_went_farthest_and_the_rest_is_the_latest() -> None:
    seen = [
        Observation({"n": n}, (0.5, 0.5), short) for n, short in enumerate((0, 2, 0, 1, 2, 2, 2))
    ]
    seen.append(Observation({"n": 7}))
    assert [s.hyperparameters["n"] for s in select_history(seen, 4)] == [0, 2, 6, 7]
    assert [s.hyperparameters["n"] for s in select_history(seen, 6)] == [0, 2, 3, 5, 6, 7]
    assert select_history(seen, 8) == seen


def test_an_infeasible_proposal_is_followed_by_another_one(tmp_path: Path) -> None:
    space = load_space(tmp_path)
    rates = {
        propose(space, 12, history(12), attempt).hyperparameters["optimizer.lr"]
        for attempt in range(30)
    }
    assert len(rates) == 30
    assert seed_of(3, 12) != seed_of(3, 12, 1)


def test_a_trial_that_went_less_far_is_dominated_by_every_trial_that_went_further(
    tmp_path: Path,
) -> None:
    space = load_space(tmp_path)
    params = {"method.name": "natural", "optimizer.lr": 0.1}
    early = frozen_trial(space, Observation(params, (0.99, 0.98), rungs_short=1), 0)
    full = frozen_trial(space, Observation(params, (0.01, 0.0), rungs_short=0), 1)
    assert early.values == pytest.approx([-0.01, -0.02])
    assert full.values == [0.01, 0.0]


def test_a_running_trial_is_running_for_optuna_and_has_no_values(tmp_path: Path) -> None:
    shown = frozen_trial(
        load_space(tmp_path),
        Observation({"method.name": "natural", "optimizer.lr": 0.1}),
        0,
    )
    assert shown.state == TrialState.RUNNING
    assert shown.values is None


def test_a_policy_may_hide_what_was_stopped(tmp_path: Path) -> None:
    space = load_space(tmp_path, sampler={"name": "tpe", "startup": 3, "stopped": "ignored"})
    full = [s for s in history(20) if s.rungs_short == 0]
    assert len(full) == 7
    assert propose(space, 20, history(20)) == propose(space, 20, full)
    refused = [{"method.name": "natural", "optimizer.lr": 0.01 + n / 100} for n in range(20)]
    assert propose(space, 20, history(20), 1, refused) == propose(space, 20, full, 1, refused[-7:])


def test_the_sampler_is_told_the_latest_trials_only(tmp_path: Path) -> None:
    space = load_space(tmp_path, sampler={"name": "tpe", "startup": 2, "history": 5})
    assert propose(space, 40, history(40)) == propose(space, 40, history(40)[-5:])


def proposed_by_optuna_itself(
    space: SearchSpace, ordinal: int, seen: list[Observation]
) -> Proposal:
    """The same by Optuna's own front door: every trial made, checked and copied anew."""
    with quiet_optuna():
        study = optuna.create_study(
            directions=["maximize"] * 2,
            sampler=build_sampler(space.sampler, seed_of(space.seed, ordinal)),
        )
        for one in seen:
            running = one.values is None
            study.add_trial(
                optuna.trial.create_trial(
                    state=TrialState.RUNNING if running else TrialState.COMPLETE,
                    values=None if running else [v - one.rungs_short for v in one.values],
                    params=one.hyperparameters,
                    distributions={
                        p.name: p.distribution
                        for p in space.parameters
                        if p.name in one.hyperparameters
                    },
                    system_attrs=one.notes,
                )
            )
        overrides = space.ask(study.ask())
        return Proposal(overrides, dict(study.get_trials()[-1].system_attrs))


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"qmc"}))  # a sequence asks nobody
def test_a_projection_of_the_ledger_is_read_as_a_study_of_optunas_own(
    tmp_path: Path, name: str
) -> None:
    space = load_space(tmp_path, sampler={"name": name, "startup": 4})
    seen: list[Observation] = []
    for ordinal, known in enumerate(history(8 if name == "gp" else 20)):  # it takes its time
        proposal = propose(space, ordinal, seen)
        assert proposal == proposed_by_optuna_itself(space, ordinal, seen)
        if ordinal % 6 == 5:
            seen.append(Observation(proposal.hyperparameters, notes=proposal.notes))
        else:
            seen.append(
                Observation(
                    proposal.hyperparameters, known.values, known.rungs_short, proposal.notes
                )
            )


def test_a_proposal_does_not_change_its_observations(tmp_path: Path) -> None:
    seen = history(12)
    propose(load_space(tmp_path, sampler={"name": "nsga2", "startup": 4}), 12, seen)
    assert seen == history(12)


ANOTHER_PROCESS = """
import json, sys
from pathlib import Path
from rkdsearch.space.space import SearchSpace
from rkdsearch.search.sampler import propose
from tests.search.test_sampler import history
print(json.dumps(propose(SearchSpace.load(Path(sys.argv[1])), 12, history(12)).hyperparameters))
"""


@pytest.mark.long  # it imports everything anew
def test_another_process_proposes_the_same(tmp_path: Path) -> None:
    space = load_space(tmp_path)
    # others have been asked for before; nothing of that is remembered
    for ordinal in range(12, 20):
        propose(space, ordinal, history(ordinal))
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", ANOTHER_PROCESS, str(tmp_path / "small.yaml")]
    told = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    assert json.loads(told.splitlines()[-1]) == propose(space, 12, history(12)).hyperparameters

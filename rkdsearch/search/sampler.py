"""Proposals of configurations by an Optuna sampler, with the ledger as its only memory.

Each proposal builds the sampler afresh from (study seed, ordinal) and gives it the observations of
the ledger, by ordinal. So a proposal is a function of what the ledger holds: a resumed search
proposes what an uninterrupted one would have proposed. Only trials that are being trained now are
RUNNING for Optuna; a stopped trial never counts as a full run.
"""

import copy
import hashlib
import warnings
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

from rkdsearch.results.states import ProposedBy
from rkdsearch.space.settings import SamplerConfig
from rkdsearch.space.space import SearchSpace

MODEL_ATTEMPTS = 20  # infeasible proposals after which a configuration is drawn at random
_SOMETIME = datetime.fromtimestamp(0, UTC)  # Optuna asks for a time; no sampler reads it


@dataclass(frozen=True)
class Observation:
    """One earlier trial, as the sampler is told of it.

    `values` are its objectives' merits at the highest rung that it reached; None where it is being
    trained and has reached none. `rungs_short` is the number of rungs from there to full length.
    """

    hyperparameters: dict[str, Any]
    values: tuple[float, ...] | None = None
    rungs_short: int = 0
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposal:
    """Chosen values by dotted name, and notes that the sampler needs back (NSGA's generation)."""

    hyperparameters: dict[str, Any]
    notes: dict[str, Any]
    by: ProposedBy = field(default=ProposedBy.CHANCE, compare=False)


def propose(
    space: SearchSpace,
    ordinal: int,
    observations: Sequence[Observation],
    attempt: int = 0,
    infeasible: Sequence[Mapping[str, Any]] = (),
) -> Proposal:
    """Propose configuration `ordinal`, given observations of earlier ones, by ordinal.

    `attempt` is the number of infeasible proposals for this ordinal so far: each attempt has a seed
    of its own. `infeasible` are their hyperparameters, the latest last. A model is told that they
    are worse than everything measured, or it would propose them again.
    """
    sampler = space.sampler
    if attempt >= MODEL_ATTEMPTS or (attempt and sampler.name == "qmc"):
        # A model may propose infeasible points for ever; a sequence has one point for an ordinal.
        rng = np.random.default_rng(seed_of(space.seed, ordinal, attempt))
        return Proposal(space.sample(rng), {})
    if sampler.name == "qmc":
        return Proposal(_sobol_point(space, ordinal), {})
    told = [
        o
        for o in observations[-sampler.history :]
        if o.values is None or not o.rungs_short or sampler.stopped != "ignored"
    ]
    with quiet_optuna():
        study = optuna.create_study(
            storage=_LedgerStorage(space, [*told, *_as_worst(space, told, infeasible)]),
            directions=["maximize"] * len(space.objectives),
            sampler=build_sampler(sampler, seed_of(space.seed, ordinal, attempt)),
        )
        trial = study.ask()
        hyperparameters = space.ask(trial)
        # before so many are measured, Optuna's samplers draw at random
        measured = sum(o.values is not None for o in told)
        guessed = sampler.name == "random" or measured < sampler.startup
        return Proposal(
            hyperparameters,
            dict(study.get_trials(deepcopy=False)[-1].system_attrs),
            ProposedBy.CHANCE if guessed else ProposedBy.MODEL,
        )


def _sobol_point(space: SearchSpace, ordinal: int) -> dict[str, Any]:
    """Point `ordinal` of a scrambled Sobol sequence over the space."""
    from scipy.stats import qmc  # imported here: a second and a half at every other search's start

    sequence = qmc.Sobol(
        len(space.parameters), scramble=True, rng=np.random.default_rng(space.seed)
    )
    # Drawn up to a power of two, or the sequence loses its balance. The earlier points are those of
    # the earlier configurations.
    points = sequence.random(1 << max(ordinal, 1).bit_length())
    quantiles = dict(zip((p.name for p in space.parameters), points[ordinal], strict=True))
    return space.walk(lambda parameter: parameter.at(float(quantiles[parameter.name])))


def _as_worst(
    space: SearchSpace, told: Sequence[Observation], infeasible: Sequence[Mapping[str, Any]]
) -> list[Observation]:
    """Infeasible points as observations worse than all measured ones.

    There are never more of them than measured ones, or some would count among the best.
    """
    measured = sum(o.values is not None for o in told)
    if measured < space.sampler.startup:
        return []  # there is no model yet
    worst = (-float(len(space.ladder)),) * len(space.objectives)
    return [Observation(dict(point), worst) for point in infeasible[-measured:]]


def build_sampler(config: SamplerConfig, seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler, set up for conditional spaces and several trials at once."""
    match config.name:
        case "tpe":
            return optuna.samplers.TPESampler(
                seed=seed,
                n_startup_trials=config.startup,
                multivariate=True,
                group=True,
                constant_liar=True,
            )
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=config.startup)
        case "nsga3":
            return optuna.samplers.NSGAIIISampler(seed=seed, population_size=config.startup)
        case "gp":
            return optuna.samplers.GPSampler(
                seed=seed, n_startup_trials=config.startup, deterministic_objective=False
            )
        case "random" | "qmc" | "grid":
            return optuna.samplers.RandomSampler(seed=seed)


class _LedgerStorage(optuna.storages.InMemoryStorage):
    """Observations as Optuna's storage. The proposed trial is the base class's trial 0.

    `Study.add_trials` would copy and check every observation at every proposal: ten times the work
    of the sampler itself.
    """

    def __init__(self, space: SearchSpace, observations: Sequence[Observation]) -> None:
        super().__init__()
        self._observed = [frozen_trial(space, o, number) for number, o in enumerate(observations)]

    @override
    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        asked = super().create_new_trial(study_id, template_trial)
        self.get_trial(asked).number = len(self._observed)
        return asked

    @override
    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = [*self._observed, *super().get_all_trials(study_id, deepcopy=False)]
        trials = trials if states is None else [t for t in trials if t.state in states]
        return copy.deepcopy(trials) if deepcopy else trials


class _Unconstrained(FrozenTrial):
    """A trial without constraints: TPE reads Optuna's property so often that it took 10 %."""

    constraints: dict[str, float] = {}  # noqa: RUF012 - a property in Optuna


def frozen_trial(space: SearchSpace, observation: Observation, number: int) -> FrozenTrial:
    """An observation as trial `number` of Optuna's study.

    Each rung short of full length costs 1 in every objective (policy `by_rung`). Accuracies lie in
    [0, 1]: so a longer trial dominates every shorter one, trials at one rung keep their order, and
    values of different fidelities are never mixed up.
    """
    values = observation.values
    known = [p for p in space.parameters if p.name in observation.hyperparameters]
    return _Unconstrained(
        trial_id=number + 1,  # 0 is the trial that is asked for
        number=number,
        state=TrialState.RUNNING if values is None else TrialState.COMPLETE,
        params={p.name: p.counted(observation.hyperparameters[p.name]) for p in known},
        distributions={p.name: p.distribution for p in known},
        value=None,
        values=None if values is None else [v - observation.rungs_short for v in values],
        system_attrs=observation.notes,
        user_attrs={},
        intermediate_values={},
        datetime_start=_SOMETIME,
        datetime_complete=None if values is None else _SOMETIME,
    )


def seed_of(seed: int, ordinal: int, attempt: int = 0) -> int:
    """Seed of one proposal, of 31 bits as Optuna needs it."""
    text = f"{seed} {ordinal}" + (f" {attempt}" if attempt else "")
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


class quiet_optuna:  # noqa: N801 - a context manager, used as a verb
    """Context without Optuna's notices, which are for its own callers."""

    def __enter__(self) -> None:
        self._level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)

    def __exit__(self, *error: object) -> None:
        self._warnings.__exit__(None, None, None)
        optuna.logging.set_verbosity(self._level)

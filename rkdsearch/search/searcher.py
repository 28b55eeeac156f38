"""Who proposes: an Optuna sampler by ask and tell, without Ray and without a storage of its own.

Each ask builds the sampler afresh from (study seed, the configuration's ordinal) and shows it a study projected from our own ledger, in
ordinal order. So a proposal is a function of what the ledger holds: a search that was killed and resumed proposes what an uninterrupted one
would have proposed. RUNNING means executing now; a trial that the scheduler stopped is never shown as a finished one.
"""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import qmc

from rkdsearch.search.settings import SamplerConfig
from rkdsearch.search.space import SearchSpace

MODEL_ATTEMPTS = 20  # refused proposals after which the configuration is drawn at random


@dataclass(frozen=True)
class Seen:
    """What the sampler may know of one earlier configuration. `rungs_short` is 0 for a full run; `values` are the objectives there."""

    params: dict[str, Any]
    state: Literal["measured", "running"]
    values: tuple[float, ...] = ()
    rungs_short: int = 0
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposal:
    """Overrides by dotted name, and what the sampler wants to be reminded of (NSGA's generation)."""

    overrides: dict[str, Any]
    notes: dict[str, Any]


def propose(space: SearchSpace, ordinal: int, seen: Sequence[Seen], attempt: int = 0) -> Proposal:
    """The configuration number `ordinal`, given what is known of earlier ones, in ordinal order.

    `attempt` counts from 0 the proposals that were refused for this ordinal: each has a seed of its own.
    """
    sampler = space.sampler
    if attempt >= MODEL_ATTEMPTS or (attempt and sampler.name == "qmc"):
        # A model that insists on what is refused would be asked for ever; a sequence has one point for an ordinal.
        return Proposal(space.sample(np.random.default_rng(seed_of(space.seed, ordinal, attempt))), {})
    if sampler.name == "qmc":
        points = qmc.Sobol(len(space.parameters), scramble=True, rng=np.random.default_rng(space.seed))
        # A power of two, or the sequence loses its balance; the points before ours are the other configurations'.
        quantiles = dict(zip((p.name for p in space.parameters), points.random(1 << max(ordinal, 1).bit_length())[ordinal], strict=True))
        return Proposal(space.walk(lambda parameter: parameter.at(float(quantiles[parameter.name]))), {})
    with quiet():
        study = optuna.create_study(
            directions=["maximize"] * len(space.objectives), sampler=build_sampler(sampler, seed_of(space.seed, ordinal, attempt))
        )
        study.add_trials([t for t in (frozen(space, s) for s in seen[-sampler.history :]) if t is not None])
        trial = study.ask()
        overrides = space.ask(trial)
        return Proposal(overrides, dict(study.get_trials(deepcopy=False)[-1].system_attrs))


def build_sampler(config: SamplerConfig, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of that name, ready for conditional spaces and for several trials at once."""
    match config.name:
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=config.startup, multivariate=True, group=True, constant_liar=True)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=config.startup)
        case "nsga3":
            return optuna.samplers.NSGAIIISampler(seed=seed, population_size=config.startup)
        case "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=config.startup, deterministic_objective=False)
        case "random" | "qmc":
            return optuna.samplers.RandomSampler(seed=seed)


def frozen(space: SearchSpace, seen: Seen) -> FrozenTrial | None:
    """An earlier configuration as the sampler is shown it, or None where the policy hides it.

    Policy `by_rung`: every rung that a trial falls short of full length costs 1 in each objective. Accuracies lie in [0, 1], so any
    trial that went further dominates it, trials of one rung keep their order, and no value of one fidelity passes for another's.
    """
    distributions = {p.name: p.distribution for p in space.parameters if p.name in seen.params}
    if seen.state == "running":
        return optuna.trial.create_trial(state=TrialState.RUNNING, params=seen.params, distributions=distributions, system_attrs=seen.notes)
    if seen.rungs_short and space.sampler.stopped == "ignored":
        return None
    values = [v - seen.rungs_short for v in seen.values]
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE, values=values, params=seen.params, distributions=distributions, system_attrs=seen.notes
    )


def seed_of(seed: int, ordinal: int, attempt: int = 0) -> int:
    """The seed of one ask: of 31 bits, as Optuna wants it."""
    text = f"{seed} {ordinal}" + (f" {attempt}" if attempt else "")
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


class quiet:  # noqa: N801 - used as a verb
    """Optuna's own notices are for people who call it; here the user meets ours."""

    def __enter__(self) -> None:
        self._level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)

    def __exit__(self, *error: object) -> None:
        self._warnings.__exit__(None, None, None)
        optuna.logging.set_verbosity(self._level)

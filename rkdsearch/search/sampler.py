"""Who proposes: an Optuna sampler by ask and tell, without Ray and without a storage of its own.

Each ask builds the sampler afresh from (study seed, the configuration's ordinal) and shows it a
study projected from our own ledger, in ordinal order. So a proposal is a function of what the
ledger holds: a search that was killed and resumed proposes what an uninterrupted one would have
proposed. RUNNING means executing now; a trial that the scheduler stopped is never shown as a
finished one.
"""

import copy
import hashlib
import warnings
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import qmc
from typing_extensions import override

from rkdsearch.space.settings import SamplerConfig
from rkdsearch.space.space import SearchSpace

MODEL_ATTEMPTS = 20  # refused proposals after which the configuration is drawn at random
_SOMETIME = datetime.fromtimestamp(0, UTC)  # Optuna wants to know when; no sampler looks


@dataclass(frozen=True)
class Observation:
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


def remembered(seen: Sequence[Observation], room: int) -> list[Observation]:
    """At most `room` of what is known, in the same order.

    Where there is more: what went farthest, the latest first, for half of the room; and the latest
    of the rest.
    """
    if len(seen) <= room:
        return list(seen)
    latest_first = range(len(seen) - 1, -1, -1)
    farthest = sorted(
        latest_first, key=lambda i: (seen[i].state != "measured", seen[i].rungs_short)
    )[: room // 2]
    kept = set(farthest)
    kept |= set([i for i in latest_first if i not in kept][: room - len(kept)])
    return [seen[i] for i in sorted(kept)]


def propose(
    space: SearchSpace,
    ordinal: int,
    seen: Sequence[Observation],
    attempt: int = 0,
    refused: Sequence[Mapping[str, Any]] = (),
) -> Proposal:
    """The configuration number `ordinal`, given what is known of earlier ones, in ordinal order.

    `attempt` counts from 0 the proposals that were refused for this ordinal: each has a seed of its
    own. `refused` are overrides that nobody may train, the latest last: a model is shown them below
    whatever was measured, or it would insist.
    """
    sampler = space.sampler
    if attempt >= MODEL_ATTEMPTS or (attempt and sampler.name == "qmc"):
        # A model that insists on what is refused would be asked for ever; a sequence has one point
        # for an ordinal.
        return Proposal(
            space.sample(np.random.default_rng(seed_of(space.seed, ordinal, attempt))), {}
        )
    if sampler.name == "qmc":
        points = qmc.Sobol(
            len(space.parameters), scramble=True, rng=np.random.default_rng(space.seed)
        )
        # A power of two, or the sequence loses its balance; the points before ours are the other
        # configurations'.
        quantiles = dict(
            zip(
                (p.name for p in space.parameters),
                points.random(1 << max(ordinal, 1).bit_length())[ordinal],
                strict=True,
            )
        )
        return Proposal(
            space.walk(lambda parameter: parameter.at(float(quantiles[parameter.name]))), {}
        )
    shown = [
        s
        for s in seen[-sampler.history :]
        if s.state == "running" or not s.rungs_short or sampler.stopped != "ignored"
    ]
    with quiet():
        study = optuna.create_study(
            storage=_Projection(space, [*shown, *_turned_away(space, shown, refused)]),
            directions=["maximize"] * len(space.objectives),
            sampler=build_sampler(sampler, seed_of(space.seed, ordinal, attempt)),
        )
        trial = study.ask()
        overrides = space.ask(trial)
        return Proposal(overrides, dict(study.get_trials(deepcopy=False)[-1].system_attrs))


def _turned_away(
    space: SearchSpace, shown: Sequence[Observation], refused: Sequence[Mapping[str, Any]]
) -> list[Observation]:
    """What was refused, as the sampler is shown it: never more than was measured, or some of it would count among the best."""
    measured = sum(s.state == "measured" for s in shown)
    if measured < space.sampler.startup:
        return []  # nothing is modelled yet
    return [
        Observation(
            dict(overrides), "measured", (-float(len(space.ladder)),) * len(space.objectives)
        )
        for overrides in refused[-measured:]
    ]


def build_sampler(config: SamplerConfig, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of that name, ready for conditional spaces and for several trials at once."""
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
        case "random" | "qmc":
            return optuna.samplers.RandomSampler(seed=seed)


class _Projection(optuna.storages.InMemoryStorage):
    """What the ledger holds, as Optuna reads it, and the one trial that is asked about, which is number 0 to the base class.

    `Study.add_trials` would copy and check every earlier trial at every ask: ten times the work of
    the sampler itself.
    """

    def __init__(self, space: SearchSpace, shown: Sequence[Observation]) -> None:
        super().__init__()
        self._shown = [frozen(space, s, number) for number, s in enumerate(shown)]

    @override
    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        asked = super().create_new_trial(study_id, template_trial)
        self.get_trial(asked).number = len(self._shown)
        return asked

    @override
    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = [*self._shown, *super().get_all_trials(study_id, deepcopy=False)]
        trials = trials if states is None else [t for t in trials if t.state in states]
        return copy.deepcopy(trials) if deepcopy else trials


class _Unconstrained(FrozenTrial):
    """TPE asks each trial for each group of parameters whether it broke a constraint: a tenth of a proposal went into reading attributes."""

    constraints: dict[str, float] = {}  # noqa: RUF012 - nobody writes to it; Optuna has a property here


def frozen(space: SearchSpace, seen: Observation, number: int) -> FrozenTrial:
    """An earlier configuration as the sampler is shown it, as its study's trial `number`.

    Policy `by_rung`: every rung that a trial falls short of full length costs 1 in each objective.
    Accuracies lie in [0, 1], so any trial that went further dominates it, trials of one rung keep
    their order, and no value of one fidelity passes for another's.
    """
    running = seen.state == "running"
    return _Unconstrained(
        trial_id=number + 1,  # 0 is asked about
        number=number,
        state=TrialState.RUNNING if running else TrialState.COMPLETE,
        params=seen.params,
        distributions={p.name: p.distribution for p in space.parameters if p.name in seen.params},
        value=None,
        values=None if running else [v - seen.rungs_short for v in seen.values],
        system_attrs=seen.notes,
        user_attrs={},
        intermediate_values={},
        datetime_start=_SOMETIME,
        datetime_complete=None if running else _SOMETIME,
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

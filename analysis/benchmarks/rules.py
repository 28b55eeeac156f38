"""The rules that are compared: ours by its settings, and others' as they really are."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from curves import CAP, EPOCHS, Ladder
from numpy.typing import NDArray
from simulation import Rule, Trial, reached

from rkdsearch.config.fidelity import Fidelity
from rkdsearch.results import pareto
from rkdsearch.results.states import Decision
from rkdsearch.search.history import select_history
from rkdsearch.search.sampler import Observation, propose
from rkdsearch.search.scheduler import Scheduler
from rkdsearch.space.ladder import starting_rung
from rkdsearch.space.settings import SamplerConfig, SchedulerConfig
from rkdsearch.space.space import SearchSpace

REDUCTION = 3  # of others' rules
FULL: Ladder = (Fidelity(epochs=EPOCHS),)
LENGTH: Ladder = (Fidelity(epochs=6), Fidelity(epochs=18), *FULL)
WHOLE: Ladder = (
    Fidelity(epochs=6, training_attack_steps=CAP),
    Fidelity(epochs=18, training_attack_steps=CAP),
    *FULL,
)
LOWER: Ladder = (Fidelity(epochs=2, training_attack_steps=CAP), *WHOLE)


class Ours:
    """rkdsearch's sampler and scheduler, driven as `rkdsearch.search.study.Study` drives them.

    All settings are the space's.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.afresh = space.scheduler.capped == "afresh"
        self._scheduler = Scheduler(
            tuple(rung.epochs for rung in space.rungs), space.scheduler, space.objectives
        )

    def climbs(self, ordinal: int) -> Ladder:
        """The ladder, from the rung of its bracket."""
        return self.space.ladder[starting_rung(self.space.scheduler, ordinal) :]

    def propose(
        self, ordinal: int, trials: Sequence[Trial]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Propose by the space's sampler, which is told what `Study.observations` would tell it."""
        # random proposals are the same whatever the sampler is told, so it is told nothing
        observations = (
            []
            if self.space.sampler.name == "random"
            else [o for o in map(self._observation, trials) if o is not None]
        )
        proposal = propose(
            self.space, ordinal, select_history(observations, self.space.sampler.history)
        )
        return proposal.hyperparameters, proposal.notes

    def _observation(self, trial: Trial) -> Observation | None:
        if trial.rung >= 0:
            values = reached(trial, afresh=self.afresh)
            return Observation(
                trial.overrides, values, len(trial.ladder) - 1 - trial.rung, trial.notes
            )
        return Observation(trial.overrides, notes=trial.notes) if trial.executing else None

    def continues(self, trial: Trial, values: tuple[float, float]) -> bool:
        """As the rungs decide."""
        rung = self._scheduler.at(trial.ladder[trial.rung].epochs)
        if rung is None:  # the scheduler `none` has no rungs
            return True
        self._scheduler.record(rung, str(trial.ordinal), values)
        return self._scheduler.decide(rung, str(trial.ordinal)) == Decision.CONTINUED

    def promoted(self) -> int | None:
        """The best of the highest rung that has one."""
        found = self._scheduler.next_promotion()
        if found is None:
            return None
        found.rung.promoted.add(found.trial_id)
        return int(found.trial_id)

    def ended(self, trial: Trial, values: tuple[float, float]) -> None:
        """Nothing: the trials are the memory."""


class Stock:
    """Ray Tune's OptunaSearch and ASHAScheduler's bracket: the real classes, without a cluster.

    OptunaSearch has two objectives and its defaults; the bracket takes the mean of both.

    A trial that ASHA stopped is told COMPLETE with its last values, as Tune tells it. It reports
    the best epoch so far, as ours do.
    """

    def __init__(self, space: SearchSpace) -> None:
        from ray.tune.schedulers.async_hyperband import _Bracket
        from ray.tune.search.optuna import OptunaSearch

        quiet()
        self.afresh = True
        self._space = space
        names = list(space.objectives)
        self._searcher = OptunaSearch(
            self._ask, metric=names, mode=["max"] * len(names), seed=space.seed
        )
        self._bracket = _Bracket(LENGTH[0].epochs, EPOCHS, REDUCTION, 0)

    def climbs(self, ordinal: int) -> Ladder:  # noqa: ARG002 - one ladder for all
        """Length alone."""
        return LENGTH

    def _ask(self, trial: Any) -> None:
        self._last = self._space.ask(trial)

    def propose(
        self,
        ordinal: int,
        trials: Sequence[Trial],  # noqa: ARG002 - it remembers by itself
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """TPE with Optuna's defaults."""
        self._searcher.suggest(str(ordinal))
        return self._last, {}

    def continues(self, trial: Trial, values: tuple[float, float]) -> bool:
        """True where the mean is at least the rung's upper third so far."""
        named: Any = _Named(str(trial.ordinal))
        return bool(
            self._bracket.on_result(named, LENGTH[trial.rung].epochs, float(np.mean(values)))
            == "CONTINUE"
        )

    def promoted(self) -> None:
        """Nobody: Ray's ASHA only stops."""

    def ended(self, trial: Trial, values: tuple[float, float]) -> None:
        """COMPLETE, whatever the length."""
        self._searcher.on_trial_complete(
            str(trial.ordinal), dict(zip(self._space.objectives, values, strict=True))
        )


@dataclass(frozen=True)
class _Named:
    trial_id: str


class SyneTune:
    """Syne Tune's MOASHA as published: random proposals, promoted by priority.

    A new trial is kept if its priority is among the best third of its rung.

    Its default priority (d9970f2) is a sorted list of indices, which the bracket reads as if it
    were a list of ranks.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.afresh = True
        self._random = Ours(replace(space, sampler=SamplerConfig(name="random"), ladder=FULL))
        self._recorded: list[list[tuple[float, float]]] = [[] for _ in LENGTH]

    def climbs(self, ordinal: int) -> Ladder:  # noqa: ARG002 - one ladder for all
        """Length alone."""
        return LENGTH

    def propose(
        self, ordinal: int, trials: Sequence[Trial]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """At random."""
        return self._random.propose(ordinal, trials)

    def continues(self, trial: Trial, values: tuple[float, float]) -> bool:
        """By the published priority."""
        known = self._recorded[trial.rung]
        known.append(values)
        return bool(published_priorities(np.array(known))[-1] / len(known) <= 1 / REDUCTION)

    def promoted(self) -> None:
        """Nobody: it only stops."""

    def ended(self, trial: Trial, values: tuple[float, float]) -> None:
        """Nothing."""


def published_priorities(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Result of Syne Tune's NonDominatedPriority for (N, 2).

    The indices from best to worst, (N,), which the bracket uses as if they were ranks.

    Fronts first; inside a front the best sum, then always the point farthest from those already
    placed (an epsilon-net).
    """
    fronts, order = pareto.ranks(values), list[int]()
    for front in range(int(fronts.max(initial=-1)) + 1):
        rows = np.flatnonzero(fronts == front)
        order.append(int(rows[values[rows].sum(axis=1).argmax()]))
        distance = np.full(len(rows), np.inf)
        for _ in rows[1:]:
            distance = np.minimum(
                distance, np.linalg.norm(values[rows] - values[order[-1]], axis=1)
            )
            distance[rows == order[-1]] = -1
            order.append(int(rows[distance.argmax()]))
    return np.array(order)


def ours(
    ladder: Ladder = WHOLE, sampler: dict[str, Any] | None = None, **scheduler: Any
) -> Callable[[SearchSpace], Rule]:
    """A rule of the package: a ladder, and what differs from its settings' defaults."""
    sampling, scheduling = (
        SamplerConfig.model_validate(sampler or {}),
        SchedulerConfig.model_validate(scheduler),
    )
    return lambda space: Ours(replace(space, sampler=sampling, scheduler=scheduling, ladder=ladder))


AT_RANDOM = {"name": "random"}
RANDOM, STOCK, SYNE_TUNE = "random, full length", "Optuna + ASHA, stock", "Syne Tune's MOASHA"
RULES: dict[str, Callable[[SearchSpace], Rule]] = {
    RANDOM: ours(FULL, AT_RANDOM, name="none"),
    "TPE, full length": ours(FULL, name="none"),
    SYNE_TUNE: SyneTune,
    STOCK: Stock,
    "random, length": ours(LENGTH, AT_RANDOM),
    "random, whole ladder": ours(WHOLE, AT_RANDOM),
    "ours, length": ours(LENGTH),
    "ours, length, stopping": ours(LENGTH, kind="stopping"),
    "ours, whole ladder": ours(WHOLE),
    "ours, whole ladder, continued": ours(WHOLE, capped="continued"),
    "ours, whole ladder from 2 epochs": ours(LOWER),
    "ours, whole ladder, eta 3": ours(WHOLE, reduction=3),
    "ours, whole ladder, 3 brackets": ours(WHOLE, brackets=3),
}
SCHEDULERS_ALONE: dict[str, Callable[[SearchSpace], Rule]] = {
    **{
        name: RULES[name]
        for name in (RANDOM, SYNE_TUNE, STOCK, "random, length", "random, whole ladder")
    },
    "random, length, by the mean": ours(LENGTH, AT_RANDOM, name="asha"),
    "random, length, stopping": ours(LENGTH, AT_RANDOM, kind="stopping"),
    "random, whole ladder from 2 epochs": ours(LOWER, AT_RANDOM),
    "random, whole ladder, eta 3": ours(WHOLE, AT_RANDOM, reduction=3),
    "random, whole ladder, 3 brackets": ours(WHOLE, AT_RANDOM, brackets=3),
    "random, 18 epochs under the cap, eta 8": ours(WHOLE[1:], AT_RANDOM, reduction=8),
}


def quiet() -> None:
    """Optuna's and Ray's notices are for people who call them."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("ray").setLevel(logging.ERROR)

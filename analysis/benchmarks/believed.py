"""Simulated searches that are given baselines: published settings as beliefs, good and bad ones.

Each landscape has two baselines, of two of its three methods. `good`: off by a factor of 1.5 in
half of their numbers; `mediocre`: by 3; `wrong`: in the wrong half of each range; `adversarial`: at
the worst end, trained against an attack of two steps. All rules train both to full length first.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from curves import EPOCHS, Ladder, Simulated, cost_of, number_of
from rules import WHOLE, Ours
from scipy.stats import norm
from simulation import Rule, Trial, reached
from typing_extensions import override

from rkdsearch.config import TrainConfig
from rkdsearch.results.beliefs import NOTE
from rkdsearch.results.states import Origin, Status
from rkdsearch.search import beliefs
from rkdsearch.search.history import select_history
from rkdsearch.search.sampler import Observation, Proposal, propose
from rkdsearch.space.parameter import Parameter
from rkdsearch.space.settings import SamplerConfig, SchedulerConfig
from rkdsearch.space.space import SearchSpace

Kind = Literal["good", "mediocre", "wrong", "adversarial"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Overrides = dict[str, Any]


@dataclass(frozen=True)
class Believed(Simulated):
    """A simulated landscape with two published settings."""

    kind: Kind = "good"

    def published(self) -> list[Overrides]:
        """The two baselines."""
        rng = np.random.default_rng(number_of(self.seed, f"beliefs {self.kind}"))
        methods = rng.permutation(["rslad", "iad", "trades"])[:2]
        return [self._setting(str(method), rng) for method in methods]

    def _setting(self, method: str, rng: np.random.Generator) -> Overrides:
        best = self._optimum
        adversarial = self.kind == "adversarial"
        found: Overrides = {
            "method.name": method,
            "attack.eps": 0.06 if adversarial else 0.15,
            "attack.steps": 2 if adversarial else 10,
        }
        if method == "rslad":
            found["method.adversarial_weight"] = 5 / 6
        numbers = {
            "optimizer.lr": best[f"lr {method}"],
            "optimizer.weight_decay": best["weight_decay"],
        }
        if method != "trades":
            numbers["method.temperature"] = best["temperature"]
        ranges = {p.name: p.ends() for p in self.space.parameters}
        off = rng.permutation(len(numbers)) < (len(numbers) + 1) // 2
        for (name, optimum), is_off in zip(numbers.items(), off, strict=True):
            low, high = (math.log(end) for end in ranges[name])
            place = optimum
            match self.kind:
                case "good" | "mediocre":
                    by = is_off * math.log(1.5 if self.kind == "good" else 3) * rng.choice([-1, 1])
                    inside = low <= optimum + by <= high
                    place = min(max(optimum + by if inside else optimum - by, low), high)
                case "wrong":
                    lower = optimum < (low + high) / 2
                    place = low + (high - low) * (
                        rng.uniform(0.5, 1) if lower else rng.uniform(0, 0.5)
                    )
                case "adversarial":
                    place = high if optimum < (low + high) / 2 else low
            found[name] = min(max(math.exp(place), ranges[name][0]), ranges[name][1])
        return found

    def own_cost(self) -> float:
        """Cost of both baselines, in full runs: what `uncharged` leaves out."""
        return sum(cost_of(0, EPOCHS, int(one["attack.steps"])) for one in self.published())


@dataclass
class Asked:
    """The part of a trial that `Beliefs` reads."""

    ordinal: int
    origin: Origin
    config: TrainConfig | None = None
    label: str = ""
    notes: dict[str, Any] = field(default_factory=dict)
    status: Status = Status.FINISHED
    flags: tuple[str, ...] = ()
    best: None = None

    @property
    def trial_id(self) -> str:
        """As `Ours` names it for the scheduler."""
        return str(self.ordinal)


class Given(Ours):
    """Our search with baselines: told of them at full length, and no beliefs."""

    def __init__(self, space: SearchSpace, published: Sequence[Overrides]) -> None:
        super().__init__(space)
        self.published = published
        self.trials: Sequence[Trial] = ()

    @override
    def propose(self, ordinal: int, trials: Sequence[Trial]) -> tuple[Overrides, dict[str, Any]]:
        """The baselines first."""
        self.trials = trials
        if ordinal < len(self.published):
            return dict(self.published[ordinal]), {}
        return self.next(ordinal, trials)

    def next(self, ordinal: int, trials: Sequence[Trial]) -> tuple[Overrides, dict[str, Any]]:
        """A proposal after the baselines."""
        return self.modelled(ordinal, trials)

    def modelled(self, ordinal: int, trials: Sequence[Trial]) -> tuple[Overrides, dict[str, Any]]:
        """The sampler's own proposal."""
        return super().propose(ordinal, trials)

    @override
    def continues(self, trial: Trial, values: tuple[float, float]) -> bool:
        """Baselines always do; they stand on the rungs beside the others."""
        if trial.ordinal >= len(self.published):
            return super().continues(trial, values)
        rung = self._scheduler.at(trial.ladder[trial.rung].epochs)
        assert rung is not None, "the ladder has rungs"
        self._scheduler.record(rung, str(trial.ordinal), values)
        rung.promoted.add(str(trial.ordinal))
        return True


class Believing(Given):
    """The package's beliefs (`rkdsearch/search/beliefs.py`), driven as `Study` drives them.

    With `all_steps` their proposals have as many attack steps as published.
    """

    def __init__(
        self, space: SearchSpace, published: Sequence[Overrides], *, all_steps: bool = False
    ) -> None:
        super().__init__(space, published)
        self._beliefs = beliefs.Beliefs(space, self._scheduler)
        self._all_steps = all_steps
        self._asked: list[Any] = [
            Asked(number, Origin.BASELINE, space.config(one), f"baseline {number}")
            for number, one in enumerate(published)
        ]

    @override
    def climbs(self, ordinal: int) -> Ladder:
        """Near a baseline, to full length at once."""
        ladder = super().climbs(ordinal)
        return ladder[-1:] if ordinal < len(self._asked) and self._asked[ordinal].notes else ladder

    @override
    def next(self, ordinal: int, trials: Sequence[Trial]) -> tuple[Overrides, dict[str, Any]]:
        """Near a baseline that is believed, or the model's."""
        asked = Asked(ordinal, Origin.SEARCH)
        given, searched = self._asked[: len(self.published)], self._asked[len(self.published) :]
        near = [one.notes.get(NOTE, beliefs.NOWHERE) for one in searched]
        baseline = self._beliefs.choose(given, near, None)
        if baseline is None:
            overrides, notes = self.modelled(ordinal, trials)
        else:
            proposal = self.near(baseline, ordinal, beliefs.number_of(near))
            overrides, notes = proposal.hyperparameters, {}
            asked.notes = proposal.notes
            if self._all_steps:
                overrides["attack.steps"] = self.published[baseline.ordinal]["attack.steps"]
        self._asked.append(asked)
        return overrides, notes

    def near(self, baseline: Any, ordinal: int, number: int) -> Proposal:
        """A proposal near this baseline."""
        return self._beliefs.near(baseline, ordinal, 0, number)

    @override
    def _observation(self, trial: Trial) -> Observation | None:
        refuted = self._beliefs.refuted(self._asked[: len(self.published)])
        if str(trial.ordinal) in refuted and trial.rung > 0:
            trial = replace(trial, rung=0)
        return super()._observation(trial)


class PriorBand(Given):
    """PriorBand's mixture (Mallik et al., 2023) over our rungs, in place of Hyperband's.

    Half of the proposals are random; the others come from the baselines (a normal distribution of
    a quarter of each range) or from around the incumbent, by how likely the best trials of the
    highest rung with `reduction` of them are under each.
    """

    WIDTH = 0.25

    @override
    def next(self, ordinal: int, trials: Sequence[Trial]) -> tuple[Overrides, dict[str, Any]]:
        """From one of the three."""
        rng = np.random.default_rng([self.space.seed, ordinal])
        if rng.random() < 0.5:
            return self.space.sample(rng), {}
        best = self._best(trials)
        prior = sum(self._likelihood(t.overrides, self.published) for t in best)
        around = (
            sum(self._likelihood(t.overrides, [best[0].overrides]) for t in best) if best else 0
        )
        if best and rng.random() < around / max(prior + around, 1e-12):
            changed = rng.random() < 0.5
            return self._near(best[0].overrides, rng, self.WIDTH if changed else 0.05), {}
        given = self.published[int(rng.integers(len(self.published)))]
        return self._near(given, rng, self.WIDTH), {}

    def _best(self, trials: Sequence[Trial]) -> list[Trial]:
        eta = self.space.scheduler.reduction
        for rung in reversed(range(len(self.space.ladder))):
            there = [
                t for t in trials if t.rung >= rung and len(t.ladder) == len(self.space.ladder)
            ]
            if len(there) >= eta:
                there.sort(key=lambda t: -sum(reached(t, afresh=self.afresh)))
                return there[:eta]
        return []

    def _near(self, given: Overrides, rng: np.random.Generator, width: float) -> Overrides:
        return self.space.walk(lambda p: near(p, given.get(p.name), rng, width))

    def _likelihood(self, values: Overrides, given: Sequence[Overrides]) -> float:
        return float(np.mean([likelihood(self.space, values, one, self.WIDTH) for one in given]))


class PiBO(Given):
    """TPE with its proposals weighted by the baselines' density to the power beta / n (piBO).

    Optuna's TPE has no acquisition function to weight: of `CANDIDATES` proposals one is drawn.
    """

    BETA, CANDIDATES, WIDTH = 10.0, 8, 0.25

    @override
    def next(self, ordinal: int, trials: Sequence[Trial]) -> tuple[Overrides, dict[str, Any]]:
        """The candidate that the baselines make likely, the less the more is known."""
        rng = np.random.default_rng([self.space.seed, ordinal])
        seen = [o for o in map(self._observation, trials) if o is not None]
        told = select_history(seen, self.space.sampler.history)
        found = [
            propose(self.space, ordinal, told, attempt).hyperparameters
            for attempt in range(self.CANDIDATES)
        ]
        densities = np.array(
            [
                np.mean([likelihood(self.space, one, p, self.WIDTH) for p in self.published])
                for one in found
            ]
        )
        weights = (densities + 1e-9) ** (self.BETA / max(1, len(trials)))
        return found[int(rng.choice(len(found), p=weights / weights.sum()))], {}


class PriMO(Given):
    """PriMO's scheme (Basu, Hutter and Stoll, 2025): MOASHA first, then a model with a prior.

    Random proposals on the rungs until `FIRST` searched trials have full length. Then to full
    length at once: a Gaussian process on a random weighting of both objectives, its expected
    improvement times the baselines' density to the power beta / n, without the density with
    probability epsilon. The baselines stand for both objectives' priors.
    """

    FIRST, BETA, EPSILON, CANDIDATES, WIDTH = 5, 10.0, 0.25, 256, 0.25

    @override
    def climbs(self, ordinal: int) -> Ladder:
        """The rungs first, later full length."""
        ladder = super().climbs(ordinal)
        later = ordinal >= len(self.published) and self._full(self.trials) >= self.FIRST
        return ladder[-1:] if later else ladder

    def _full(self, trials: Sequence[Trial]) -> int:
        return sum(t.rung == len(t.ladder) - 1 for t in trials[len(self.published) :])

    @override
    def next(self, ordinal: int, trials: Sequence[Trial]) -> tuple[Overrides, dict[str, Any]]:
        """At random, then by the model."""
        rng = np.random.default_rng([self.space.seed, ordinal])
        full = [t for t in trials if t.rung == len(t.ladder) - 1]
        if self._full(trials) < self.FIRST:
            return self.space.sample(rng), {}
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import Matern, WhiteKernel

        weight = rng.random()
        y = np.array([np.dot((weight, 1 - weight), reached(t, afresh=self.afresh)) for t in full])
        x = np.array([self._point(t.overrides) for t in full])
        kernel = Matern(0.5 * np.ones(x.shape[1]), (0.05, 10), nu=2.5) + WhiteKernel(0.01)
        model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
        with warnings.catch_warnings(action="ignore"):  # a length scale at its bound
            model.fit(x, y)
        near_one = [
            self.space.walk(lambda p, one=one: near(p, one.get(p.name), rng, self.WIDTH))  # type: ignore[misc]
            for one in self.published
            for _ in range(self.CANDIDATES // 4)
        ]
        found = near_one + [self.space.sample(rng) for _ in range(self.CANDIDATES // 2)]
        mean, sd = model.predict(np.array([self._point(one) for one in found]), return_std=True)
        z = (mean - y.max()) / np.maximum(sd, 1e-9)
        gain = sd * (z * norm.cdf(z) + norm.pdf(z))
        if rng.random() >= self.EPSILON:
            prior = np.array(
                [
                    np.mean([likelihood(self.space, one, p, self.WIDTH) for p in self.published])
                    for one in found
                ]
            )
            gain = gain * (prior + 1e-9) ** (self.BETA / len(full))
        return found[int(gain.argmax())], {}

    def _point(self, values: Overrides) -> list[float]:
        """Quantiles, and a place for each choice of the method; 0.5 where nothing is searched."""
        methods = next(p for p in self.space.parameters if p.name == "method.name").ends()
        return [
            *(float(values["method.name"] == m) for m in methods),
            *(
                p.quantile(values[p.name]) if p.name in values else 0.5
                for p in self.space.parameters
                if p.name != "method.name"
            ),
        ]


def near(parameter: Parameter, value: Any, rng: np.random.Generator, width: float) -> Any:
    """A value near another, where there is one; a choice is mostly kept."""
    return parameter.draw(rng) if value is None else parameter.near(value, width, rng, kept=0.75)


def likelihood(
    space: SearchSpace, values: Overrides, given: Mapping[str, Any], width: float
) -> float:
    """Density of `values` around a setting, up to a factor: another method's has none."""
    found = 1.0
    for p in space.parameters:
        if p.name not in values or p.name not in given:
            continue
        if hasattr(p.distribution, "low"):
            found *= norm.pdf(p.quantile(values[p.name]), p.quantile(given[p.name]), width) * width
        elif p.name == "method.name":
            found *= values[p.name] == given[p.name]
        else:
            found *= 1.0 if values[p.name] == given[p.name] else 0.25
    return float(found)


def rules() -> Mapping[str, Callable[[SearchSpace, Sequence[Overrides]], Rule]]:
    """Rules that are given the baselines, by name."""

    def ours(**sampler: Any) -> Callable[[SearchSpace], SearchSpace]:
        return lambda space: replace(
            space, sampler=SamplerConfig(**sampler), scheduler=SchedulerConfig(), ladder=WHOLE
        )

    told = ours()
    return {
        "told of the baselines alone": lambda s, p: Given(told(s), p),
        "PriorBand's mixture": lambda s, p: PriorBand(told(s), p),
        "TPE weighted as by piBO": lambda s, p: PiBO(told(s), p),
        "PriMO's scheme": lambda s, p: PriMO(told(s), p),
        "beliefs, low": lambda s, p: Believing(ours(beliefs="low")(s), p),
        "beliefs, medium": lambda s, p: Believing(ours(beliefs="medium")(s), p),
        "beliefs, high": lambda s, p: Believing(ours(beliefs="high")(s), p),
        "beliefs, high, all attack steps": lambda s, p: Believing(
            ours(beliefs="high")(s), p, all_steps=True
        ),
    }

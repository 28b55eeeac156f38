"""How much sooner our search finds the front than random search does, and than Optuna + ASHA as Ray Tune runs them.

Every rule meets the same landscapes (`curves.py`), with two workers, and is charged for what it trains and validates. A search's worth is the
hypervolume above (0, 0) of what its full-length trials would deliver: their true values, without seed and exam noise. Two kinds of search:
`long`, as many configurations as a budget of full runs pays for; and `short`, 24 configurations. The bar in each is the hypervolume
that random full-length search ends with in that landscape, a mean over five such searches; "to the bar" is the share of random search's compute
after which a rule has reached it: the median over seeds, and its 95 % interval by order statistics ("never" where it was not reached).

    python analysis/benchmarks/search.py [--quick] [--seeds 100] [--budget 30] [--shapes [bulging straight]] [--rules ...] [--processes 2]
    python analysis/benchmarks/search.py --record 100 [--minutes 12] [--study runs/search_benchmark]     adds to the recorded table
    python analysis/benchmarks/search.py --latency                                                       only the searcher's and scheduler's time

`--quick` has 30 seeds and a budget of 20 full runs, else 100 and 30. The table of recorded digits runs is replayed too, where it exists; it
compares schedulers alone, for nobody can propose what was not recorded.
"""

import argparse
import heapq
import itertools
import json
import logging
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from curves import EPOCHS, RUNGS, SHAPES, Curve, Landscape, Recorded, Simulated, read, simulated_space
from numpy.typing import NDArray
from scipy.stats import binom

from rkdsearch.results import pareto
from rkdsearch.search.scheduler import Rungs, by_non_domination
from rkdsearch.search.searcher import Seen, propose
from rkdsearch.search.settings import SamplerConfig, SchedulerConfig
from rkdsearch.search.space import SearchSpace

TABLE = Path(__file__).parent / "data" / "digits_runs.parquet"
DIGITS = Path(__file__).parents[2] / "search_spaces" / "digits.yaml"
SHORT, WORKERS, REDUCTION = 24, 2, 3
RANDOM_SEARCHES = 5  # whose mean end is the bar
RECORDED_ORDERS = 30

# ----------------------------------------------------------------------------------------------------------------- the rules


@dataclass
class Trial:
    """A configuration in a simulated search. `rung` is the index of the highest rung that it has reached, -1 before the first."""

    ordinal: int
    overrides: dict[str, Any]
    curve: Curve
    notes: dict[str, Any] = field(default_factory=dict)
    rung: int = -1
    executing: bool = True


class Rule(Protocol):
    """Who proposes and who goes on."""

    def propose(self, ordinal: int, trials: Sequence[Trial]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Overrides of the next configuration, and notes to keep with it."""

    def goes_on(self, trial: Trial, values: tuple[float, float]) -> bool:
        """Whether a trial that has just reached the rung before full length `trial.rung` runs on at once."""

    def promoted(self) -> tuple[int, int] | None:
        """Ordinal and rung of a paused trial that goes on now."""

    def ended(self, trial: Trial, values: tuple[float, float]) -> None:
        """The trial is over, by full length or by the rule's own decision; these were its last values."""


class Ours:
    """rkdsearch's own searcher and scheduler, driven as `rkdsearch.search.study.Study` drives them."""

    def __init__(self, space: SearchSpace, seed: int, sampler: SamplerConfig, scheduler: SchedulerConfig) -> None:
        self.space = replace(space, seed=seed, sampler=sampler, scheduler=scheduler)
        self._rungs = Rungs(RUNGS[:-1], scheduler, space.objectives)

    def propose(self, ordinal: int, trials: Sequence[Trial]) -> tuple[dict[str, Any], dict[str, Any]]:
        """By the sampler of that name, shown what `Study.seen` would show it."""
        # Random proposals are the same whatever they are shown; showing it would cost time and change nothing.
        seen = [] if self.space.sampler.name == "random" else [s for s in map(self._seen, trials) if s is not None]
        proposal = propose(self.space, ordinal, seen)
        return proposal.overrides, proposal.notes

    def _seen(self, trial: Trial) -> Seen | None:
        if trial.rung >= 0:
            values = trial.curve.values_at(RUNGS[trial.rung])
            return Seen(trial.overrides, "measured", values, len(RUNGS) - 1 - trial.rung, trial.notes)
        return Seen(trial.overrides, "running", notes=trial.notes) if trial.executing else None

    def goes_on(self, trial: Trial, values: tuple[float, float]) -> bool:
        """As the rungs decide."""
        rung = self._rungs.at(RUNGS[trial.rung])
        if rung is None:  # the scheduler `none` has no rungs
            return True
        self._rungs.record(rung, str(trial.ordinal), values)
        return self._rungs.goes_on(rung, str(trial.ordinal))

    def promoted(self) -> tuple[int, int] | None:
        """The best of the highest rung that has one."""
        found = self._rungs.promotable()
        if found is None:
            return None
        trial_id, rung = found
        rung.gone_on.add(trial_id)
        return int(trial_id), RUNGS.index(rung.epochs)

    def ended(self, trial: Trial, values: tuple[float, float]) -> None:
        """Nothing: the trials are the memory."""


class Stock:
    """Ray Tune's OptunaSearch (two objectives, its defaults) and ASHAScheduler's bracket on the mean of both: the real classes, no cluster.

    A trial that ASHA stopped is told COMPLETE with its last values, as Tune tells it. It reports the best epoch so far, as ours do.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        from ray.tune.schedulers.async_hyperband import _Bracket
        from ray.tune.search.optuna import OptunaSearch

        quiet()
        self._space, self._asked = space, dict[str, dict[str, Any]]()
        names = list(space.objectives)
        self._searcher = OptunaSearch(self._ask, metric=names, mode=["max"] * len(names), seed=seed)
        self._bracket = _Bracket(RUNGS[0], EPOCHS, REDUCTION, 0)

    def _ask(self, trial: Any) -> None:
        self._last = self._space.ask(trial)

    def propose(self, ordinal: int, trials: Sequence[Trial]) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ARG002 - it remembers by itself
        """TPE with Optuna's defaults."""
        self._searcher.suggest(str(ordinal))
        return self._last, {}

    def goes_on(self, trial: Trial, values: tuple[float, float]) -> bool:
        """Whether the mean is at least the rung's upper third so far."""
        named: Any = _Named(str(trial.ordinal))
        return bool(self._bracket.on_result(named, RUNGS[trial.rung], float(np.mean(values))) == "CONTINUE")

    def promoted(self) -> None:
        """Nobody: Ray's ASHA only stops."""

    def ended(self, trial: Trial, values: tuple[float, float]) -> None:
        """COMPLETE, whatever the length."""
        self._searcher.on_trial_complete(str(trial.ordinal), dict(zip(self._space.objectives, values, strict=True)))


@dataclass(frozen=True)
class _Named:
    trial_id: str


class SyneTune:
    """Syne Tune's MOASHA as published: random proposals; a newcomer is kept if its priority is among the best third of its rung.

    Its default priority (d9970f2) is a sorted list of indices, which the bracket reads as if it were a list of ranks.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._random = Ours(space, seed, SamplerConfig(name="random"), SchedulerConfig(name="none"))
        self._recorded: dict[int, list[tuple[float, float]]] = {rung: [] for rung in RUNGS}

    def propose(self, ordinal: int, trials: Sequence[Trial]) -> tuple[dict[str, Any], dict[str, Any]]:
        """At random."""
        return self._random.propose(ordinal, trials)

    def goes_on(self, trial: Trial, values: tuple[float, float]) -> bool:
        """By the published priority."""
        known = self._recorded[RUNGS[trial.rung]]
        known.append(values)
        return bool(published_priorities(np.array(known))[-1] / len(known) <= 1 / REDUCTION)

    def promoted(self) -> None:
        """Nobody: it only stops."""

    def ended(self, trial: Trial, values: tuple[float, float]) -> None:
        """Nothing."""


def published_priorities(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """What Syne Tune's NonDominatedPriority returns for (N, 2): the indices from best to worst, (N,), used as if they were places."""
    return np.argsort(by_non_domination(values), kind="stable")


def ours(sampler: str, name: str, kind: str = "promotion", stopped: str = "by_rung") -> Callable[[SearchSpace, int], Rule]:
    """A rule of the package, by its settings' names."""
    sampling = SamplerConfig.model_validate({"name": sampler, "stopped": stopped})
    scheduling = SchedulerConfig.model_validate({"name": name, "kind": kind, "reduction": REDUCTION})
    return lambda space, seed: Ours(space, seed, sampling, scheduling)


RANDOM, STOCK, DEFAULT = "random, full length", "Optuna + ASHA, stock", "TPE by_rung + MO-ASHA promotion"
RULES: dict[str, Callable[[SearchSpace, int], Rule]] = {
    RANDOM: ours("random", "none"),
    "TPE, full length": ours("tpe", "none"),
    "Syne Tune's MOASHA": SyneTune,
    STOCK: Stock,
    "random + ASHA promotion": ours("random", "asha"),
    "random + MO-ASHA stopping": ours("random", "moasha", "stopping"),
    "random + MO-ASHA promotion": ours("random", "moasha"),
    "TPE by_rung + MO-ASHA stopping": ours("tpe", "moasha", "stopping"),
    "TPE ignored + MO-ASHA promotion": ours("tpe", "moasha", stopped="ignored"),
    DEFAULT: ours("tpe", "moasha"),  # the package's own default
}
SCHEDULERS_ALONE = [
    RANDOM,
    "Syne Tune's MOASHA",
    STOCK,
    "random + ASHA promotion",
    "random + MO-ASHA stopping",
    "random + MO-ASHA promotion",
]


# --------------------------------------------------------------------------------------------------------------- one search


@dataclass(frozen=True)
class Track:
    """What a search had after each full-length trial: `compute` (T,) in full runs until then, `hypervolume` (T,) after it.

    `configurations` were tried and `spent` (full runs) was used when it ended.
    """

    compute: NDArray[np.float64]
    hypervolume: NDArray[np.float64]
    configurations: int
    spent: float

    def at(self, compute: float) -> float:
        """The hypervolume when so many full runs' compute was spent."""
        index = int(np.searchsorted(self.compute, compute, side="right"))
        return float(self.hypervolume[index - 1]) if index else 0.0

    def reaches(self, hypervolume: float) -> float:
        """The compute after which this hypervolume was there; infinite where it never was."""
        there = np.flatnonzero(self.hypervolume >= hypervolume)
        return float(self.compute[there[0]]) if len(there) else math.inf


class _Search:
    """`WORKERS` workers; compute is what they are busy with, a trial that is cut off at the end included."""

    def __init__(self, landscape: Landscape, rule: Rule, trials: int) -> None:
        self._landscape, self._rule, self._wanted = landscape, rule, trials
        self.trials: list[Trial] = []
        self._busy: list[tuple[float, int, Trial]] = []
        self._order = itertools.count()
        self.now, self.spent = 0.0, 0.0

    def run(self, budget: float) -> Iterator[tuple[float, Trial]]:
        """Each trial that reaches full length, with the compute spent until then."""
        while True:
            while len(self._busy) < WORKERS:
                trial = self._next()
                if trial is None:
                    break
                start = RUNGS[trial.rung] if trial.rung >= 0 else 0
                heapq.heappush(self._busy, (self.now + trial.curve.cost(start, RUNGS[trial.rung + 1]), next(self._order), trial))
            if not self._busy:
                return
            then, _, trial = heapq.heappop(self._busy)
            self.spent += (then - self.now) * (len(self._busy) + 1)
            self.now = then
            if self.spent > budget:
                return
            trial.rung += 1
            if self._arrived(trial):
                yield self.spent, trial

    def _next(self) -> Trial | None:
        promoted = self._rule.promoted()
        if promoted is not None:
            trial = self.trials[promoted[0]]
            trial.executing = True
            return trial
        ordinal = len(self.trials)
        if ordinal >= self._wanted:
            return None
        overrides, notes = self._landscape.given(ordinal), dict[str, Any]()
        if overrides is None:
            overrides, notes = self._rule.propose(ordinal, self.trials)
        elif isinstance(self._rule, Stock):
            self._rule.propose(ordinal, self.trials)
        self.trials.append(Trial(ordinal, overrides, self._landscape.curve(overrides), notes))
        return self.trials[-1]

    def _arrived(self, trial: Trial) -> bool:
        """The trial has reached a rung; returns whether that was full length."""
        values = trial.curve.values_at(RUNGS[trial.rung])
        full = RUNGS[trial.rung] == EPOCHS
        if not full and self._rule.goes_on(trial, values):
            end = self.now + trial.curve.cost(RUNGS[trial.rung], RUNGS[trial.rung + 1])
            heapq.heappush(self._busy, (end, next(self._order), trial))
            return False
        trial.executing = False
        self._rule.ended(trial, values)
        return full


def search(landscape: Landscape, rule: Rule, *, budget: float = math.inf, trials: int = 10**6) -> Track:
    """One search until the compute (full runs) or the configurations are used up."""
    running = _Search(landscape, rule, trials)
    compute: list[float] = []
    points: list[tuple[float, float]] = []
    volumes: list[float] = []
    for spent, trial in running.run(budget):
        points.append(trial.curve.delivers())
        compute.append(spent)
        volumes.append(pareto.hypervolume(points))
    return Track(np.array(compute), np.array(volumes), len(running.trials), min(running.spent, budget))


# -------------------------------------------------------------------------------------------------------------- many searches


@dataclass(frozen=True)
class Task:
    """One rule on one landscape. `kind` is `long`, `short`, or `recorded`; `budget` (full runs) is a long search's."""

    kind: str
    shape: str
    seed: int
    rule: str
    budget: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """Hypervolume at shares of random search's compute, at the end, and the share after which the bar was reached."""

    task: Task
    at: tuple[float, ...]
    end: float
    to_the_bar: float
    spent: float
    configurations: int
    bar: float


SHARES = (0.1, 0.25, 0.5, 1.0)
COUNTS = (100, 1000, 10_000)


def outcome(task: Task) -> Outcome:
    """Run the task's search and hold it against random search in the same landscape."""
    quiet()
    landscape, limits = landscape_of(task)
    bar, cost = _bar(replace(task, rule=RANDOM))
    track = search(landscape, RULES[task.rule](landscape.space, task.seed), **limits)
    at = tuple(track.at(share * cost) for share in SHARES)
    end = float(track.hypervolume[-1]) if len(track.hypervolume) else 0.0
    return Outcome(task, at, end, track.reaches(bar) / cost, track.spent, track.configurations, bar)


def landscape_of(task: Task) -> tuple[Landscape, dict[str, Any]]:
    """Where the task's search takes place, and when it ends."""
    if task.kind == "recorded":
        runs = _table()
        # Random search has half the table; the others may go through all of it for the same compute.
        half = sum(curve.cost(0, EPOCHS) for _, curve in runs) / 2
        return Recorded(_digits(), runs, task.seed), {"budget": half, "trials": len(runs)}
    return Simulated(task.shape, task.seed), {"budget": task.budget} if task.kind == "long" else {"trials": SHORT}


@cache
def _bar(task: Task) -> tuple[float, float]:
    """The hypervolume that random full-length search ends with, and the compute that it takes: means over several."""
    found = []
    for again in range(RANDOM_SEARCHES):
        landscape, limits = landscape_of(task)
        if isinstance(landscape, Recorded):
            landscape = replace(landscape, seed=1000 * (task.seed + 1) + again)
        found.append(search(landscape, RULES[RANDOM](landscape.space, 1000 * (task.seed + 1) + again), **limits))
    return float(np.mean([t.hypervolume[-1] for t in found])), float(np.mean([t.spent for t in found]))


@cache
def _table() -> list[tuple[dict[str, Any], Curve]]:
    return read(TABLE)


@cache
def _digits() -> SearchSpace:
    return SearchSpace.load(DIGITS)


def median_with_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, and the narrowest symmetric pair of order statistics that holds it with 95 %: also right where some values are infinite."""
    ordered = sorted(values)
    n = len(ordered)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    below = int(binom.ppf(0.025, n, 0.5))
    return middle, ordered[max(below - 1, 0)], ordered[min(n - below, n - 1)]


def table(outcomes: Sequence[Outcome], stock: Mapping[int, float]) -> str:
    """A line for each rule. `stock` has the stock pair's end by seed, for the paired difference."""
    lines = [
        f"{'rule':32} "
        + " ".join(f"{f'HV at {s:g}':>9}" for s in SHARES)
        + "      end ± sd       - stock ± se    to the bar [95 %]      reached  runs  tried"
    ]
    for rule in RULES:
        rows = [o for o in outcomes if o.task.rule == rule]
        if not rows:
            continue
        ends = [o.end for o in rows]
        apart = [o.end - stock[o.task.seed] for o in rows if o.task.seed in stock]
        spread = statistics.stdev(apart) / math.sqrt(len(apart)) if len(apart) > 1 else math.nan
        apart_text = f"{statistics.mean(apart):+.4f} ± {spread:.4f}" if apart else ""
        middle, low, high = (_share(v) for v in median_with_interval([o.to_the_bar for o in rows]))
        lines.append(
            f"{rule:32} "
            + " ".join(f"{statistics.median(o.at[i] for o in rows):9.4f}" for i in range(len(SHARES)))
            + f"  {statistics.mean(ends):.4f} ± {statistics.stdev(ends) if len(ends) > 1 else math.nan:.4f}"
            + f"  {apart_text:>17}  {middle:>5} [{low:>5}, {high:>5}]  {sum(math.isfinite(o.to_the_bar) for o in rows):>3}/{len(rows):<3}"
            + f" {statistics.median(o.spent for o in rows):6.1f} {statistics.median(o.configurations for o in rows):6.0f}"
        )
    return "\n".join(lines)


def _share(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "never"


def compare(seeds: int, budget: float, shapes: Sequence[str], rules: Sequence[str], processes: int) -> list[Outcome]:
    """Run and print everything, part by part."""
    parts = [(kind, shape, seeds, list(rules)) for shape in shapes for kind in ("long", "short")]
    if TABLE.exists() and len(read(TABLE)) >= 10:
        parts.append(("recorded", "digits", RECORDED_ORDERS, [r for r in rules if r in SCHEDULERS_ALONE]))
    found: list[Outcome] = []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for kind, shape, count, chosen in parts:
            started = time.perf_counter()
            tasks = [Task(kind, shape, seed, rule, budget) for seed in range(count) for rule in chosen]
            part = list(pool.map(outcome, tasks, chunksize=len(chosen)))  # a chunk shares its landscape's bar
            what = {
                "long": f"{budget:g} full runs of compute",
                "short": f"{SHORT} configurations",
                "recorded": "half of the table's compute, everyone's proposals in the table's order",
            }
            print(f"\n{kind} search, {shape}: {what[kind]}, {count} seeds, bar {statistics.mean(o.bar for o in part):.4f}", end="")
            print(f" ({time.perf_counter() - started:.0f} s)")
            print(table(part, {o.task.seed: o.end for o in part if o.task.rule == STOCK}), flush=True)
            found += part
    return found


# ------------------------------------------------------------------------------------------------------------------- latency


def latency() -> None:
    """Print how long a proposal and a decision take, by the number of trials before it: medians of five, ms of this machine."""
    quiet()
    print("\nms for one proposal or decision, after so many trials")
    print(f"{'':32} " + " ".join(f"{n:>8}" for n in COUNTS))
    trials = [_done(simulated_space(), ordinal) for ordinal in range(max(COUNTS))]
    actions = {f"proposal, {name}": _proposal(trials, name) for name in ("tpe", "nsga2", "random")}
    actions |= {f"decision, MO-ASHA {kind}": _decision(trials, kind) for kind in ("promotion", "stopping")}
    for name, prepare in actions.items():
        print(f"{name:32} " + " ".join(f"{_median_ms(prepare(n)):8.1f}" for n in COUNTS))


def _proposal(trials: Sequence[Trial], sampler: str) -> Callable[[int], Callable[[], object]]:
    rule = Ours(simulated_space(), 0, SamplerConfig.model_validate({"name": sampler}), SchedulerConfig())
    seen = [Seen(t.overrides, "measured", t.curve.values_at(RUNGS[t.rung]), len(RUNGS) - 1 - t.rung) for t in trials]
    return lambda count: lambda: propose(rule.space, count, seen[:count])


def _decision(trials: Sequence[Trial], kind: str) -> Callable[[int], Callable[[], object]]:
    values = [t.curve.values_at(RUNGS[0]) for t in trials]

    def prepare(count: int) -> Callable[[], object]:
        rungs = Rungs(RUNGS[:-1], SchedulerConfig.model_validate({"kind": kind}), simulated_space().objectives)
        first = rungs.rungs[0]
        for ordinal in range(count):
            rungs.record(first, str(ordinal), values[ordinal])

        newcomers = itertools.count(count)

        def decide() -> object:
            trial_id = str(next(newcomers))
            rungs.record(first, trial_id, values[int(trial_id) % len(values)])
            return rungs.goes_on(first, trial_id), rungs.promotable()

        return decide

    return prepare


def _done(space: SearchSpace, ordinal: int) -> Trial:
    overrides = space.sample(np.random.default_rng(ordinal))
    rung = 0 if ordinal % 3 else 1 if ordinal % 9 else 2
    return Trial(ordinal, overrides, Simulated("straight", 0).curve(overrides), rung=rung, executing=False)


def _median_ms(action: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        started = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


# ----------------------------------------------------------------------------------------------------------------- recording


def record(wanted: int, minutes: float, study: Path, file: Path = TABLE) -> int:
    """Add full-length digits runs to the table until it has `wanted` configurations or the time is up; returns how many it has.

    Configuration number i is drawn from the space by the seed i, so that the table grows the same whenever it is stopped. A run that was cut
    off begins anew; the table is replaced as a whole after each run, and has only whole ones.
    """
    from rkdsearch import config as run
    from rkdsearch.errors import NonFiniteLossError
    from rkdsearch.search import folder
    from rkdsearch.training.trainer import Trainer

    end = time.monotonic() + 60 * minutes
    space = _digits()
    ready = {step.role: step for step in folder.prepare_teachers(study, space) if step.measured is not None}
    teachers = folder.overrides_of(ready)
    known = pd.read_parquet(file) if file.exists() else pd.DataFrame()
    done = set(known["configuration"]) if len(known) else set()
    for number in range(wanted):
        if number in done:
            continue
        if time.monotonic() > end:
            break
        overrides = space.sample(np.random.default_rng(number))
        config = space.config(run.merge(overrides, teachers), f"configuration {number}")
        rows, spent = [], 0.0
        try:
            for epoch in Trainer(config, validate_at=frozenset(RUNGS)).epochs():
                spent += epoch.seconds
                if epoch.clean_accuracy is not None:
                    rows.append(
                        {
                            "configuration": number,
                            "overrides": json.dumps(overrides),
                            "method": overrides["method.name"],
                            "training_attack_steps": overrides["attack.steps"],
                            "epoch": epoch.epoch,
                            "clean_accuracy": epoch.clean_accuracy,
                            "robust_accuracy": epoch.robust_accuracy,
                            "images": epoch.images,
                            "seed": config.training.seed,
                            "seconds": spent,
                            "teacher_sha256": teachers["teachers.robust.sha256"],
                        }
                    )
        except NonFiniteLossError as error:
            print(f"{number}: {error}")
            rows.append({**_FAILED, "configuration": number, "overrides": json.dumps(overrides), "method": overrides["method.name"]})
        known = pd.concat([known, pd.DataFrame(rows)], ignore_index=True)
        done.add(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(".new")
        known.to_parquet(new, index=False)
        new.replace(file)
        print(f"{len(done)} configurations; number {number}, {overrides['method.name']}: {spent:.1f} s", flush=True)
    return len(done)


_FAILED = {
    "training_attack_steps": 0,
    "epoch": 0,
    "clean_accuracy": math.nan,
    "robust_accuracy": math.nan,
    "images": 0,
    "seed": 0,
    "seconds": 0.0,
}


def quiet() -> None:
    """Optuna's and Ray's notices are for people who call them."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("ray").setLevel(logging.ERROR)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="30 seeds, a budget of 20 full runs")
    parser.add_argument("--seeds", type=int, help="of the simulated landscapes")
    parser.add_argument("--budget", type=float, help="of a long search, in full runs")
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES), metavar="RULE")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--latency", action="store_true", help="only the time of a proposal and of a decision")
    parser.add_argument("--record", type=int, metavar="N", help="add digits runs to the recorded table until it has N")
    parser.add_argument("--minutes", type=float, default=math.inf, help="with --record: stop after the run that passes this time")
    parser.add_argument("--study", type=Path, default=Path("runs/search_benchmark"), help="with --record: where the teacher is kept")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if given.record is not None:
        record(given.record, given.minutes, given.study)
        return
    if not given.latency:
        seeds, budget = (30, 20.0) if given.quick else (100, 30.0)
        compare(given.seeds or seeds, given.budget or budget, given.shapes, given.rules, given.processes)
    latency()


if __name__ == "__main__":
    main()

"""Compute to the front: our search, random search, and Ray Tune's Optuna + ASHA.

Every rule (`rules.py`) meets the same landscapes (`curves.py`) with two workers (`simulation.py`),
and is charged for what it trains and validates. A search's worth is the hypervolume above (0, 0) of
what its full-length trials would deliver: on simulated curves their true values, without the noise
of seeds and of validation. The bar is the hypervolume that random full-length search ends with in
that landscape when it has spent the budget, a mean over five such searches. "To the bar" is the
share of random search's compute after which a rule has reached it: the median over seeds, and its
95 % interval by order statistics ("never" where it was not reached). A search ends there, but not
before it has spent a quarter of random search's compute.

    python analysis/benchmarks/search.py [--quick] [--seeds 99] [--budgets 30 100] [--processes 2]
                                         [--shapes bulging straight] [--rules ...]
    python analysis/benchmarks/search.py --record 100 [--minutes 12] [--study runs/search_benchmark]
    python analysis/benchmarks/search.py --live 5 [--budget 12] [--study runs/search_benchmark]
    python analysis/benchmarks/search.py --beliefs [--seeds 30] [--budgets 30]
    python analysis/benchmarks/search.py --latency

`--beliefs` compares rules that are given two published settings, good and bad ones (`believed.py`):
compute to the bar with the baselines' own cost, and without it.

`--record` adds to the recorded table, `--live` trains on digits, and `--latency` measures only the
sampler's and scheduler's time.

`--quick` has 30 seeds, spread over the shapes, and a budget of 30 full runs (three minutes of one
idle core); else there are 99, and 100 full runs too. The table of recorded digits runs is replayed
as well; it compares schedulers alone, for nobody can propose what was not recorded. `--budgets`
without a number leaves only that. `--clear` asks what is left to win: no noise, and early values
that mislead less.
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from believed import KINDS, Believed
from believed import rules as believed_rules
from curves import SHAPES, Curve, Landscape, Recorded, Simulated, read
from latency import latency
from record import DIGITS, TABLE, agreement, record, within_and_between
from rules import FULL, RANDOM, RULES, SCHEDULERS_ALONE, STOCK, quiet
from scipy.stats import binom
from simulation import Rule, search

from rkdsearch.space.space import SearchSpace

RANDOM_SEARCHES = 5  # whose mean end is the bar
RECORDED_ORDERS = 30
AT_LEAST = 0.25  # of random search's compute is spent by everybody
SHARES = (0.1, 0.25)


@dataclass(frozen=True)
class Task:
    """One rule on one landscape.

    `shape` of a simulated landscape with a `budget` of full runs; None: the recorded table.
    """

    shape: str | None
    seed: int
    rule: str
    budget: float = 0.0
    clear: bool = False


@dataclass(frozen=True)
class Outcome:
    """Hypervolume, in bars, at `SHARES` of random search's compute.

    And the share after which the bar was reached, infinite where it was not.
    """

    task: Task
    at: tuple[float, ...]
    to_the_bar: float
    configurations: int
    full_length: int


def outcome(task: Task) -> Outcome:
    """Run the task's search and hold it against random search in the same landscape."""
    quiet()
    bar, cost = _bar(replace(task, rule=RANDOM))
    landscape, limits = landscape_of(task)
    rule = rules_of(task)[task.rule](replace(landscape.space, seed=task.seed))
    track = search(landscape, rule, **limits, enough=(bar, AT_LEAST * cost))
    at = tuple(track.at(share * cost) / bar for share in SHARES)
    return Outcome(task, at, track.reaches(bar) / cost, track.configurations, len(track.compute))


def rules_of(task: Task) -> Mapping[str, Callable[[SearchSpace], Rule]]:
    """The rules that can be tried there."""
    return SCHEDULERS_ALONE if task.shape is None else RULES


def landscape_of(task: Task) -> tuple[Landscape, dict[str, Any]]:
    """The task's landscape, and its limits."""
    if task.shape is not None:
        return Simulated(task.shape, task.seed, task.clear), {"budget": task.budget}
    runs = _table()
    # Random search has half the table; the others may go through all of it for the same compute.
    half = sum(curve.cost(FULL, 0, afresh=True) for _, curve in runs) / 2
    return Recorded(SearchSpace.load(DIGITS), runs, task.seed), {
        "budget": half,
        "trials": len(runs),
    }


@cache
def _bar(task: Task) -> tuple[float, float]:
    """Final hypervolume of random full-length search, and its compute.

    Means over several searches.
    """
    found = []
    for again in range(RANDOM_SEARCHES):
        landscape, limits = landscape_of(task)
        seed = 1000 * (task.seed + 1) + again
        if isinstance(landscape, Recorded):
            landscape = replace(landscape, seed=seed)
        found.append(
            search(landscape, RULES[RANDOM](replace(landscape.space, seed=seed)), **limits)
        )
    return float(np.mean([t.hypervolume[-1] for t in found])), float(
        np.mean([t.spent for t in found])
    )


@cache
def _table() -> list[tuple[dict[str, Any], Curve]]:
    return read(TABLE)


def believed(task: tuple[str, int, str, str, float]) -> tuple[str, str, float, float]:
    """A rule that is given baselines: its name, their kind, its compute charged and uncharged."""
    shape, seed, kind, name, budget = task
    quiet()
    bar, cost = _bar(Task(shape, seed, RANDOM, budget))
    landscape = Believed(shape, seed, kind=kind)  # type: ignore[arg-type]  # one of KINDS
    rule = believed_rules()[name](replace(landscape.space, seed=seed), landscape.published())
    track = search(landscape, rule, budget=budget, enough=(bar, AT_LEAST * cost))
    spent = track.reaches(bar)
    return name, kind, spent / cost, max(0.0, spent - landscape.own_cost()) / cost


def compare_beliefs(seeds: int, budget: float, shapes: Sequence[str], processes: int) -> None:
    """Print compute to the bar of every rule that is given baselines, kind by kind."""
    print(f"simulated, {budget:g} full runs of compute, {seeds} seeds; charged / uncharged [95 %]")
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for kind in KINDS:
            tasks = [
                (shapes[seed % len(shapes)], seed, kind, name, budget)
                for seed in range(seeds)
                for name in believed_rules()
            ]
            found = list(pool.map(believed, tasks, chunksize=len(believed_rules())))
            for name in believed_rules():
                rows = [row for row in found if row[0] == name]
                charged, _, _ = median_with_interval([row[2] for row in rows])
                uncharged = _shares([row[3] for row in rows])
                print(f"{kind:12} {name:34} {charged:.3f} / {uncharged}", flush=True)


# ---------------------------------------------------------------------------------- what is printed


def median_with_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, and the narrowest symmetric pair of order statistics that holds it with 95 %.

    Also right where some values are infinite.
    """
    ordered = sorted(values)
    n = len(ordered)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    below = int(binom.ppf(0.025, n, 0.5))
    return middle, ordered[max(below - 1, 0)], ordered[min(n - below, n - 1)]


def against(rows: Sequence[Outcome], others: Mapping[int, float]) -> list[float]:
    """Compute to the bar as a share of the other rule's on the same seed.

    A search that never reached the bar counts as reaching it at its end.
    """
    return [
        row.to_the_bar / min(others[row.task.seed], 1.0) for row in rows if row.task.seed in others
    ]


def table(outcomes: Sequence[Outcome]) -> str:
    """A line for each rule.

    Hypervolumes are medians in bars, with their standard deviation over seeds.
    """
    stock = {o.task.seed: o.to_the_bar for o in outcomes if o.task.rule == STOCK}
    lines = [
        f"{'rule':41} "
        + " ".join(f"{f'HV at {share:g}':>13}" for share in SHARES)
        + "   to the bar [95 %]      reached  / stock's [95 %]       tried  full"
    ]
    for rule in dict.fromkeys(o.task.rule for o in outcomes):
        rows = [o for o in outcomes if o.task.rule == rule]
        volumes = [[o.at[i] for o in rows] for i in range(len(SHARES))]
        lines.append(
            f"{rule:41} "
            + " ".join(
                f"{statistics.median(v):5.3f} ±"
                f" {statistics.stdev(v) if len(v) > 1 else math.nan:5.3f}"
                for v in volumes
            )
            + f"   {_shares([o.to_the_bar for o in rows]):21}"
            + f" {sum(math.isfinite(o.to_the_bar) for o in rows):>3}/{len(rows):<3}"
            + f"  {_shares(against(rows, stock)) if stock else '':21}"
            + f" {statistics.median(o.configurations for o in rows):6.0f}"
            f" {statistics.median(o.full_length for o in rows):5.0f}"
        )
    return "\n".join(lines)


def _shares(values: Sequence[float]) -> str:
    middle, low, high = (
        f"{v:.3f}" if math.isfinite(v) else "never" for v in median_with_interval(values)
    )
    return f"{middle:>5} [{low:>5}, {high:>5}]"


def compare(
    seeds: int,
    budgets: Sequence[float],
    shapes: Sequence[str],
    rules: Sequence[str],
    processes: int,
    *,
    clear: bool = False,
) -> list[Outcome]:
    """Run and print everything, part by part.

    A seed's landscape has one of the shapes, in turn; with `clear`, only clear ones.
    """
    parts = {
        (
            f"simulated, {'clear, ' * clear}{budget:g} full runs of compute, {seeds} seeds"
            f" over {', '.join(shapes)}"
        ): [
            Task(shapes[seed % len(shapes)], seed, rule, budget, clear)
            for seed in range(seeds)
            for rule in RULES
            if rule in rules
        ]
        for budget in budgets
    }
    if TABLE.exists() and not clear:
        print(agreement(TABLE), within_and_between(TABLE), sep="\n\n", flush=True)
        parts[
            f"recorded digits runs, half of {len(_table())} configurations' compute,"
            f" {RECORDED_ORDERS} orders"
        ] = [Task(None, seed, rule) for seed in range(RECORDED_ORDERS) for rule in SCHEDULERS_ALONE]
    found: list[Outcome] = []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for title, tasks in parts.items():
            started = time.perf_counter()
            # a chunk shares its landscape's bar
            part = list(pool.map(outcome, tasks, chunksize=len({t.rule for t in tasks})))
            print(f"\n{title} ({time.perf_counter() - started:.0f} s)\n{table(part)}", flush=True)
            found += part
    return found


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="30 seeds, a budget of 30 full runs")
    parser.add_argument("--seeds", type=int, help="of the simulated landscapes")
    parser.add_argument(
        "--budgets", type=float, nargs="*", help="of simulated searches, in full runs"
    )
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument(
        "--rules", nargs="+", default=list(RULES), choices=list(RULES), metavar="RULE"
    )
    parser.add_argument(
        "--clear",
        action="store_true",
        help="simulated curves without noise, whose early values mislead less",
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--beliefs", action="store_true", help="rules with published settings")
    parser.add_argument(
        "--latency", action="store_true", help="only the time of a proposal and of a decision"
    )
    parser.add_argument(
        "--record",
        type=int,
        metavar="N",
        help="add digits runs to the recorded table until it has N",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="with --record and --live: stop after the run that passes this time",
    )
    parser.add_argument(
        "--live",
        type=int,
        metavar="SEEDS",
        help="search on digits for real, so many times with each rule",
    )
    parser.add_argument(
        "--budget", type=float, default=12.0, help="with --live: of each search, in full runs"
    )
    parser.add_argument(
        "--study",
        type=Path,
        default=Path("runs/search_benchmark"),
        help="with --record and --live: where the teacher is kept",
    )
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if given.record is not None:
        record(given.record, given.minutes, given.study)
    elif given.beliefs:
        for budget in given.budgets or [30.0]:
            compare_beliefs(given.seeds or 30, budget, given.shapes, given.processes)
    elif given.live is not None:
        from live import live

        live(given.live, given.budget, given.minutes, given.study)
    else:
        if not given.latency:
            seeds, budgets = (30, [30.0]) if given.quick else (99, [30.0, 100.0])
            budgets = budgets if given.budgets is None else given.budgets
            compare(
                given.seeds or seeds,
                budgets,
                given.shapes,
                given.rules,
                given.processes,
                clear=given.clear,
            )
        if not given.clear:
            latency()


if __name__ == "__main__":
    main()

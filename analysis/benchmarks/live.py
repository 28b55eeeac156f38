"""Real searches on digits.

The rules of the simulated searches, with training in place of curves, charged by the same numbers.
Those of `GIVEN` train the published settings of the searched methods first, and pay for them.
"""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from believed import rules as believed_rules
from curves import CAP, EPOCHS, Curve
from record import DIGITS, teachers_of
from rules import LENGTH, LOWER, RANDOM, RULES, STOCK, SYNE_TUNE
from simulation import Rule, Track, search

from rkdsearch import config as run
from rkdsearch.config import TrainConfig
from rkdsearch.config.fidelity import Fidelity
from rkdsearch.errors import NonFiniteLossError
from rkdsearch.space.space import SearchSpace
from rkdsearch.training.epoch import EpochResult
from rkdsearch.training.trainer import Trainer

RESULTS = Path(__file__).parent / "data" / "digits_live.parquet"
GIVEN = ("told of the baselines alone", "beliefs, low", "beliefs, medium")
LIVE = (RANDOM, STOCK, SYNE_TUNE, "ours, whole ladder", *GIVEN)


@dataclass
class Trained:
    """A run that is trained as far as it is read.

    Where its loss becomes infinite, its accuracies are 0 from then on.
    """

    config: TrainConfig
    fidelities: tuple[Fidelity, ...]
    seconds: float = 0.0
    _known: list[EpochResult] = field(default_factory=list)
    _epochs: Iterator[EpochResult] | None = None

    def values_at(self, epoch: int) -> tuple[float, float]:
        """Validation accuracies of the best epoch so far."""
        started = time.process_time()
        if self._epochs is None:
            self._epochs = Trainer(self.config, fidelities=self.fidelities).epochs()
        try:
            while len(self._known) < epoch:
                self._known.append(next(self._epochs))
        # a run that has failed once has nothing more to say
        except (NonFiniteLossError, StopIteration):
            return 0.0, 0.0
        finally:
            self.seconds += time.process_time() - started
        best = self._known[epoch - 1].best
        assert best is not None, "rungs are validated"
        return best.clean_accuracy, best.robust_accuracy

    def delivers(self) -> tuple[float, float]:
        """The measured accuracies: real runs have no known true ones."""
        return self.values_at(EPOCHS)


@dataclass
class Digits:
    """The digits space, without its baselines.

    All runs of a search have the same `seed`: a search has noise of its own.
    """

    space: SearchSpace
    teachers: Mapping[str, Any]
    seed: int
    runs: list[Trained] = field(default_factory=list)

    def given(self, ordinal: int) -> None:
        """Nothing: anything may be proposed."""

    def curve(self, overrides: Mapping[str, Any]) -> Curve:
        """Runs that are trained when they are read; a capped run may continue without its cap."""
        config = self.space.config(
            run.merge(run.merge(overrides, self.teachers), {"training.seed": self.seed})
        )
        full = Trained(config, tuple(Fidelity(epochs=rung.epochs) for rung in LENGTH))
        capped = full
        if config.attack.steps > CAP:
            capped = Trained(
                config,
                tuple(
                    Fidelity(epochs=rung.epochs, training_attack_steps=rung.training_attack_steps)
                    for rung in LOWER
                ),
            )
        self.runs += [full] if capped is full else [full, capped]
        return Curve(config.attack.steps, full, capped, capped)


def live(
    seeds: int,
    budget: float,
    minutes: float,
    study: Path,
    file: Path = RESULTS,
    rules: Sequence[str] = LIVE,
) -> None:
    """Search `seeds` times by each rule with `budget` full runs, and print the results.

    A search that is in the file is not repeated.
    """
    end = time.monotonic() + 60 * minutes
    space, published = searched()
    teachers = teachers_of(space, study)
    known = (
        pd.read_parquet(file)
        if file.exists()
        else pd.DataFrame({"rule": [], "seed": [], "budget": []})
    )
    done = set(zip(known["rule"], known["seed"], known["budget"], strict=True))
    for seed in range(seeds):
        for rule in rules:
            if (rule, seed, budget) in done or time.monotonic() > end:
                continue
            landscape = Digits(space, teachers, seed)
            track = search(
                landscape, rule_of(rule, replace(space, seed=seed), published), budget=budget
            )
            seconds = sum(trained.seconds for trained in landscape.runs)
            known = pd.concat([known, _rows(rule, seed, budget, track, seconds)], ignore_index=True)
            file.parent.mkdir(parents=True, exist_ok=True)
            new = file.with_suffix(".new")
            known.to_parquet(new, index=False)
            new.replace(file)
            print(
                f"seed {seed}, {rule}: {track.configurations} configurations, {len(track.compute)}"
                f" full, {seconds:.0f} s of CPU",
                flush=True,
            )
    print(table(known[known["budget"].eq(budget)]))


def searched() -> tuple[SearchSpace, list[dict[str, Any]]]:
    """The digits space without its baselines and priors, and the searched methods' baselines.

    A prior is what earlier runs on these very digits told: nobody may know it here.
    """
    space = SearchSpace.load(DIGITS)
    methods = next(p for p in space.parameters if p.name == "method.name")
    published = [
        dict(one.overrides)
        for one in space.baselines
        if methods.holds(one.overrides["method.name"])
    ]
    parameters = tuple(replace(p, prior=None) for p in space.parameters)
    return replace(space, baselines=(), parameters=parameters), published


def rule_of(name: str, space: SearchSpace, published: Sequence[dict[str, Any]]) -> Rule:
    """The rule of this name, which is given the published settings where it is one of `GIVEN`."""
    return believed_rules()[name](space, published) if name in GIVEN else RULES[name](space)


def _rows(rule: str, seed: int, budget: float, track: Track, seconds: float) -> pd.DataFrame:
    """A row for the beginning, and one for each full-length trial."""
    return pd.DataFrame(
        {
            "rule": rule,
            "seed": seed,
            "budget": budget,
            "compute": [0.0, *track.compute],
            "hypervolume": [0.0, *track.hypervolume],
            "configurations": track.configurations,
            "cpu_seconds": seconds,
        }
    )


def table(rows: pd.DataFrame) -> str:
    """A line for each rule: medians over seeds, and their range.

    The bar is random search's final value, a mean over its seeds.
    """
    ends = rows.groupby(["rule", "seed"])["hypervolume"].last()
    bar = float(ends[RANDOM].mean()) if RANDOM in ends.index else 0.0
    if not bar:
        return "random search has finished nothing yet: there is no bar"
    cost = float(rows[rows["rule"].eq(RANDOM)].groupby("seed")["compute"].last().mean())
    lines = [
        f"live on digits, bar {bar:.4f}, {cost:.1f} full runs of compute",
        f"{'rule':32} {'seeds':>5}   HV at the end    to the bar [range]      tried  full",
    ]
    for rule, part in rows.groupby("rule", sort=False):
        searches = [one for _, one in part.groupby("seed")]
        reached = [_first(one, bar) / cost for one in searches]
        volumes = [float(one["hypervolume"].iloc[-1]) for one in searches]
        shares = " ".join(
            f"{v:.3f}" if np.isfinite(v) else "never"
            for v in (statistics.median(reached), min(reached), max(reached))
        )
        spread = statistics.stdev(volumes) if len(volumes) > 1 else np.nan
        full = statistics.median(len(one) - 1 for one in searches)
        lines.append(
            f"{rule:32} {len(searches):>5}   {statistics.mean(volumes):.4f} ± {spread:.4f}  "
            f" {shares:20} "
            f" {statistics.median(one['configurations'].iloc[-1] for one in searches):6.0f}"
            f" {full:5.0f}"
        )
    return "\n".join(lines)


def _first(one: pd.DataFrame, bar: float) -> float:
    there = one[one["hypervolume"] >= bar]["compute"]
    return float(there.iloc[0]) if len(there) else float("inf")

"""CPU time of a search's driver for one trial, by the number of earlier trials.

    python analysis/benchmarks/latency.py               our own share, in one process
    python analysis/benchmarks/latency.py --ray 100     a search of so many trials on Ray

With Ray: the driver's time, our share of it, and a worker's waiting time between two trials
(wanted: less than 0.1 s).
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import ray
from ray import tune
from rules import quiet
from typing_extensions import override

from rkdsearch.execution import messages, search
from rkdsearch.execution.messages import EpochReport, WorkOrder
from rkdsearch.results.states import Origin, Status
from rkdsearch.search.sampler import propose
from rkdsearch.search.study import Study
from rkdsearch.search.trial import Trial, trial_id_of
from rkdsearch.space import ladder
from rkdsearch.space.settings import SamplerConfig
from rkdsearch.space.space import SearchSpace
from rkdsearch.training.epoch import Best, EpochResult

DIGITS = Path(__file__).parents[2] / "search_spaces" / "digits.yaml"
COUNTS = (100, 1000, 10_000)
TIMES = 7


def latency() -> None:
    """Print the medians."""
    quiet()
    print(f"\nms of CPU time, {DIGITS.name}, after so many trials: medians of {TIMES}")
    print(f"{'':32} " + " ".join(f"{n:>8}" for n in COUNTS))
    found = [_measured(count) for count in COUNTS]
    for name in found[0]:
        print(
            f"{name:32} " + " ".join(f"{statistics.median(column[name]):8.1f}" for column in found)
        )


class Instant(tune.Trainable):
    """A trial that has always finished its epoch: what is left is the driver's work and Ray's."""

    @override
    def setup(self, config: dict[str, Any]) -> None:
        self._ended: float | None = None
        self._take(config)

    def _take(self, config: dict[str, Any]) -> None:
        order: WorkOrder = messages.unpacked(config)
        self._epoch, self._epochs = 0, order.assignment.config.training.epochs
        self._rng = np.random.default_rng(list(order.assignment.trial_id.encode()))

    @override
    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._take(new_config)
        return True

    @override
    def step(self) -> dict[str, Any]:
        # Of a trial that is not its process's first: seconds since the last epoch of the one
        # before.
        facts = (
            {"waited": time.monotonic() - self._ended}
            if self._epoch == 0 and self._ended is not None
            else {}
        )
        self._epoch += 1
        report = EpochReport(_result(self._epoch, self._epochs, self._rng), facts)
        self._ended = time.monotonic()
        return messages.packed(report)

    @override
    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing."""


def over_ray(trials: int) -> None:
    """Print a real driver's cost of a report, from the first to the last, and its workers' waiting.

    A worker waits between two trials.
    """
    quiet()
    search.RayTrial = Instant  # type: ignore[assignment, attr-defined]  # it stands in for the real one
    space = replace(SearchSpace.load(DIGITS), baselines=())
    ours, reports, moments, waits = [0.0], [0], list[float](), list[float]()

    def timed(action: Callable[..., Any], counts: bool) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            started = time.thread_time()
            moments.append(time.process_time())
            try:
                return action(*arguments)
            finally:
                ours[0] += time.thread_time() - started
                reports[0] += counts

        return run

    with TemporaryDirectory() as folder:
        study = Study(Path(folder), space, trials, {})
        report = study.report

        def heard(trial_id: str, result: EpochResult, facts: dict[str, float]) -> bool:
            waits.extend(facts.values())
            return report(trial_id, result)

        study.next, study.report = timed(study.next, counts=False), timed(heard, counts=True)  # type: ignore[method-assign]
        started = time.monotonic()
        search.run_search(study)
        wall = time.monotonic() - started
    spent = moments[-1] - moments[0]
    print(
        f"\nray {ray.__version__}, {DIGITS.name}, {trials} trials, {reports[0]} reports, {wall:.0f}"
        f" s: {1000 * spent / reports[0]:.1f} ms of the driver's CPU time a report,"
        f" {1000 * ours[0] / reports[0]:.1f} of them asking, deciding and writing"
        f" rows\n{statistics.median(waits):.3f} s between the last epoch of a trial and the first"
        f" of the next in its process: the median of {len(waits)}; wanted < 0.1 s, and what a real"
        " trial builds before its first epoch is not in it"
    )


def _measured(count: int) -> dict[str, list[float]]:
    space = replace(SearchSpace.load(DIGITS), baselines=())
    names = ("tpe", "nsga2", "random")
    found: dict[str, list[float]] = {f"proposal, {name}": [] for name in names}
    found |= {
        "next trial, with its row": [],
        "report between rungs": [],
        "report at a rung, with its rows": [],
        "who is promoted": [],
    }
    with TemporaryDirectory() as folder:
        study = _after(count, space, Path(folder))
        seen = study.observations()
        for name in names:
            other = replace(space, sampler=SamplerConfig.model_validate({"name": name}))
            found[f"proposal, {name}"] = [
                _ms(partial(propose, other, count + at, seen)) for at in range(TIMES)
            ]
        rng = np.random.default_rng(count)
        while len(found["next trial, with its row"]) < TIMES:
            started = time.process_time()
            assignment = study.next()
            spent = 1000 * (time.process_time() - started)
            assert assignment is not None, "more are wanted than there are"
            if study.trials[assignment.trial_id].epochs:  # somebody was promoted
                study.fail(assignment.trial_id, "not asked for")
                continue
            found["next trial, with its row"].append(spent)
            for epoch in range(1, assignment.fidelities[0].epochs + 1):
                where = (
                    "at a rung, with its rows"
                    if epoch == space.rungs[0].epochs
                    else "between rungs"
                )
                found[f"report {where}"].append(
                    _ms(
                        partial(
                            study.report, assignment.trial_id, _result(epoch, space.epochs, rng)
                        )
                    )
                )
            found["who is promoted"].append(_ms(study.scheduler.next_promotion))
            if study.trials[assignment.trial_id].executing:
                study.fail(assignment.trial_id, "not asked for")
    return found


def _after(count: int, space: SearchSpace, folder: Path) -> Study:
    """A study with so many earlier trials.

    On each rung, the best 1/reduction of them were promoted.
    """
    study = Study(folder, space, 2 * count, {})
    rng = np.random.default_rng(0)
    # one for all: what was done is known by overrides and epochs
    config = space.config(space.sample(rng))
    for ordinal in range(count):
        overrides = space.sample(rng)
        segments = ladder.segments(space.ladder, space.scheduler, overrides["attack.steps"])
        study.ledger.add(
            Trial(
                trial_id_of(ordinal),
                ordinal,
                Origin.SEARCH,
                "",
                overrides,
                config,
                segments,
                status=Status.PAUSED,
            )
        )
    climbing = list(study.trials.values())
    for rung in space.ladder:
        for trial in climbing:
            trial.add_epoch(_result(rung.epochs, space.epochs, rng))
        climbing = _gone_on(study, rung.epochs, climbing)
    return study


def _gone_on(study: Study, epochs: int, there: list[Trial]) -> list[Trial]:
    rung = study.scheduler.at(epochs)
    if rung is None:
        return []
    for trial in there:
        values = trial.merits_at(epochs, study.space.objectives)
        assert values is not None, "it stands there"
        study.scheduler.record(rung, trial.trial_id, values)
    best = [
        t
        for t in there
        if study.scheduler.rank(rung, t.trial_id).rank
        <= len(there) // study.space.scheduler.reduction
    ]
    for trial in best:
        rung.promoted.add(trial.trial_id)
        trial.leave_rung()
    return best


def _result(epoch: int, epochs: int, rng: np.random.Generator) -> EpochResult:
    """On three hundred images, somewhere below a front."""
    clean = round(float(rng.random()), 2)
    robust = round((1 - clean) * float(rng.random()), 2)
    return EpochResult(
        epoch=epoch,
        epochs=epochs,
        loss=1.0,
        terms={"imitation": 1.0},
        lr=0.1,
        seconds=1.0,
        images_per_second=1.0,
        training_attack_steps=2,
        clean_accuracy=clean,
        robust_accuracy=robust,
        worst_class_accuracy=0.0,
        best=Best(epoch, clean, robust, 0.0),
        robust_peak=robust,
        images=300,
        finished=1e9 + epoch,
    )


def _ms(action: Callable[[], object]) -> float:
    started = time.process_time()
    action()
    return 1000 * (time.process_time() - started)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ray", type=int, metavar="TRIALS")
    trials = parser.parse_args().ray
    latency() if trials is None else over_ray(trials)

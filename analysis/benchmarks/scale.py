"""Cost of a long search for its driver and its readers: trials without training on many workers.

    python analysis/benchmarks/scale.py --trials 10000 --workers 500 --study /tmp/scale

The study, its sampler, scheduler and files are the real ones, of `search_spaces/digits.yaml`; a
worker's epoch is a formula and takes no time, and there is no Ray. Prints seconds of CPU for each
proposal and report, memory, rows and files, then CPU seconds of `status` and `report`.
"""

import argparse
import heapq
import itertools
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml
from turns import head

from rkdsearch.config.fidelity import fidelity_at
from rkdsearch.results.store import Store
from rkdsearch.search.assignment import Assignment
from rkdsearch.search.study import Study
from rkdsearch.search.study_file import describe
from rkdsearch.space.space import SearchSpace
from rkdsearch.training.epoch import Best, EpochResult

ROOT = Path(__file__).parents[2]


class Worker:
    """One assignment whose epochs follow a formula: the learning rate decides how good it gets."""

    def __init__(self, assignment: Assignment, known: int) -> None:
        self.assignment = assignment
        self.epoch = known
        config = assignment.config
        seed = np.random.default_rng(abs(hash(assignment.trial_id)) % 2**32)
        self.seconds = float(seed.lognormal(0.0, 0.3))
        fit = math.exp(-(math.log10(config.optimizer.lr / 0.05) ** 2))
        self._clean = min(0.99, 0.7 + 0.25 * fit - config.attack.eps + seed.normal(0, 0.01))
        self._robust = min(0.99, 0.3 + 0.25 * fit + config.attack.eps + seed.normal(0, 0.01))
        self._best: Best | None = None

    def step(self) -> EpochResult:
        """The next epoch."""
        self.epoch += 1
        config, fidelities = self.assignment.config, self.assignment.fidelities
        grown = 1 - 0.5 ** (self.epoch / 6)
        clean, robust = self._clean * grown, self._robust * grown
        found = Best(self.epoch, clean, robust, robust / 2)
        self._best = max((one for one in (self._best, found) if one), key=lambda b: b.merit("mean"))
        fidelity = fidelity_at(fidelities, self.epoch)
        return EpochResult(
            epoch=self.epoch,
            epochs=config.training.epochs,
            loss=1.0,
            terms={},
            lr=0.1,
            seconds=self.seconds,
            images_per_second=1000.0,
            training_attack_steps=fidelity.attack(config.attack).steps,
            clean_accuracy=clean,
            robust_accuracy=robust,
            worst_class_accuracy=robust / 2,
            best=self._best,
            robust_peak=self._best.robust_accuracy,
            images=360,
            finished=time.time(),
            validation_attack_steps=fidelity.validation(config.validation).attack.steps,
        )


def search(study: Study, workers: int) -> dict[str, list[float]]:
    """Drive the study to its end; returns CPU seconds of each proposal and each report."""
    cpu: dict[str, list[float]] = {"proposal": [], "report": []}
    order, busy = itertools.count(), list[tuple[float, int, Worker]]()
    now, told = 0.0, time.monotonic()
    while True:
        while len(busy) < workers:
            before = time.process_time()
            assignment = study.next()
            cpu["proposal"].append(time.process_time() - before)
            if assignment is None:
                break
            trial = study.trials[assignment.trial_id]
            study.place(trial.trial_id)
            worker = Worker(assignment, len(trial.segment_epochs))
            heapq.heappush(busy, (now + worker.seconds, next(order), worker))
        if not busy:
            break
        now, _, worker = heapq.heappop(busy)
        result = worker.step()
        before = time.process_time()
        on = study.report(worker.assignment.trial_id, result, {"run.processes": 1})
        cpu["report"].append(time.process_time() - before)
        if on:
            heapq.heappush(busy, (now + worker.seconds, next(order), worker))
        if time.monotonic() - told > 60:
            told = time.monotonic()
            print(
                f"  {len(study.trials)} trials, {len(cpu['report'])} reports,"
                f" {time.process_time():.0f} s of CPU",
                flush=True,
            )
    study.close()
    return cpu


def space_of(folder: Path, rungs: str | None) -> SearchSpace:
    """The digits' space, with other rungs where they are named."""
    file = folder / "scale.yaml"
    child: dict[str, object] = {"extends": str(ROOT / "search_spaces" / "digits.yaml")}
    if rungs:
        child["ladder"] = [{"epochs": int(epochs)} for epochs in rungs.split(",")]
    file.write_text(yaml.safe_dump(child), encoding="utf-8")
    return SearchSpace.load(file)


def reader(*words: str) -> tuple[float, str]:
    """CPU seconds of a command, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-m", "rkdsearch", *words],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--rungs", help="epochs of each rung, such as 1,3,9; default: the space's")
    asked = parser.parse_args()
    print(head())
    shutil.rmtree(asked.study, ignore_errors=True)
    asked.study.mkdir(parents=True)
    space = space_of(asked.study, asked.rungs)
    describe(asked.study, space, {})
    cpu = search(Study(asked.study, space, asked.trials, {}), asked.workers)
    for name, each in cpu.items():
        print(
            f"{name}: n {len(each)}, median {1000 * float(np.median(each)):.2f} ms,"
            f" mean {1000 * float(np.mean(each)):.2f} ms, sum {sum(each):.0f} s of CPU"
        )
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most")
    files = [path for path in asked.study.rglob("*") if path.is_file()]
    store = Store(asked.study)
    print(
        f"{len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB;"
        f" {len(store.trials())} trials, {len(store.epochs())} epochs,"
        f" {len(store.rungs())} decisions"
    )
    seconds, text = reader("status", str(asked.study))
    print(f"status: {seconds:.1f} s of CPU, {text.count(chr(10))} lines")
    page = asked.study / "report.html"
    seconds, _ = reader("report", str(asked.study))
    print(f"report: {seconds:.1f} s of CPU, {page.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

"""Cost of a long search for its driver and its readers: trials without training on many workers.

    python analysis/benchmarks/scale.py --trials 10000 --workers 500 --study /tmp/scale

The study, its sampler, scheduler and files are the real ones, of `search_spaces/digits.yaml`; a
worker's epoch is a formula and takes no time, and there is no Ray. Every report writes its rows, as
where epochs take two seconds or more. Prints the driver's CPU time for each proposal and report by
the number of trials so far, memory, rows and files, then CPU seconds of `status` and `report`.

With `--minutes` the search stops after so many; the same command continues it. Trials that were
running then start their segment again, because nothing here writes checkpoints.

With `--copies` it begins with that many copies of each searched trial that is not trained, under
other ordinals and a little different: the costs of a search after ten thousand trials, in minutes.
"""

import argparse
import heapq
import itertools
import json
import math
import os
import resource
import subprocess
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from turns import head

from rkdsearch.config.fidelity import fidelity_at
from rkdsearch.results import packs
from rkdsearch.results.states import Origin, Status
from rkdsearch.results.store import Store, replace_table
from rkdsearch.search import ledger
from rkdsearch.search.assignment import Assignment
from rkdsearch.search.journal import Journal
from rkdsearch.search.study import Study
from rkdsearch.search.study_file import describe
from rkdsearch.space.space import SearchSpace
from rkdsearch.training.epoch import Best, EpochResult

ROOT = Path(__file__).resolve().parents[2]


class Worker:
    """One assignment whose epochs follow a formula: the learning rate decides how good it gets."""

    def __init__(self, assignment: Assignment, known: Sequence[EpochResult]) -> None:
        self.assignment = assignment
        self.epoch = len(known)
        config = assignment.config
        seed = np.random.default_rng(zlib.crc32(assignment.trial_id.encode()))
        self.seconds = float(seed.lognormal(0.0, 0.3))
        fit = math.exp(-(math.log10(config.optimizer.lr / 0.05) ** 2))
        self._clean = min(0.99, 0.7 + 0.25 * fit - config.attack.eps + seed.normal(0, 0.01))
        self._robust = min(0.99, 0.3 + 0.25 * fit + config.attack.eps + seed.normal(0, 0.01))
        self._best = known[-1].best if known else None

    def step(self) -> EpochResult:
        """The next epoch."""
        self.epoch += 1
        config, fidelities = self.assignment.config, self.assignment.fidelities
        grown = 1 - 0.5 ** (self.epoch / 6)
        clean, robust = self._clean * grown, self._robust * grown
        found = Best(self.epoch, clean, robust, robust / 2)
        self._best = max(
            (one for one in (self._best, found) if one), key=lambda b: b.selection_score("mean")
        )
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


def copied(folder: Path, copies: int) -> None:
    """Add copies of the searched trials that are not trained, in packs."""
    store = Store(folder)
    known = store.trials(lambda column: column in {"trial_id", "status", "origin", "ordinal"})
    resting = known[(known["status"] != Status.RUNNING) & (known["origin"] == Origin.SEARCH)]
    first, names = int(known["ordinal"].max()) + 1, list(resting["trial_id"])
    for table in ("trials", "epochs", "rungs"):
        files = (pq.read_table(path) for path in (folder / table).glob("[!._]*.parquet"))
        rows = packs.together(files).to_pandas(types_mapper=pd.ArrowDtype)
        parts = []
        for copy in range(copies):
            ordinals = {name: first + copy * len(names) + at for at, name in enumerate(names)}
            part = rows[rows["trial_id"].isin(names)].copy()
            part["copied"] = part["trial_id"].map(ordinals)
            part["trial_id"] = [f"t{ordinal:05d}" for ordinal in part["copied"]]
            if table == "trials":
                part["ordinal"] = part["copied"]
            for column in {"metric.robust_accuracy", "robust_accuracy"} & {*part.columns}:
                part[column] = part[column] * (1 - 0.001 * (copy + 1))
            parts.append(part)
        whole = pd.concat(parts).sort_values("copied", kind="stable")
        schema = pq.read_schema(next((folder / table).glob("[!._]*.parquet")))
        for number, (_, part) in enumerate(whole.groupby((whole["copied"] - first) // packs.SIZE)):
            packed = pa.Table.from_pandas(part.drop(columns="copied"), preserve_index=False)
            packed = packed.replace_schema_metadata(schema.metadata)
            path = folder / table / f"packed-{500_000 + number:06d}.parquet"
            replace_table(path, packed, pack=True)


class Costs:
    """CPU seconds of the driver's acts, by act and by thousand of trials at that time."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.spent: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.parts = 0
        with suppress(FileNotFoundError):
            known = json.loads(file.read_text(encoding="utf-8"))
            self.parts = known["parts"]
            for act, by_thousand in known["spent"].items():
                self.spent[act].update(by_thousand)

    def of(self, act: str, trials: int, call: Callable[[], Any]) -> Any:
        """The result of the call, whose CPU time is kept."""
        before = time.process_time()
        found = call()
        spent = 1000 * (time.process_time() - before)
        self.spent[act][str(trials // 1000)].append(round(spent, 3))
        return found

    def keep(self) -> None:
        """Write all, for the next part."""
        text = json.dumps({"parts": self.parts + 1, "spent": self.spent})
        self._file.write_text(text, encoding="utf-8")

    def tell(self) -> None:
        """Print a line for each act and thousand of trials."""
        for act, by_thousand in self.spent.items():
            whole = [ms for each in by_thousand.values() for ms in each]
            print(f"{act}: n {len(whole)}, {sum(whole) / 1000:.0f} s of CPU")
            for thousand, each in sorted(by_thousand.items(), key=lambda item: int(item[0])):
                print(
                    f"  from {1000 * int(thousand):6} trials: n {len(each):6}, median"
                    f" {np.median(each):7.2f} ms, mean {np.mean(each):7.2f} ms, most"
                    f" {max(each):7.1f} ms"
                )


def search(study: Study, workers: int, costs: Costs, until: float) -> bool:
    """Drive the study to its end, or to a moment of `time.monotonic`; True where it has ended."""
    order, busy = itertools.count(), list[tuple[float, int, Worker]]()
    now, told, reports = 0.0, time.monotonic(), 0
    while time.monotonic() < until:
        while len(busy) < workers:
            known = len(study.trials)
            assignment = costs.of("proposal, promotion or none", known, study.next)
            if assignment is None:
                break
            trial = study.trials[assignment.trial_id]
            costs.of("place", known, partial(study.place, trial.trial_id))
            worker = Worker(assignment, trial.segment_epochs)
            heapq.heappush(busy, (now + worker.seconds, next(order), worker))
        if not busy:
            study.close()
            return True
        now, _, worker = heapq.heappop(busy)
        trial_id, facts = worker.assignment.trial_id, {"run.processes": 1}
        told_epoch = partial(study.report, trial_id, worker.step(), facts)
        if costs.of("report", len(study.trials), told_epoch):
            heapq.heappush(busy, (now + worker.seconds, next(order), worker))
        reports += 1
        if time.monotonic() - told > 60:
            told = time.monotonic()
            print(
                f"  {len(study.trials)} trials, {reports} reports,"
                f" {time.process_time():.0f} s of CPU",
                flush=True,
            )
    for trial in study.ledger.executing:
        study.interrupt(trial.trial_id)
    return False


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
    parser.add_argument("--minutes", type=float, default=math.inf, help="of this part")
    parser.add_argument("--copies", type=int, default=0, help="of each trial that has ended")
    asked = parser.parse_args()
    until = time.monotonic() + 60 * asked.minutes
    print(head())
    asked.study.mkdir(parents=True, exist_ok=True)
    space = space_of(asked.study, asked.rungs)
    describe(asked.study, space, {})
    ledger.EPOCHS_EVERY_SECONDS = 0.0
    if asked.copies:
        copied(asked.study, asked.copies)
    costs = Costs(asked.study.with_suffix(".costs.json"))
    study = Study(asked.study, space, asked.trials, {}, journal=Journal(asked.study, space))
    before = time.process_time()
    study.reconcile()
    print(
        f"{len(study.trials)} trials known, {time.process_time() - before:.0f} s of CPU to resume"
    )
    ended = search(study, asked.workers, costs, until)
    costs.keep()
    costs.tell()
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most")
    files = [path for path in asked.study.rglob("*") if path.is_file()]
    store = Store(asked.study)
    print(
        f"{len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB;"
        f" {len(store.trials())} trials, {len(store.epochs())} epochs,"
        f" {len(store.rungs())} decisions"
    )
    if not ended:
        print("not at its end: the same command continues")
        return
    seconds, text = reader("status", str(asked.study))
    print(f"status: {seconds:.1f} s of CPU, {text.count(chr(10))} lines")
    page = asked.study / "report.html"
    seconds, _ = reader("report", str(asked.study))
    print(f"report: {seconds:.1f} s of CPU, {page.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

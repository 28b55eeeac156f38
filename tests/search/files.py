"""A search space of one page, its worker without a network, and a witness of what is on disk."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from rkdsearch.config import TrainConfig
from rkdsearch.config.fidelity import fidelity_at
from rkdsearch.results.cells import records
from rkdsearch.results.store import Store
from rkdsearch.search import ledger
from rkdsearch.search.assignment import Assignment
from rkdsearch.search.study import Study
from rkdsearch.space.space import SearchSpace
from rkdsearch.training import checkpoint
from rkdsearch.training.epoch import Best, EpochResult

SMALL: dict[str, Any] = {
    "fixed": {
        "data": {"name": "digits"},
        "student": {"name": "small_cnn", "width": 4},
        "training.device": "cpu",
        "attack.steps": 2,
    },
    "search": {
        "method.name": {"choice": ["natural", "pgd_at", "trades"]},
        "optimizer.lr": {"float": [0.01, 0.3], "log": True},
        "method.consistency_weight": {
            "float": [0.5, 9.0],
            "log": True,
            "when": {"method.name": "trades"},
        },
    },
    "first": [
        {
            "label": "published",
            "method.name": "trades",
            "method.consistency_weight": 6.0,
            "optimizer.lr": 0.1,
        }
    ],
    "ladder": [{"epochs": 1}, {"epochs": 2}, {"epochs": 4}],
    "sampler": {"name": "tpe", "startup": 3},
    "scheduler": {"name": "moasha", "kind": "promotion", "reduction": 3},
    "seed": 3,
}
# A search whose students are of many sizes.
SIZES: dict[str, Any] = {
    "search": {"student.width": {"int": [2, 16]}, "optimizer.lr": {"float": [0.01, 0.3]}},
    "fixed": {
        "data.name": "digits",
        "student.name": "small_cnn",
        "method.name": "natural",
        "training.device": "cpu",
    },
    "first": [
        {"label": f"width {width}", "student.width": width, "optimizer.lr": 0.08}
        for width in (16, 4, 8)
    ],
    "objectives": ["clean_accuracy", "parameters"],
}


def write_space(folder: Path, name: str = "small.yaml", **changes: Any) -> Path:
    """The small space with these top-level names replaced; None leaves one out."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    values = {k: v for k, v in {**SMALL, **changes}.items() if v is not None}
    file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return file


def load_space(folder: Path, **changes: Any) -> SearchSpace:
    return SearchSpace.load(write_space(folder, **changes))


def load_child(folder: Path, child: str, **parent: Any) -> SearchSpace:
    """The small space with changes, and a child that extends it."""
    write_space(folder, "parent.yaml", **parent)
    (folder / "child.yaml").write_text(f"extends: parent.yaml\n{child}")
    return SearchSpace.load(folder / "child.yaml")


def measured(config: TrainConfig, epoch: int) -> tuple[float, float]:
    """Clean and robust accuracy of a simulated run.

    Smooth in the learning rate, rising with length, opposed between methods.
    """
    name = config.to_dict()["method"]["name"]
    grown = 1 - 0.5**epoch
    fit = math.exp(-(math.log10(config.optimizer.lr / 0.08) ** 2))
    clean, robust = {"natural": (0.95, 0.1), "pgd_at": (0.85, 0.5), "trades": (0.8, 0.6)}[name]
    return round(clean * grown * fit, 3), round(robust * grown * fit, 3)


class FakeWorker:
    """Runs assignments as `run_trial` does.

    It keeps a checkpoint with its history, and reports a finished epoch once more when taken up.
    """

    def __init__(self, moment: Callable[[str], None] = lambda name: None) -> None:
        # the trial, with the segment's folder where that is not the last, and the epoch
        self.trained: list[tuple[str, int]] = []
        self._moment = moment

    def run(self, assignment: Assignment) -> Iterator[EpochResult]:
        last = assignment.folder / "last.safetensors"
        history = (
            [EpochResult.from_dict(e) for e in checkpoint.read(last)[1]["history"]]
            if last.exists()
            else []
        )
        yield from history[-1:]
        for epoch in range(len(history) + 1, assignment.fidelities[-1].epochs + 1):
            fidelity = fidelity_at(assignment.fidelities, epoch)
            steps = fidelity.attack(assignment.config.attack).steps
            clean, robust = measured(assignment.config, epoch)
            self.trained.append(
                (
                    (
                        assignment.trial_id
                        if last.parent.name == assignment.trial_id
                        else f"{assignment.trial_id} {last.parent.name}"
                    ),
                    epoch,
                )
            )
            best = max(
                [*(h.best for h in history[-1:] if h.best), Best(epoch, clean, robust, robust)],
                key=lambda b: b.clean_accuracy,
            )
            result = EpochResult(
                epoch=epoch,
                epochs=assignment.config.training.epochs,
                loss=1.0,
                terms={},
                lr=0.1,
                seconds=1.0,
                images_per_second=1.0,
                training_attack_steps=steps,
                clean_accuracy=clean,
                robust_accuracy=robust,
                worst_class_accuracy=robust,
                best=best,
                robust_peak=robust,
                images=100,
                finished=1e9 + epoch,
                validation_attack_steps=fidelity.validation(
                    assignment.config.validation
                ).attack.steps,
            )
            history.append(result)
            checkpoint.write(last, {"w": torch.zeros(1)}, {"history": [asdict(h) for h in history]})
            self._moment("checkpoint written, not reported")
            yield result

    def drive(self, study: Study) -> None:
        """One worker, one assignment after another, until the study is done."""
        while not study.done:
            assignment = study.next()
            assert assignment is not None
            self._moment("asked, not begun")
            for result in self.run(assignment):
                if not study.report(assignment.trial_id, result, {"run.processes": 1}):
                    break
                self._moment("reported")
            self._moment("assignment over")
        study.close()


class AheadWorker(FakeWorker):
    """Ray's order where one trial runs at a time.

    The next trial is asked for as soon as one has begun, or as soon as there is one.
    """

    def drive(self, study: Study) -> None:
        assignment = study.next()
        while assignment is not None:
            ahead = study.next()
            self._moment("begun, and asked ahead")
            for result in self.run(assignment):
                on = study.report(assignment.trial_id, result, {"run.processes": 1})
                self._moment("reported")
                ahead = ahead or study.next()
                if not on:
                    break
            self._moment("assignment over")
            assignment = ahead
        assert study.done
        study.close()


TRIALS = 7


def run(
    folder: Path,
    space: SearchSpace,
    worker: FakeWorker | None = None,
    trials: int | None = TRIALS,
    **more: Any,
) -> Study:
    study = Study(folder, space, trials, {}, **more)
    study.reconcile()
    (worker or FakeWorker()).drive(study)
    return study


# A cap that is above what was searched caps nothing: some trials climb in one run, some in two.
CAPPED: dict[str, Any] = {
    "fixed": {k: v for k, v in SMALL["fixed"].items() if k != "attack.steps"},
    "search": {**SMALL["search"], "attack.steps": {"choice": [2, 10]}},
    "first": [{**SMALL["first"][0], "attack.steps": 10}],
    "ladder": [
        {"epochs": 1, "training_attack_steps": 2, "validation_attack_steps": 5},
        {"epochs": 2, "training_attack_steps": 2},
        {"epochs": 4},
    ],
}


def on_disk(folder: Path) -> dict[str, Any]:
    """What a study's tables say, times left out."""
    store = Store(folder)
    said = [
        "ordinal",
        "origin",
        "status",
        "hyperparameters",
        "notes",
        "metric.clean_accuracy",
        "fidelity.epochs",
    ]
    decided = ["trial_id", "epochs", "decision", "rank", "of", "robust_accuracy"]
    reached = ["trial_id", "segment", "epoch", "training_attack_steps", "clean_accuracy"]
    trials = store.trials({"trial_id", *said}.__contains__)[["trial_id", *said]]
    rungs = store.rungs(set(decided).__contains__)[decided]
    epochs = store.epochs(set(reached).__contains__)[reached]
    return {
        "trials": {r.pop("trial_id"): r for r in records(trials)},
        "rungs": sorted(tuple(r.values()) for r in records(rungs)),
        "epochs": [tuple(r.values()) for r in records(epochs)],
    }


def checkpoint_of(folder: Path, trial_id: str) -> Path:
    return ledger.folder_of(folder, trial_id) / "last.safetensors"

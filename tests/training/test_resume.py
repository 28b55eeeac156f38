import gc
import json
import os
import random
import signal
import time
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from rkdsearch import methods
from rkdsearch.accuracy import ImageResults
from rkdsearch.training import checkpoint
from rkdsearch.training.trainer import Trainer
from tests.training.runs import (
    TINY,
    assert_equal,
    assert_same_files,
    described,
    numbers,
    server,
    state,
    train,
)

# Beyond the defaults of every method: whatever a run may carry from one epoch to the next.
CARRIED: dict[str, tuple[str | dict[str, Any], dict[str, Any]]] = {
    "a noise matrix": ({"name": "crdnd", "compensation": "matrix"}, {}),
    "a projector": ({"name": "crdnd", "relation": "cross_infonce"}, {}),
    "an ema and batchnorm": ("mtard", {"averaging": {"name": "ema", "decay": 0.9}, **TINY}),
    "an swa and batchnorm": ("bmtard", {"averaging": {"name": "swa", "start": 0.4}, **TINY}),
    "adamw's moments": ("rslad", {"optimizer": {"name": "adamw", "lr": 0.01}}),
    "adamw's moments of a peer": ("peeraid", {"optimizer": {"name": "adamw", "lr": 0.01}, **TINY}),
    "nesterov, clipping and microbatches": (
        "iad",
        {"optimizer": {"nesterov": True, "gradient_clip": 0.1}, "training": {"microbatches": 2}},
    ),
    "augmentation": (
        "trades",
        {"data": {"augment": "crop_flip"}, "schedule": {"name": "onecycle"}},
    ),
    "float64": ("mtard", {"training": {"precision": "fp64", "channels_last": False}}),
    "bfloat16": ("rslad", {"training": {"precision": "bf16"}, **TINY}),
    "a best epoch that stands": ("pgd_at", {"validation": {"every": 2}, "optimizer": {"lr": 1.0}}),
}
CASES = {name: (name, {}) for name in methods.names()} | CARRIED


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_resumed_is_bit_for_bit_the_run_that_never_stopped(
    teachers: Path, tmp_path: Path, case: str
) -> None:
    method, overrides = CASES[case]
    training = {"epochs": 3, "batch_size": 50, **overrides.get("training", {})}
    config = described(teachers, method, **{**overrides, "training": training})
    whole = train(config, tmp_path / "whole")
    for epochs in (1, 2, 3):
        resumed = train(config, tmp_path / "resumed", epochs=epochs)
    assert_equal(state(whole), state(resumed))
    assert numbers(whole.history) == numbers(resumed.history)
    assert_same_files(tmp_path / "whole", tmp_path / "resumed")


def test_a_run_carries_what_its_method_remembers(teachers: Path, tmp_path: Path) -> None:
    config = described(teachers, "bmtard", training={"epochs": 2})
    first = train(config, tmp_path, epochs=1)
    again = Trainer(config, tmp_path)
    again.resume()
    assert set(again.objective.memory) >= {"weights", "temperatures"}
    assert {k: v.tolist() for k, v in again.objective.memory.items()} == {
        k: v.tolist() for k, v in first.objective.memory.items()
    }


def test_a_finished_run_has_no_epoch_left(teachers: Path, tmp_path: Path) -> None:
    config = described(teachers)
    train(config, tmp_path)
    again = Trainer(config, tmp_path)
    assert list(again.epochs()) == []
    assert len(again.history) == 2


def test_a_run_without_a_folder_keeps_nothing_and_gives_the_same(
    teachers: Path, tmp_path: Path
) -> None:
    kept, free = train(described(teachers), tmp_path), train(described(teachers))
    assert_equal(state(kept), state(free))


class Killed(BaseException):
    """Nothing in the code under test may handle it, as nothing handles SIGKILL."""


def killed_while_saving(monkeypatch: pytest.MonkeyPatch, change: int) -> None:
    """Let the process end before its `change`th change of the folder's names, counted from 1."""
    done = []

    def before(whole: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            done.append(1)
            if len(done) == change:
                raise Killed
            return whole(*arguments, **options)

        return counted

    monkeypatch.setattr(os, "link", before(os.link))
    monkeypatch.setattr(os, "replace", before(os.replace))
    monkeypatch.setattr(Path, "unlink", before(Path.unlink))


# The changes of an epoch that is the best: room for the old best is made, it is kept, the new one
# named, the state named, the old best forgotten.
@pytest.mark.parametrize(
    ("change", "delivered"), [(1, 0.3), (2, 0.3), (3, 0.3), (4, 0.3), (5, 0.9)]
)
def test_the_best_network_is_of_an_epoch_that_the_run_knows_though_a_repeated_one_is_not_the_same(
    teachers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: int, delivered: float
) -> None:
    # As on a GPU, where an epoch that is repeated may turn out worse than the one that was lost.
    found = iter([0.3, 0.9, 0.1, 0.1])
    ten = torch.arange(10)

    def validate(_: Trainer, _fidelity: object) -> tuple[ImageResults, None]:
        right = ten < next(found) * 10
        return ImageResults(torch.zeros(10, dtype=torch.int64), right, right), None

    monkeypatch.setattr(Trainer, "validate", validate)
    config = described(teachers, "natural", training={"epochs": 3})
    train(config, tmp_path, epochs=1)
    with monkeypatch.context() as patch:
        killed_while_saving(patch, change)
        with pytest.raises(Killed):
            train(config, tmp_path)
    assert (tmp_path / "best.safetensors").exists()
    run = Trainer(config, tmp_path)
    run.resume()
    for history in (run.history, train(config, tmp_path).history):
        best, tensors = history[-1].best, checkpoint.state_of(tmp_path / "best.safetensors")["best"]
        assert best is not None
        assert tensors == json.loads(json.dumps(asdict(best)))  # tuples are lists there
        assert best.clean_accuracy == delivered
    assert {path.name for path in tmp_path.iterdir()} == {"last.safetensors", "best.safetensors"}


# ----------------------------------------------------------------------------------- SIGKILL

LONG_RUN = {"training": {"epochs": 60, "batch_size": 50}, "averaging": {"name": "ema"}}


def _live(teachers: Path, folder: Path, ready: Connection) -> None:
    # else a collection looks at all that was preloaded, for longer than the run is left alive
    gc.freeze()
    trainer = Trainer(described(teachers, "mtard", **LONG_RUN), folder)
    ready.send("at work")
    for _ in trainer.epochs():
        pass


def lives_and_deaths(teachers: Path, folder: Path, kills: int, seconds: float) -> int:
    """Kill and resume a run so many times; returns the number of its finished epochs.

    `seconds` is what the run takes by itself: its lives together are shorter, on any machine.
    """
    chance = random.Random(kills)
    folder.mkdir()
    for _ in range(kills):
        listening, ready = server().Pipe(duplex=False)
        process = server().Process(target=_live, args=(teachers, folder, ready))
        process.start()
        ready.close()
        assert listening.poll(60)
        listening.recv()
        time.sleep(chance.uniform(0, 0.9 * seconds / kills))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the run ended before it could be killed"
    trainer = Trainer(described(teachers, "mtard", **LONG_RUN), folder)
    return len(trainer.resume())


@pytest.mark.parametrize(
    "kills", [3, pytest.param(20, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
)
def test_a_run_that_was_killed_at_any_moment_ends_as_if_nothing_had_happened(
    teachers: Path, tmp_path: Path, kills: int
) -> None:
    config = described(teachers, "mtard", **LONG_RUN)
    begun = time.perf_counter()
    train(config, tmp_path / "whole")
    seconds = time.perf_counter() - begun
    survived = lives_and_deaths(teachers, tmp_path / "killed", kills, seconds)
    assert survived > 0, "every kill came before the first checkpoint: nothing was tested"
    train(config, tmp_path / "killed")
    assert_same_files(tmp_path / "killed", tmp_path / "whole")
    assert {path.name for path in (tmp_path / "killed").iterdir()} == {
        "last.safetensors",
        "best.safetensors",
    }

"""Runs under a second: a hundred digits, tiny networks, untrained teachers; and comparisons."""

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, distributed

from rkdsearch import config as configs
from rkdsearch import models, plugins
from rkdsearch.config import TrainConfig
from rkdsearch.models import ModelConfig
from rkdsearch.training import checkpoint
from rkdsearch.training.epoch import EpochResult
from rkdsearch.training.trainer import Trainer
from tests.tasks import DIGITS

FLOAT64 = {"precision": "fp64", "epochs": 2, "batch_size": 25}
TINY = {"student": {"name": "tests.training.networks.Tiny"}}
CLOCKS = ("seconds", "images_per_second", "finished")
# Imported once, by the server that forks the processes of these tests.
PRELOADED = ["tests.training.test_resume", "rkdsearch.methods.mtard"]


def teacher_file(path: Path, *, seed: int, width: int = 4) -> Path:
    """A small CNN's fresh weights: what a teacher knows does not matter here."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = models.build(ModelConfig(width=width), DIGITS)
    save_file(network.state_dict(), path)
    return path


def described(
    folder: Path, method: str | dict[str, Any] = "rslad", /, **overrides: Any
) -> TrainConfig:
    """A run of two epochs of four steps, with teachers from `folder`, under `overrides`."""
    plugins.allow_import("tests.training")
    network = {"name": "small_cnn", "width": 4}
    base: dict[str, Any] = {
        "method": {"name": method} if isinstance(method, str) else method,
        "data": {"name": "digits", "train_images": 100},
        "student": {"name": "small_cnn", "width": 2},
        "teachers": {
            role: {"path": str(folder / f"{role}.safetensors"), "network": network}
            for role in ("robust", "natural")
        },
        "attack": {"eps": 0.1, "steps": 2},
        "validation": {"attack": {"eps": 0.1, "steps": 1}, "images": 30},
        "optimizer": {"lr": 0.05},
        "training": {"epochs": 2, "batch_size": 25, "device": "cpu"},
    }
    return configs.build(configs.merge(base, overrides))


def train(config: TrainConfig, folder: Path | None = None, epochs: int | None = None) -> Trainer:
    """Train up to so many finished epochs, all by default; resumes from `folder`."""
    trainer = Trainer(config, folder)
    running = trainer.epochs()
    trainer.resume()
    while len(trainer.history) < (config.training.epochs if epochs is None else epochs):
        next(running)
    return trainer


def train_alone(config: TrainConfig, folder: Path) -> Iterator[EpochResult]:
    """Train as `rkdsearch train` does: first the recipes, then the run with its rows."""
    # Rows need pandas, which the tests of a GPU do without.
    from rkdsearch.training.run import single_run, teacher_epochs, with_teachers

    for _ in teacher_epochs(config, folder / "teachers"):
        pass
    yield from single_run(Trainer(with_teachers(config, folder / "teachers"), folder))


def numbers(history: list[EpochResult]) -> list[dict[str, object]]:
    """All of the epochs but their clocks."""
    return [
        {name: value for name, value in vars(epoch).items() if name not in CLOCKS}
        for epoch in history
    ]


def state(trainer: Trainer) -> dict[str, Tensor]:
    """Every tensor that the run has moved."""
    found = {f"objective.{k}": v for k, v in trainer.objective.state_dict().items()}
    found |= {f"memory.{k}": v for k, v in trainer.objective.memory.items()}
    for number, optimizer in enumerate(trainer.optimizers):
        moments = optimizer.state_dict()["state"]
        found |= {
            f"optimizer{number}.{i}.{k}": torch.as_tensor(v)
            for i, of in moments.items()
            for k, v in of.items()
            if v is not None
        }
    if trainer.average is not None:
        found |= {f"average.{k}": v for k, v in trainer.average.network.state_dict().items()}
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert one.keys() == other.keys()
    different = [
        name
        for name in one
        if one[name].dtype != other[name].dtype or not torch.equal(one[name], other[name])
    ]
    assert different == []


def assert_same_files(one: Path, other: Path) -> None:
    """`last` and `best` hold the same numbers; clocks may differ."""
    for name in ("last.safetensors", "best.safetensors"):
        tensors, said = checkpoint.read(one / name)
        others, other_said = checkpoint.read(other / name)
        assert_equal(tensors, others)
        for epoch in [*said.get("history", []), *other_said.get("history", [])]:
            for clock in CLOCKS:
                del epoch[clock]
        assert said == other_said


# --------------------------------------------------------------------------------- processes


def server() -> ForkServerContext:
    """Processes that start in milliseconds, forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def gang(work: Callable[[Path], None], folder: Path, processes: int = 2) -> None:
    """Run `work(folder)` in processes as torchrun's. Raises AssertionError if one fails."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    members = [
        server().Process(target=_member, args=(work, folder, rank, processes, port))
        for rank in range(processes)
    ]
    for member in members:
        member.start()
    for member in members:
        member.join(100)
    alive = [member for member in members if member.is_alive()]
    for member in alive:
        member.kill()
    errors = sorted(path.read_text() for path in folder.glob("error-*"))
    assert [member.exitcode for member in members] == [0] * processes, "\n".join(errors)
    assert not alive


def _member(
    work: Callable[[Path], None], folder: Path, rank: int, processes: int, port: int
) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(processes),
        LOCAL_WORLD_SIZE=str(processes),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",
    )
    torch.set_num_threads(1)
    try:
        work(folder)
        if distributed.is_initialized():
            distributed.destroy_process_group()
    except BaseException as error:
        (folder / f"error-{rank}").write_text(f"rank {rank}: {type(error).__name__}: {error}")
        raise


def teachers_in(folder: Path) -> Path:
    """The folder, with a robust and a natural teacher in it."""
    for seed, role in enumerate(("robust", "natural")):
        teacher_file(folder / f"{role}.safetensors", seed=seed)
    return folder

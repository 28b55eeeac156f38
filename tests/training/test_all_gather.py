"""Two processes are one: the same run, and the same resumed."""

from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rkdsearch.cli.teacher import train as train_teacher
from rkdsearch.errors import ConfigError, NonFiniteLossError
from rkdsearch.teacher import fingerprint
from rkdsearch.training import checkpoint
from rkdsearch.training.accelerator import accelerator_for
from rkdsearch.training.all_gather import gather_rows
from rkdsearch.training.trainer import Trainer
from tests.training.runs import TINY, assert_same_files, described, gang, teachers_in, train
from tests.training.test_teacher import RECIPE

FLOAT64 = {"precision": "fp64", "epochs": 2, "batch_size": 50}
SAME: dict[str, dict[str, Any]] = {
    "rslad": {"averaging": {"name": "ema"}, "optimizer": {"gradient_clip": 0.2}},
    "mtard": {},
    "peeraid": {},
    "crdnd": {"data": {"augment": "crop_flip"}, "training": {"epochs": 1}},
    # DDP must look for parameters without gradient until the teacher's copy learns, in the second
    # epoch.
    "ciard": {"method": {"name": "ciard", "retraining_start": 0.5}},
    # Parts of a batch on their own draw other noise, so there is none; but for the last, DDP does
    # not sum their gradients.
    "rslad in parts": {
        "method": {"name": "rslad"},
        "attack": {"start": "none"},
        "training": {"microbatches": 2, "epochs": 1},
    },
}


def test_one_process_gathers_nothing() -> None:
    rows = torch.rand(3, 2)
    assert gather_rows(rows) is rows


def test_a_launcher_that_promises_processes_and_starts_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    # What `accelerate launch --cpu --num_processes 2` gives to the one process that it starts.
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    config = described(Path())
    with pytest.raises(
        ConfigError,
        match=(
            r"on CPUs it starts one, whatever --num_processes says; use `torchrun"
            r" --nproc-per-node 2"
        ),
    ):
        accelerator_for(config)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert accelerator_for(config).num_processes == 1
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("MASTER_ADDR")  # `--num_processes 1`
    assert accelerator_for(config).num_processes == 1


def run(teachers: Path, name: str) -> Any:
    overrides = {
        "method": name,
        **SAME[name],
        "training": {**FLOAT64, **SAME[name].get("training", {})},
    }
    return described(teachers, overrides.pop("method"), **overrides)


def _work(folder: Path) -> None:
    torch.use_deterministic_algorithms(mode=True)
    for name in SAME:
        trainer = train(run(folder, name), folder / "two" / name)
        assert trainer.processes == 2
    with_batchnorm = described(
        folder,
        "mtard",
        averaging={"name": "swa", "start": 0.0},
        training={"epochs": 3, "batch_size": 50},
        **TINY,
    )
    trainer = train(with_batchnorm, folder / "whole")
    mine = torch.cat(
        [
            b.double().flatten()
            for b in [*trainer.objective.buffers(), *trainer.average.network.buffers()]
        ]
    )
    assert torch.equal(gather_rows(mine[None])[0], gather_rows(mine[None])[1]), (
        "each process judges a network of its own"
    )
    seeds = gather_rows(torch.tensor([torch.initial_seed()]))
    assert seeds[0] != seeds[1], "dropout is the same in all processes"
    for epochs in (1, 2, 3):
        train(with_batchnorm, folder / "resumed", epochs=epochs)
        trainer.accelerator.wait_for_everyone()
    with pytest.raises(ConfigError, match=r"training\.batchnorm_across must be 'averaged' on CPU"):
        Trainer(
            described(
                folder, training={"batchnorm_across": "synchronised", "batch_size": 50}, **TINY
            )
        )
    spoilt = Trainer(described(folder, "natural", training={"batch_size": 50}))
    if spoilt.rank == 1:
        spoilt._batches._scale = float("nan")
    with pytest.raises(
        NonFiniteLossError,
        match=r"epoch 1, batch 1: the loss (is nan|of another process is not finite)",
    ):
        list(spoilt.epochs())
    with (folder / f"said-{spoilt.rank}").open("w") as spoken, redirect_stdout(spoken):
        train_teacher(folder / "run.yaml", cache=folder / "cache")  # last: it leaves the group


def test_two_processes_train_what_one_does_and_resume_bit_for_bit(tmp_path: Path) -> None:
    folder = teachers_in(tmp_path)
    with_recipe = described(folder, teachers={"robust": {"path": None, "recipe": RECIPE}})
    (folder / "run.yaml").write_text(yaml.safe_dump(with_recipe.to_dict()))
    gang(_work, folder)
    for name in SAME:
        one = train(run(folder, name), folder / "one" / name)
        two, said = checkpoint.read(folder / "two" / name / "last.safetensors")
        alone, _ = checkpoint.read(folder / "one" / name / "last.safetensors")
        assert two.keys() == alone.keys()
        for key, tensor in alone.items():
            torch.testing.assert_close(
                two[key],
                tensor,
                rtol=0,
                atol=1e-9,
                msg=lambda text, name=name, key=key: f"{name}, {key}: {text}",
            )
        for mine, theirs in zip(one.history, said["history"], strict=True):
            assert theirs["loss"] == pytest.approx(mine.loss, abs=1e-9)
            assert theirs["terms"] == pytest.approx(mine.terms, abs=1e-9)
            assert (theirs["clean_accuracy"], theirs["robust_accuracy"]) == (
                mine.clean_accuracy,
                mine.robust_accuracy,
            )
    assert_same_files(folder / "whole", folder / "resumed")
    (made,) = (folder / "cache").glob("*/best.safetensors")
    lines = (folder / "said-0").read_text().splitlines()
    assert [line.split()[:4] for line in lines[:2]] == [["epoch", n, "of", "2"] for n in "12"]
    assert lines[-1].endswith(f"teachers.robust.sha256: {fingerprint(made)}")
    assert (folder / "said-1").read_text() == ""

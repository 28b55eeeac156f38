"""A run alone: its rows, its teachers; and the same under the launchers of several processes."""

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from rkdsearch import data, plugins
from rkdsearch.errors import (
    CheckpointError,
    ConfigError,
    DiskError,
    NonFiniteLossError,
    OutOfMemoryError,
    StudyError,
)
from rkdsearch.results.store import Store
from rkdsearch.training.run import exclusive_folder
from rkdsearch.training.teacher import measure
from rkdsearch.training.trainer import Trainer
from tests.foreign_networks import Viewing
from tests.training.runs import described, teacher_file, teachers_in, train, train_alone
from tests.training.test_teacher import RECIPE

ROOT = Path(__file__).parents[2]


def test_a_run_leaves_its_checkpoints_and_a_trials_rows(teachers: Path, tmp_path: Path) -> None:
    epochs = list(train_alone(described(teachers), tmp_path / "alone"))
    store = Store(tmp_path / "alone")
    (row,) = store.trials().to_dict("records")
    assert (row["trial_id"], row["status"], row["config.method.name"]) == (
        "run",
        "finished",
        "rslad",
    )
    assert row["metric.best_epoch"] in (1, 2)
    assert [e.epoch for e in epochs] == [1, 2]
    assert len(store.epochs()) == 2


def test_a_run_that_goes_on_writes_no_epoch_twice(teachers: Path, tmp_path: Path) -> None:
    running = train_alone(described(teachers), tmp_path)
    next(running)
    running.close()
    assert Store(tmp_path).trials()["status"].tolist() == ["running"]
    assert [e.epoch for e in train_alone(described(teachers), tmp_path)] == [2]
    assert Store(tmp_path).epochs()["epoch"].tolist() == [1, 2]


def test_a_run_that_fails_says_so_in_its_row(
    teachers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = train_alone(described(teachers), tmp_path)
    next(running)

    def spoil(*_: object) -> None:
        raise NonFiniteLossError("epoch 2, batch 1: the loss is nan; likely causes: optimizer.lr")

    monkeypatch.setattr(Trainer, "_step", spoil)
    with pytest.raises(NonFiniteLossError):
        list(running)
    (row,) = Store(tmp_path).trials().to_dict("records")
    assert (row["status"], row["failure"], row["fidelity.epochs"]) == ("failed", "loss", 1)
    assert "likely causes: optimizer.lr" in row["error"]


def test_a_run_that_found_no_memory_says_so_in_its_row(
    teachers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = train_alone(described(teachers), tmp_path)
    next(running)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", full)
        with pytest.raises(OutOfMemoryError):
            list(running)
    (row,) = Store(tmp_path).trials().to_dict("records")
    assert (row["status"], row["failure"], row["fidelity.epochs"]) == ("failed", "memory", 1)
    assert row["error"].startswith(
        "epoch 2: the device is out of memory; lower training.batch_size (now 25)"
    )
    assert [e.epoch for e in train_alone(described(teachers), tmp_path)] == [2]
    assert Store(tmp_path).trials()["status"].tolist() == ["finished"]


def rows_in(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for table in ("trials", "epochs")
        for file in (folder / table).iterdir()
    }


def test_a_run_of_another_config_is_refused_and_leaves_the_rows_of_the_finished_one(
    teachers: Path, tmp_path: Path
) -> None:
    list(train_alone(described(teachers), tmp_path))
    before = rows_in(tmp_path)
    with pytest.raises(
        CheckpointError,
        match=(
            r"belongs to a run with another config: optimizer\.lr was 0\.05, is 0\.06; give this"
            r" run its"
        ),
    ):
        list(train_alone(described(teachers, optimizer={"lr": 0.06}), tmp_path))
    assert rows_in(tmp_path) == before
    # which has nothing to say of a finished run either
    assert list(train_alone(described(teachers), tmp_path)) == []
    assert rows_in(tmp_path) == before


@pytest.mark.parametrize(("epochs", "status"), [(1, "running"), (2, "finished")])
def test_rows_that_a_kill_kept_from_being_written_are_written_when_the_run_is_started_again(
    teachers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, status: str
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    running = train_alone(described(teachers), tmp_path)
    for _ in range(epochs - 1):
        next(running)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_epochs", killed)  # the epoch's checkpoint is there
        with pytest.raises(Killed):
            next(running)
    again = train_alone(described(teachers), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "epochs", killed)
        with pytest.raises(Killed):
            next(again)
    (row,) = Store(tmp_path).trials().to_dict("records")
    assert (row["status"], row["fidelity.epochs"]) == (status, epochs)
    assert len(Store(tmp_path).epochs()) == epochs


def test_a_full_disk_is_no_failure_of_the_run(
    teachers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    running = train_alone(described(teachers), tmp_path)
    next(running)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(
            DiskError, match="No space left on device; the previous checkpoint is intact"
        ):
            list(running)
    assert Store(tmp_path).trials()["status"].tolist() == ["running"]
    assert [e.epoch for e in train_alone(described(teachers), tmp_path)] == [2]


def test_a_teacher_with_a_recipe_is_trained_first_and_only_once(
    teachers: Path, tmp_path: Path
) -> None:
    config = described(teachers, teachers={"robust": {"path": None, "recipe": RECIPE}})
    list(train_alone(config, tmp_path))
    (made,) = (tmp_path / "teachers").iterdir()
    before = (made / "best.safetensors").stat().st_mtime_ns
    assert list(train_alone(config, tmp_path)) == []
    assert (made / "best.safetensors").stat().st_mtime_ns == before


def test_a_run_goes_on_wherever_its_folder_and_its_teachers_file_were_moved(
    teachers: Path, tmp_path: Path
) -> None:
    for name, robust in (("recipe", {"path": None, "recipe": RECIPE}), ("file", {})):
        running = train_alone(described(teachers, teachers={"robust": robust}), tmp_path / name)
        next(running)
        (tmp_path / "moved").mkdir(exist_ok=True)
        shutil.move(tmp_path / name, tmp_path / "moved" / name)
        elsewhere = shutil.copytree(teachers, tmp_path / "moved" / "teachers", dirs_exist_ok=True)
        again = described(elsewhere, teachers={"robust": robust})
        assert [e.epoch for e in train_alone(again, tmp_path / "moved" / name)] == [2]


def test_a_student_or_teacher_that_needs_contiguous_images_is_refused_before_any_training(
    teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "_allowed", {"tests"})
    viewing = {"name": "tests.foreign_networks.Viewing", "width": None}
    law = r"Viewing takes contiguous images only, and fails on images laid out channels last"
    with pytest.raises(ConfigError, match=law):
        Trainer(described(teachers, student=viewing))
    for averaging in ("none", "swa"):
        train(
            described(
                teachers,
                student=viewing,
                training={"channels_last": False},
                averaging={"name": averaging},
            )
        )
    save_file(Viewing().state_dict(), teachers / "viewing.safetensors")
    with pytest.raises(ConfigError, match=law):
        Trainer(
            described(
                teachers,
                teachers={
                    "robust": {"path": str(teachers / "viewing.safetensors"), "network": viewing}
                },
            )
        )
    taught = {"robust": {"path": str(teachers / "viewing.safetensors"), "network": viewing}}
    last = described(teachers, teachers=taught)
    assert last.teachers.robust is not None
    with pytest.raises(ConfigError, match=law):
        measure(last.teachers.robust, last)
    contiguous = described(teachers, teachers=taught, training={"channels_last": False})
    train(contiguous)
    assert contiguous.teachers.robust is not None
    assert measure(contiguous.teachers.robust, contiguous).images == 30


def test_a_run_does_not_go_on_with_other_images(
    teachers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    next(train_alone(described(teachers), tmp_path))
    found = data.load_training(described(teachers).data)
    monkeypatch.setattr(data, "load_training", lambda _: replace(found, fingerprint="0" * 64))
    with pytest.raises(
        CheckpointError,
        match=(
            r"last.safetensors: belongs to a run with other images: split_sha256 was .\w+., is"
            r" .0{64}.; put the right ones back"
        ),
    ):
        next(train_alone(described(teachers), tmp_path))


def test_a_run_does_not_go_on_with_another_teacher_in_the_place_of_its_own(tmp_path: Path) -> None:
    config = described(teachers_in(tmp_path))
    next(Trainer(config, str(tmp_path / "run")).epochs())
    teacher_file(tmp_path / "robust.safetensors", seed=7)
    with pytest.raises(
        CheckpointError,
        match=(
            r"last\.safetensors: belongs to a run with other teachers: teachers was .*; put the"
            r" right ones back"
        ),
    ):
        next(Trainer(config, tmp_path / "run").epochs())


def test_a_run_does_not_go_on_with_other_generated_images(
    teachers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    next(train_alone(described(teachers), tmp_path))
    found = data.load_training(described(teachers).data)
    monkeypatch.setattr(data, "load_training", lambda _: replace(found, extra_pixels="0" * 64))
    with pytest.raises(
        CheckpointError,
        match=(
            r"last\.safetensors: belongs to a run with another data\.extra: extra_sha256 was null,"
            r" is .0+.; put"
        ),
    ):
        next(train_alone(described(teachers), tmp_path))


def launched(folder: Path, *launcher: str) -> str:
    """Output of a launcher's processes that train from a YAML file with a recipe."""
    values: dict[str, Any] = described(
        teachers_in(folder), teachers={"robust": {"path": None, "recipe": RECIPE}}
    ).to_dict()
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            *launcher,
            "-m",
            "rkdsearch",
            "train",
            "run.yaml",
            "training.batch_size=50",
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.timeout(600)  # three interpreters one after another, each with torch and Accelerate
@pytest.mark.parametrize(
    ("launcher", "processes"),
    [
        (("accelerate.commands.launch", "--cpu", "--num_processes", "1"), 1),
        (("torch.distributed.run", "--nproc-per-node", "1"), 1),
        (("torch.distributed.run", "--nproc-per-node", "2"), 2),
    ],
    ids=["accelerate launch", "torchrun of one", "torchrun of two"],
)
def test_the_command_trains_under_launchers_and_one_process_speaks(
    tmp_path: Path, launcher: tuple[str, ...], processes: int
) -> None:
    said = launched(tmp_path, *launcher)
    assert [line.split()[:4] for line in said.splitlines() if line.startswith("epoch")] == [
        ["epoch", n, "of", "2"] for n in "12"
    ]
    (row,) = Store(tmp_path / "runs" / "run").trials().to_dict("records")
    assert (row["status"], row["run.processes"], row["fidelity.epochs"]) == (
        "finished",
        processes,
        2,
    )


def test_a_single_run_adds_nothing_to_the_folder_of_a_search(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{}", encoding="utf-8")
    config = described(tmp_path, "natural")
    with pytest.raises(StudyError, match=r"is the folder of a search; .* another with --folder$"):
        exclusive_folder(config, tmp_path)

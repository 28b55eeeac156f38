"""`rkdsearch train`: the lines that it prints, and the folders that it locks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rkdsearch.cli.progress import epoch_line, seconds_left
from rkdsearch.cli.teacher import train as train_teacher
from rkdsearch.cli.train import train
from rkdsearch.errors import CheckpointError, ConfigError, DiskError, StudyError
from rkdsearch.training.epoch import Best, EpochResult
from rkdsearch.training.trainer import Trainer
from tests.cli.test_teacher import CONFIG


def epoch(number: int, *, seconds: float = 1.0, best: int = 1) -> EpochResult:
    return EpochResult(
        number,
        200,
        1.23456,
        {},
        0.1,
        seconds,
        12345.6,
        10,
        0.8,
        0.5,
        0.1,
        best=Best(best, 0.8, 0.5, 0.1),
    )


def test_a_run_says_what_it_trains_on_then_each_epoch_and_its_best_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG, encoding="utf-8")
    given = ("training.epochs=2", "averaging.decay=0.5")
    train(tmp_path / "run.yaml", *given, folder=tmp_path / "alone")
    unread, *lines = capsys.readouterr().out.splitlines()
    assert unread == (
        "averaging.decay 0.5: has no effect, because averaging.name is none, and ema alone has it"
    )
    assert [line.partition("  loss")[0] for line in lines[:3]] == [
        f"robust teacher: epoch   {n} of 3" for n in (1, 2, 3)
    ]
    assert re.fullmatch(
        r"cpu \(.+\), 1 process, \d+ threads?: 944 training and 200 validation images of digits, 8"
        r" batches an epoch",
        lines[3],
    )
    assert re.fullmatch(
        r"epoch   1 of 2  loss \S+  clean \S+  robust \S+  best  \d+ images/s  about \d+ s left",
        lines[4],
    )
    assert re.fullmatch(
        r"epoch   2 of 2  loss \S+  clean \S+  robust \S+(  best)?  \d+ images/s", lines[5]
    )
    assert re.fullmatch(r"best epoch [12]: clean 0\.\d{3}, robust 0\.\d{3}", lines[6])
    assert re.fullmatch(
        r"WARNING: this student never left chance: clean accuracy 0\.\d{3} on \d+ images, a"
        r" constant prediction has 0\.10\d; its robust accuracy says nothing",
        lines[7],
    )
    assert lines[8].endswith("alone: best.safetensors, last.safetensors, and the row in trials/")
    train(tmp_path / "run.yaml", *given, folder=tmp_path / "alone")
    assert capsys.readouterr().out.splitlines() == [
        unread,
        "nothing left to do: 2 epochs are trained",
        *lines[6:],
    ]


SECOND = """
import sys
from pathlib import Path
from rkdsearch.errors import RkdError
from rkdsearch.file_lock import one_writer
try:
    with one_writer(Path(sys.argv[1]), "read", "come back later"):
        print("nobody is there")
except RkdError as error:
    print(error)
"""


def second_in(folder: Path) -> str:
    """The error of a second process that wants to write to this folder."""
    return subprocess.run(
        [sys.executable, "-c", SECOND, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    ).stdout


def test_while_a_run_or_a_teacher_is_trained_no_second_process_gets_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG, encoding="utf-8")
    told: dict[str, str] = {}

    def ask(line: str) -> None:
        if line.startswith(("robust teacher: epoch   1", "epoch   1")):
            folder = (
                next((tmp_path / "alone" / "teachers").iterdir())
                if line.startswith("robust")
                else tmp_path / "alone"
            )
            told[line.partition("epoch")[0]] = second_in(folder)

    monkeypatch.setattr("rkdsearch.cli.console.say", ask)
    train(tmp_path / "run.yaml", folder=tmp_path / "alone")
    who = rf" is being trained in by process {os.getpid()} on .* UTC; come back later"
    assert re.search(rf"alone/teachers/\w+:{who}", told["robust teacher: "])
    assert re.search(rf"alone:{who}", told[""])
    assert second_in(tmp_path / "alone") == "nobody is there\n"


def test_a_teacher_that_teacher_train_is_training_is_not_trained_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG, encoding="utf-8")
    told: list[str] = []
    monkeypatch.setattr(
        "rkdsearch.cli.console.say",
        lambda line: (
            told.append(second_in(next((tmp_path / "cache").iterdir())))
            if line.startswith("epoch   1")
            else None
        ),
    )
    train_teacher(tmp_path / "run.yaml", cache=tmp_path / "cache")
    assert len(told) == 1
    assert f"is being trained in by process {os.getpid()} on " in told[0]


def test_a_second_train_in_a_folder_is_refused_before_it_reads_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.setattr(Trainer, "__init__", None)
    hold = SECOND.replace('print("nobody is there")', 'print("held", flush=True); input()')
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "alone")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(
            StudyError,
            match=(
                rf"alone: is being read by process {first.pid} on .*; wait for its end, or give"
                r" this run a folder of its"
            ),
        ):
            train(tmp_path / "run.yaml", folder=tmp_path / "alone")
        first.kill()


def test_a_place_that_cannot_be_written_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(Trainer, "__init__", None)
    with pytest.raises(
        DiskError,
        match=(
            r"file/alone: could not be written: Not a directory; is the folder yours, and the disk"
            r" not full\?"
        ),
    ):
        train(tmp_path / "run.yaml", folder=tmp_path / "file" / "alone")


def test_a_student_that_cannot_be_trained_is_told_before_its_teacher_is(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG, encoding="utf-8")
    with pytest.raises(ConfigError, match="Viewing takes contiguous images only"):
        train(
            tmp_path / "run.yaml",
            "student.name=tests.foreign_networks.Viewing",
            folder=tmp_path / "alone",
            allow_import=("tests",),
        )
    assert not list((tmp_path / "alone").rglob("*.safetensors"))


def test_a_run_whose_best_network_is_gone_says_what_is_lost(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG, encoding="utf-8")
    train(tmp_path / "run.yaml", "method.name=natural", folder=tmp_path / "alone")
    (tmp_path / "alone" / "best.safetensors").unlink()
    law = (
        r"alone/best.safetensors: is gone, and with it the network of epoch 1, the best so far; put"
        r" it back, or delete last.safetensors to"
    )
    with pytest.raises(CheckpointError, match=law):
        train(tmp_path / "run.yaml", "method.name=natural", folder=tmp_path / "alone")


def test_what_takes_long_says_how_far_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rkdsearch.pace.EVERY_SECONDS", 0.0)
    (tmp_path / "run.yaml").write_text(CONFIG, encoding="utf-8")
    train(
        tmp_path / "run.yaml", "method.name=natural", "training.epochs=1", folder=tmp_path / "alone"
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch 1: ")]
    assert [line.partition(",")[0] for line in lines] == [
        f"epoch 1: {done} of 8 batches" for done in range(1, 8)
    ]
    assert re.fullmatch(r"epoch 1: 4 of 8 batches, about \d+ s left", lines[3])


def test_an_epochs_line_is_no_wider_than_110_columns_and_marks_the_best() -> None:
    assert (
        epoch_line(epoch(1), 7.0)
        == "epoch   1 of 200  loss 1.2346  clean 0.800  robust 0.500  best  12346 images/s  about 7"
        " s left"
    )
    assert (
        epoch_line(epoch(2))
        == "epoch   2 of 200  loss 1.2346  clean 0.800  robust 0.500  12346 images/s"
    )
    assert len(epoch_line(epoch(100, best=100), 999_999.0)) <= 110


def test_time_left_is_what_the_epochs_to_come_take_at_the_pace_of_those_done() -> None:
    assert seconds_left([epoch(1, seconds=4.0), epoch(2, seconds=2.0)]) == 198 * 3.0
    assert seconds_left([epoch(200)]) is None

"""`rkdsearch train`: what a person reads while one run is trained."""

import re
from pathlib import Path

import pytest

from rkdsearch.cli.progress import epoch_line, seconds_left
from rkdsearch.cli.train import train
from rkdsearch.training.epoch import Best, EpochResult
from tests.cli.test_teacher import CONFIG


def epoch(number: int, *, seconds: float = 1.0, best: int = 1) -> EpochResult:
    return EpochResult(number, 200, 1.23456, {}, 0.1, seconds, 12345.6, 10, 0.8, 0.5, 0.1, best=Best(best, 0.8, 0.5, 0.1))


def test_a_run_says_what_it_trains_on_then_each_epoch_and_its_best_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text(CONFIG, encoding="utf-8")
    train(tmp_path / "run.yaml", "training.epochs=2", folder=tmp_path / "alone")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("  loss")[0] for line in lines[:3]] == [f"robust teacher: epoch   {n} of 3" for n in (1, 2, 3)]
    assert re.fullmatch(
        r"cpu \(.+\), 1 process, \d+ threads?: 944 training and 200 validation images of digits, 8 batches an epoch", lines[3]
    )
    assert re.fullmatch(r"epoch   1 of 2  loss \S+  clean \S+  robust \S+  best  \d+ images/s  about \d+ s left", lines[4])
    assert re.fullmatch(r"epoch   2 of 2  loss \S+  clean \S+  robust \S+(  best)?  \d+ images/s", lines[5])
    assert re.fullmatch(r"best epoch [12]: clean 0\.\d{3}, robust 0\.\d{3}", lines[6])
    assert lines[7].endswith("alone: best.safetensors, last.safetensors, and the row in trials/")
    train(tmp_path / "run.yaml", "training.epochs=2", folder=tmp_path / "alone")
    assert capsys.readouterr().out.splitlines() == ["nothing left to do: 2 epochs are trained", *lines[6:]]


def test_what_takes_long_says_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rkdsearch.pace.EVERY_SECONDS", 0.0)
    (tmp_path / "run.yaml").write_text(CONFIG, encoding="utf-8")
    train(tmp_path / "run.yaml", "method.name=natural", "training.epochs=1", folder=tmp_path / "alone")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch 1: ")]
    assert [line.partition(",")[0] for line in lines] == [f"epoch 1: {done} of 8 batches" for done in range(1, 8)]
    assert re.fullmatch(r"epoch 1: 4 of 8 batches, about \d+ s left", lines[3])


def test_an_epochs_line_is_no_wider_than_110_columns_and_marks_the_best() -> None:
    assert epoch_line(epoch(1), 7.0) == "epoch   1 of 200  loss 1.2346  clean 0.800  robust 0.500  best  12346 images/s  about 7 s left"
    assert epoch_line(epoch(2)) == "epoch   2 of 200  loss 1.2346  clean 0.800  robust 0.500  12346 images/s"
    assert len(epoch_line(epoch(100, best=100), 999_999.0)) <= 110


def test_time_left_is_what_the_epochs_to_come_take_at_the_pace_of_those_done() -> None:
    assert seconds_left([epoch(1, seconds=4.0), epoch(2, seconds=2.0)]) == 198 * 3.0
    assert seconds_left([epoch(200)]) is None

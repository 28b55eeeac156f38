"""`rkdsearch evaluate`: what it is given, what it says, how it ends and goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from rkdsearch import config as run
from rkdsearch import models
from rkdsearch.cli.evaluate import evaluate
from rkdsearch.errors import ConfigError, StudyError
from rkdsearch.results.cells import records
from rkdsearch.results.store import Store
from rkdsearch.training import checkpoint
from tests.evaluation.files import CONFIG, run_alone, write_network, write_trials
from tests.tasks import DIGITS


def rows(folder: Path) -> list[dict[str, Any]]:
    return records(Store(folder).evaluations())


def test_one_bad_network_does_not_stop_the_others_and_the_end_lists_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trials(tmp_path, [{"trial_id": name} for name in ("a", "b", "c")])
    (tmp_path / "checkpoints" / "b" / "best.safetensors").unlink()
    with pytest.raises(StudyError) as error:
        evaluate(tmp_path, attacks=("clean",), images=20, local=True)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"{tmp_path}: 1 of the evaluations failed; all others are kept")
    assert len(lines) == 2
    assert "so trial b cannot be evaluated" in lines[1]
    assert [row["trial_id"] for row in rows(tmp_path)] == ["a", "c"]
    assert "b cannot be evaluated" in capsys.readouterr().out


@pytest.mark.parametrize("named", ["file", "config", "beside"])
def test_a_bare_checkpoint_is_evaluated_with_its_run_on_other_images(
    tmp_path: Path, named: str
) -> None:
    file = tmp_path / "student.safetensors"
    images = np.zeros((12, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", x=images, y=np.arange(12) % 10)
    more: dict[str, Any] = {}
    if named == "file":
        write_network(file)
    else:
        save_file(models.build(CONFIG.student, DIGITS).state_dict(), file)
        yaml = tmp_path / ("run.yaml" if named == "beside" else "other.yaml")
        yaml.write_text(run.written(CONFIG), encoding="utf-8")
        more = {"config": yaml} if named == "config" else {}
    data = f"npz:{tmp_path / 'mine.npz'}"
    evaluate(
        file, attacks=("clean", "margin"), eps=("1/255", "2/255"), data=data, local=True, **more
    )
    found = rows(tmp_path / "student-evaluation")
    assert [(row["trial_id"], row["attack"], row["split"]) for row in found] == [
        ("student", "clean", "other"),
        ("student", "margin", "other"),
        ("student", "margin", "other"),
    ]
    assert sorted(row["eps"] for row in found) == [0, 1 / 255, 2 / 255]


def test_the_file_of_a_trial_is_that_trial_of_its_study(tmp_path: Path) -> None:
    write_trials(tmp_path / "study", [{"trial_id": name} for name in ("a", "b")])
    run_alone(tmp_path / "alone")
    file = tmp_path / "study" / "checkpoints" / "b" / "best.safetensors"
    for named in (file, tmp_path / "alone" / "best.safetensors"):
        evaluate(named, attacks=("clean",), images=20, local=True)
    assert [row["trial_id"] for row in rows(tmp_path / "study")] == ["b"]
    assert [row["trial_id"] for row in rows(tmp_path / "alone")] == ["run"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"attack_seeds": 0}, "--attack-seeds and --images must be >= 1, got 0"),
        ({"front": True, "trial": "a"}, "each choose networks; give one of them"),
        ({"local": True, "address": "auto"}, "--local is without Ray"),
        ({"gpu": 2.0}, "--gpu must be > 0 and <= 1, got 2"),
        ({"eps": ("8 of 255",)}, "--eps must be a number or a ratio such as 8/255"),
        ({"out": Path("x")}, "--config and --out belong to a bare checkpoint"),
    ],
)
def test_options_that_contradict_are_a_sentence_before_anything_is_read(
    tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    run_alone(tmp_path)
    with pytest.raises((StudyError, ConfigError), match=sentence):
        evaluate(tmp_path, **options)
    assert Store(tmp_path).openings().empty


@pytest.mark.long
def test_an_evaluation_that_is_killed_in_the_middle_of_autoattack_ends_in_the_same_bits(
    tmp_path: Path,
) -> None:
    for name in ("killed", "whole"):
        run_alone(tmp_path / name)

    def start(name: str) -> subprocess.Popen[bytes]:
        words = [
            "evaluate", name, "--local", "--attacks", "autoattack", "--eps", "0.06",
            "--images", "120",
        ]  # fmt: skip
        command = [sys.executable, "-m", "rkdsearch", *words]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.Popen(command, cwd=tmp_path, env=environment)

    running, done = start("killed"), '"done": ["apgd-ce", "apgd-t 1", "apgd-t 2"'
    deadline = time.monotonic() + 120
    while not any(done in f.read_text() for f in (tmp_path / "killed").glob("partial/*/*.json")):
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert rows(tmp_path / "killed") == []
    for name in ("killed", "whole"):
        assert start(name).wait() == 0
    (killed,), (whole,) = rows(tmp_path / "killed"), rows(tmp_path / "whole")
    for column in ("per_image", "survivors", "flags", "correct", "subset_sha256", "per_class"):
        assert killed[column] == whole[column], column
    assert 0 < whole["correct"] < 120
    assert len(Store(tmp_path / "killed").openings()) == 2
    assert not (tmp_path / "killed" / "partial").exists()


def test_a_line_names_the_flags_of_its_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_alone(tmp_path)
    file = tmp_path / "best.safetensors"
    tensors, state = checkpoint.read(file)
    checkpoint.write(file, {name: 0 * tensor for name, tensor in tensors.items()}, state)
    evaluate(tmp_path, attacks=("clean", "margin"), images=120, local=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("run ")]
    (clean,) = [line for line in lines if " clean " in line]
    (attacked,) = [line for line in lines if " margin, " in line]
    assert attacked.endswith("  natural  FLAGS: zero_gradients, one_class")
    assert clean.endswith("  natural")

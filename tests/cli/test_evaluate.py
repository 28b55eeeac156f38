"""`rkdsearch evaluate`: what it is given, what it says, how it ends and goes on."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rkdsearch import config as run
from rkdsearch import models, notebook, plugins
from rkdsearch.attacks.balls import Norm
from rkdsearch.cli.evaluate import evaluate
from rkdsearch.errors import ConfigError, StudyError
from rkdsearch.results.cells import records
from rkdsearch.results.store import Store
from rkdsearch.training import checkpoint
from tests.evaluation.files import CONFIG, VALUES, run_alone, write_network, write_trials
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


def test_where_no_network_is_left_the_end_lists_why(tmp_path: Path) -> None:
    write_trials(tmp_path, [{"trial_id": name} for name in ("a", "b")])
    (tmp_path / "checkpoints" / "a" / "best.safetensors").unlink()
    whole = tmp_path / "checkpoints" / "b" / "best.safetensors"
    whole.write_bytes(whole.read_bytes()[:100])
    with pytest.raises(StudyError) as error:
        evaluate(tmp_path, attacks=("clean",), images=20, local=True)
    first, gone, cut = str(error.value).splitlines()
    assert first == f"{tmp_path}: none of its networks can be evaluated:"
    assert "a/best.safetensors: is missing, so trial a cannot be evaluated" in gone
    assert cut.startswith("  trial b cannot be evaluated: ")
    assert not (tmp_path / "openings").exists()


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


def test_a_run_that_is_corrected_beside_the_same_weights_is_evaluated_again(tmp_path: Path) -> None:
    file, yaml = tmp_path / "student.safetensors", tmp_path / "run.yaml"
    save_file(models.build(CONFIG.student, DIGITS).state_dict(), file)
    student = {"name": "small_cnn", "width": 4, "mean": [0.5], "std": [0.05]}
    shifted = run.build(VALUES | {"student": student})
    told = list[str | None]()
    for config in (CONFIG, CONFIG, shifted):
        yaml.write_text(run.written(config), encoding="utf-8")
        evaluate(file, attacks=("clean",), images=20, local=True)
        (row,) = rows(tmp_path / "student-evaluation")
        told.append(row["config_sha256"])
    assert told == [CONFIG.fingerprint(), CONFIG.fingerprint(), shifted.fingerprint()]


def test_a_file_that_holds_its_run_is_that_run_whatever_lies_beside_it(tmp_path: Path) -> None:
    write_network(tmp_path / "student.safetensors")
    other = run.build(VALUES | {"validation.attack": {"eps": 0.01, "steps": 3}})
    (tmp_path / "run.yaml").write_text(run.written(other), encoding="utf-8")
    evaluate(tmp_path / "student.safetensors", attacks=("margin",), images=20, local=True)
    (row,) = rows(tmp_path / "student-evaluation")
    assert (row["eps"], row["config_sha256"]) == (CONFIG.validation.attack.eps, None)


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
        ({"attacks": ()}, "--attacks must name one attack at least, such as clean, got none"),
        ({"attack_seeds": 0}, "--attack-seeds and --images must be >= 1, got 0"),
        ({"front": True, "trial": "a"}, "each choose networks; give one of them"),
        ({"replicates": False, "trial": "a"}, "and one network is named; leave it out"),
        ({"attacks": ("clean",), "norm": "l2"}, "--eps and --norm are of an attack's ball, and cl"),
        ({"local": True, "address": "auto"}, "--local is without Ray"),
        ({"local": True, "gpu": 0.5}, "--gpu is a Ray worker's share, and --local is without Ray"),
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


class Watched:
    """A study whose network writes down its batches (`tests/strangers/watched.py`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def evaluate(self, kill_at: int = 0) -> tuple[int, list[str]]:
        """AutoAttack on two blocks: the exit code, and the batches of this process."""
        log = self.folder / f"batches-{kill_at}.txt"
        words = [
            "evaluate", str(self.folder), "--local", "--attacks", "autoattack", "--eps", "0.02",
            "--images", "300", "--allow-import", "tests.strangers",
        ]  # fmt: skip
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "WATCHED_LOG": str(log),
            "WATCHED_KILL": str(kill_at),
        }
        command = [sys.executable, "-m", "rkdsearch", *words]
        ended = subprocess.run(command, env=environment, check=False, capture_output=True)
        return ended.returncode, log.read_text(encoding="utf-8").splitlines()


def watched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(plugins, "_allowed", {"tests.strangers"})
    values = VALUES | {"student": {"name": "tests.strangers.watched.Watched"}}
    run_alone(folder, run.build(values))
    return Watched(folder)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[str]]:
    """The row and the batches of an evaluation that nobody kills."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        study = watched(tmp_path_factory.mktemp("unbroken"), monkeypatch)
    code, batches = study.evaluate()
    assert code == 0
    (row,) = rows(study.folder)
    survivors = list(json.loads(row["survivors"]).values())
    assert 300 > survivors[0] >= survivors[-1] > 0  # every attack has images to look at
    return row, batches


@pytest.mark.long
@pytest.mark.timeout(600)  # three whole evaluations
@pytest.mark.parametrize("attack", ["apgd-ce", "apgd-t", "fab-t", "square"])
def test_an_evaluation_that_is_killed_in_any_attack_of_autoattack_repeats_that_part_alone(
    tmp_path: Path,
    unbroken: tuple[dict[str, Any], list[str]],
    attack: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, batches = unbroken
    asking = [batch.split()[0] for batch in batches]
    # of the second block, of 50 images: the first is finished
    second = next(n for n, batch in enumerate(batches) if batch.startswith("clean 50 "))
    assert second > asking.index("square/None")
    inside = [n for n, part in enumerate(asking) if n > second and part.startswith(attack)]
    middle = inside[len(inside) // 2]
    # a part is recorded when it ends, and the clean images with the first part
    part = second if attack == "apgd-ce" else asking.index(asking[middle], second)
    assert part < middle

    study = watched(tmp_path, monkeypatch)
    code, killed = study.evaluate(kill_at=middle + 1)
    assert (code, killed) == (-signal.SIGKILL, batches[: middle + 1])
    assert rows(tmp_path) == []
    code, resumed = study.evaluate()
    assert code == 0
    checks = [batch for batch in batches if batch.startswith("checks")]
    assert resumed == [*checks, *batches[part:]]
    (row,) = rows(tmp_path)
    same = set(row) - {"seconds", "opening", "evaluated", "run.command"}
    assert {name: row[name] for name in same} == {name: whole[name] for name in same}
    assert len(Store(tmp_path).openings()) == 2
    assert not (tmp_path / "partial").exists()


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


def test_a_file_of_several_entries_says_which_of_them_was_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = models.build(CONFIG.student, DIGITS).state_dict()
    averaged = {name: tensor + 1 for name, tensor in weights.items()}
    torch.save({"model": weights, "model_ema": averaged, "epoch": 3}, tmp_path / "both.pth")
    (tmp_path / "run.yaml").write_text(run.written(CONFIG), encoding="utf-8")
    evaluate(tmp_path / "both.pth", attacks=("clean",), images=10, local=True)
    assert (
        "both.pth: read 'model'; left: model_ema, epoch; `rkdsearch teacher convert --key` makes a"
        " file of another entry\n"
    ) in capsys.readouterr().out


@pytest.mark.parametrize("command", [evaluate, notebook.evaluate])
def test_every_ball_can_be_asked_for_by_its_norm(command: Callable[..., object]) -> None:
    literal, _ = get_args(signature(command).parameters["norm"].annotation)
    assert get_args(literal) == get_args(Norm)

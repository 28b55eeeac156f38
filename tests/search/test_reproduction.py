import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from rkdsearch import config as run
from rkdsearch.cli.reproduce import reproduce
from rkdsearch.config.fidelity import Fidelity
from rkdsearch.errors import CheckpointError, StudyError, TeacherError
from rkdsearch.results.cells import records
from rkdsearch.results.store import Store
from rkdsearch.training import checkpoint, config_rows
from rkdsearch.training.run import single_run
from rkdsearch.training.trainer import Trainer
from tests.evaluation.files import VALUES

CONFIG = run.build(
    VALUES | {"method.name": "pgd_at", "attack.steps": 1, "training.epochs": 2, "training.seed": 5}
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rungs, the first validated by a weaker attack on few images."""
    home = tmp_path_factory.mktemp("run")
    rungs = (
        Fidelity(epochs=1, validation_attack_steps=1, validation_images=20),
        Fidelity(epochs=2),
    )
    assert len(list(single_run(Trainer(CONFIG, home, fidelities=rungs)))) == 2
    return home


def changed(folder: Path, copy: Path, **cells: Any) -> Path:
    """A copy of the run whose row says something else."""
    shutil.copytree(folder, copy)
    (row,) = records(Store(folder).trials())
    Store(copy, config_rows.columns(())).write_trial(row | cells)
    return copy


def test_a_run_is_trained_again_to_the_same_bits(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reproduce(folder, folder=tmp_path / "again")
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith(
        f"seed 5, images and teachers are the same; 2 epochs in {tmp_path / 'again'}"
    )
    assert said[-1].startswith("the same bit for bit: ")
    assert not any(line.startswith("not the same") for line in said)
    assert not any("nothing is trained" in line for line in said)
    reproduce(folder, folder=tmp_path / "again")
    assert (
        f"{tmp_path / 'again'} has all of them from an earlier command: nothing is trained, and it"
        " is compared again; name another folder with --folder to train once more"
    ) in capsys.readouterr().out.splitlines()


def test_a_run_that_was_stopped_is_trained_again_no_further_however_often(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = single_run(Trainer(CONFIG, tmp_path / "run"))
    next(running)
    running.close()
    for _ in range(2):
        reproduce(tmp_path / "run", folder=tmp_path / "again")
        assert "loss and accuracies of 1 epochs" in capsys.readouterr().out


def test_what_differs_is_said_with_its_conditions_and_by_how_much(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = records(Store(folder).trials())
    versions = json.loads(row["run.versions"]) | {"torch": "1.0"}
    cells = {"run.versions": versions, "metric.clean_accuracy": 0.5, "run.device": "a GPU"}
    cells |= {"run.seed": 4}
    other = changed(folder, tmp_path / "other", **cells)
    tensors, state = checkpoint.read(other / "best.safetensors")
    name = next(iter(tensors))
    checkpoint.write(other / "best.safetensors", tensors | {name: tensors[name] + 0.25}, state)
    with pytest.raises(StudyError) as error:
        reproduce(other, folder=tmp_path / "again")
    text = str(error.value)
    assert f"torch was 1.0, is {version('torch')}" in text
    assert "device was a GPU, is " in text
    assert "seed was 4, is 5" in text
    assert f"1 of {len(tensors)} tensors of the network, by 0.25 at most" in text
    assert "clean_accuracy of the best epoch was 0.5000, is 0." in text
    assert "not the same: torch was 1.0" in capsys.readouterr().out


def test_a_package_of_ones_own_that_has_changed_is_another_condition(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def of(sha256: str) -> dict[str, dict[str, str | None]]:
        return {"mine": {"sha256": 32 * sha256, "git_commit": None}}

    monkeypatch.setattr("rkdsearch.plugins.imported_packages", lambda: of("cd"))
    for was, told in (("ab", True), ("cd", False)):
        other = changed(folder, tmp_path / was, **{"run.packages": of(was)})
        reproduce(other, folder=tmp_path / "again")
        sentence = (
            "not the same: the package mine has changed: its sha256 was abababababab, is cdcd"
        )
        assert (sentence in capsys.readouterr().out) == told


def test_other_images_or_missing_files_are_a_sentence(folder: Path, tmp_path: Path) -> None:
    other = changed(folder, tmp_path / "other", **{"run.pixels_sha256": "ab" * 32})
    with pytest.raises(StudyError, match=r"the pixels were others: run.pixels_sha256 was abab.*"):
        reproduce(other, folder=tmp_path / "again")
    stopped = changed(folder, tmp_path / "stopped", status="stopped")
    (stopped / "best.safetensors").unlink()
    with pytest.raises(StudyError, match="trial run is stopped, and its network was not kept"):
        reproduce(stopped, folder=tmp_path / "again")
    with pytest.raises(StudyError, match="there is no trial 't9'"):
        reproduce(folder, trial="t9", folder=tmp_path / "again")
    cut = changed(folder, tmp_path / "cut")
    tensors, state = checkpoint.read(cut / "best.safetensors")
    name = next(iter(tensors))
    checkpoint.write(cut / "best.safetensors", tensors | {name: tensors[name][:1]}, state)
    with pytest.raises(TeacherError, match=r"cut/best.safetensors: does not fit into"):
        reproduce(cut, folder=tmp_path / "again")
    assert not (tmp_path / "again" / "trials").exists()
    (other / "last.safetensors").unlink()
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        reproduce(other, folder=tmp_path / "again")


def test_a_run_is_not_compared_with_itself(folder: Path) -> None:
    for home in (folder, folder / "again"):
        with pytest.raises(StudyError, match="which would be compared with itself; name another"):
            reproduce(folder, folder=home)
    assert not (folder / "again").exists()

"""`rkdsearch export`: the validated weights, the code that loads them, the numbers with their n."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from rkdsearch import config as run
from rkdsearch import data
from rkdsearch.cli.export import export
from rkdsearch.errors import CheckpointError, RkdError, StudyError, TeacherError
from rkdsearch.exporting import onnx_model
from rkdsearch.exporting.exported_network import radius_text
from rkdsearch.exporting.robustbench import robust_to_every_seed
from rkdsearch.results.columns import cells_of
from rkdsearch.results.store import Store
from rkdsearch.teacher import fingerprint, load, split_of
from rkdsearch.training import checkpoint, rows
from rkdsearch.training.trainer import Trainer
from tests.exporting.runs import VALUES, evaluation
from tests.tasks import DIGITS
from tests.training.runs import train_alone


def _yaml(folder: Path) -> Path:
    file = folder / "run.yaml"
    file.write_text(json.dumps(VALUES), encoding="utf-8")
    return file


def test_a_network_that_is_given_away_says_which_split_it_was_trained_on(
    alone: Path, tmp_path: Path
) -> None:
    export(alone, trial="run", out=tmp_path)
    assert (
        split_of(tmp_path / "student.safetensors")
        == data.load_training(run.build(VALUES).data).fingerprint
    )


def test_the_same_network_is_the_same_file_every_time(alone: Path, tmp_path: Path) -> None:
    made = set()
    for number in range(6):
        export(alone, trial="run", out=tmp_path / str(number))
        made.add(fingerprint(tmp_path / str(number) / "student.safetensors"))
    assert len(made) == 1


def test_the_file_of_the_run_trains_the_same_network_again(alone: Path, tmp_path: Path) -> None:
    export(alone, trial="run", out=tmp_path)
    text = (tmp_path / "run.yaml").read_text(encoding="utf-8")
    (teacher,) = alone.glob("teachers/*/best.safetensors")
    assert text.startswith(
        "# Trial run of alone. `rkdsearch train run.yaml teachers.robust.path=WHERE` repeats it,"
        " with the path of your file for WHERE.\n# teachers.robust.path must have the sha256"
        f" {fingerprint(teacher)}.\nmethod:"
    )
    assert f"sha256: {fingerprint(teacher)}" in text
    list(train_alone(run.load(tmp_path / "run.yaml"), tmp_path / "again"))
    weights = [
        load_file(file)
        for file in (tmp_path / "student.safetensors", tmp_path / "again" / "best.safetensors")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_file_of_a_run_names_a_studys_own_teacher_by_the_studys_path(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(alone / "teachers", tmp_path / "study" / "teachers")
    (teacher,) = (tmp_path / "study").glob("teachers/*/best.safetensors")
    own = {
        "network": {"name": "mlp", "width": 16},
        "path": str(teacher.relative_to(tmp_path / "study")),
    }
    monkeypatch.chdir(tmp_path / "study")
    epochs = list(
        Trainer(run.build({**VALUES, "teachers.robust": own}), Path("checkpoints/t00004")).epochs()
    )
    monkeypatch.chdir(tmp_path)
    store = Store(Path("study"))
    store.write_trial(
        {"trial_id": "t00004", "study": "study", "status": "finished", "run.processes": 2}
    )
    export(Path("study"), trial="t00004", out=Path("out"))
    assert "# It was trained by 2 processes together" in Path("out/run.yaml").read_text(
        encoding="utf-8"
    )
    store.write_epochs(
        "t00004",
        [
            cells_of(rows.epoch(replace(epochs[0], epoch=n + 1, processes=1 if n < 2 else 4)))
            for n in range(4)
        ],
    )
    export(Path("study"), trial="t00004", out=Path("out"))
    assert "# It was trained by 1, then 4 processes together" in Path("out/run.yaml").read_text(
        encoding="utf-8"
    )
    assert ", 1, then 4 process(es), training" in Path("out/README.md").read_text(encoding="utf-8")
    assert run.load(Path("out/run.yaml")).teachers.robust.path == str(teacher)  # type: ignore[union-attr]  # it is there


def test_a_run_whose_network_is_gone_is_not_taken_for_a_folder_of_trials(
    alone: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(alone, tmp_path / "moved")
    (moved / "best.safetensors").unlink()
    for trial in (None, "run"):
        with pytest.raises(
            CheckpointError,
            match=(
                r"moved/best.safetensors: is not there: it was removed, or the run has validated no"
                r" epoch yet; "
            ),
        ):
            export(moved, trial=trial, out=tmp_path / "out")
    with pytest.raises(
        StudyError, match=r"gone/best.safetensors: is not there; name a study's folder"
    ):
        export(tmp_path / "gone" / "best.safetensors", out=tmp_path / "out")


def test_weights_of_another_network_are_not_exported_under_a_trials_name(
    evaluated: Path, tmp_path: Path
) -> None:
    shutil.copytree(evaluated, tmp_path / "study")
    file = tmp_path / "study" / "best.safetensors"
    tensors, state = checkpoint.read(file)
    state["best"]["clean_accuracy"] += 0.01
    checkpoint.write(file, tensors, state)
    law = r"best.safetensors: is not the network of trial run: its clean_accuracy on validation"
    with pytest.raises(StudyError, match=law):
        export(tmp_path / "study", trial="run", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_image_stands_when_no_seed_broke_it() -> None:
    rows = [evaluation("autoattack", 0, "1110"), evaluation("autoattack", 1, "1011")]
    assert robust_to_every_seed(rows) == 0.5
    assert robust_to_every_seed([rows[0], {**rows[1], "subset_sha256": "other"}]) == 0.75
    assert robust_to_every_seed([]) is None


def test_eps_is_written_as_the_field_writes_it() -> None:
    assert [radius_text(e) for e in (8 / 255, 0.031, 0.15, 0.5, 2 / 255, 1.0)] == [
        "8/255",
        "0.031",
        "0.15",
        "0.5",
        "2/255",
        "1",
    ]


def test_a_trial_of_a_search_is_found_among_its_checkpoints(tmp_path: Path) -> None:
    config = run.build({**VALUES, "method.name": "pgd_at", "teachers.robust": {}})
    study = tmp_path / "study"
    trainer = Trainer(config, study / "checkpoints" / "t00004")
    (epoch,) = trainer.epochs()
    row = {
        "trial_id": "t00004",
        "study": "study",
        "origin": "search",
        "status": "stopped",
        "fidelity.epochs": 1,
        "fidelity.of_epochs": 9,
    }
    Store(study).write_trial(
        {**row, "metric.clean_accuracy": epoch.clean_accuracy, "fidelity.validation_images": 404}
    )
    export(study, trial="t00004", out=tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "**Not a full run.** This trial is stopped, after 1 of 9 epochs." in card
    assert (
        "**Not evaluated on test images.** Only full runs are evaluated. The validation rows"
        in card
    )
    assert "None: the method learns from labels only." in card
    assert "RECONSTRUCTED" not in card


def test_what_is_not_there_is_said(alone: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="there is no trial 'x9'; `rkdsearch status"):
        export(alone, trial="x9", out=tmp_path / "out")
    Store(alone).write_trial({"trial_id": "t1", "status": "finished"})
    try:
        with pytest.raises(
            CheckpointError, match=r"t1/best.safetensors: there is no such checkpoint"
        ):
            export(alone, trial="t1", out=tmp_path / "out")
    finally:
        (alone / "trials" / "t1.parquet").unlink()
    assert not (tmp_path / "out").exists()


def test_weights_that_are_no_network_replace_no_earlier_export(alone: Path, tmp_path: Path) -> None:
    out, weights = tmp_path / "out", alone / "best.safetensors"
    export(alone, out=out)
    delivered, kept = (out / "student.safetensors").read_bytes(), weights.read_bytes()
    tensors, state = checkpoint.read(weights)
    try:
        first = next(iter(tensors))
        checkpoint.write(weights, tensors | {first: tensors[first] * torch.nan}, state)
        with pytest.raises(TeacherError, match=re.escape(f"{weights}: weights must be finite")):
            export(alone, out=out)
    finally:
        weights.write_bytes(kept)
    assert (out / "student.safetensors").read_bytes() == delivered


def test_a_file_in_the_place_of_the_folder_is_a_sentence(alone: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(RkdError, match=r"out: is a file; name a folder"):
        export(alone, out=tmp_path / "out")


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_onnx_that_is_not_installed_is_said_before_anything_is_written(
    missing: str, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None if name == missing else ModuleType(name))
    law = (
        rf"^--onnx needs the packages onnx and onnxscript for torch's exporter, and '{missing}' is"
        r" not installed; "
    )
    with pytest.raises(RkdError, match=law + r"install rkdsearch\[export\], or leave --onnx out$"):
        export(alone, trial="run", out=tmp_path / "out", onnx=True)
    assert not (tmp_path / "out").exists()


def test_the_onnx_file_is_listed_and_gives_the_delivered_networks_logits(
    alone: Path, tmp_path: Path
) -> None:
    export(alone, trial="run", out=tmp_path, onnx=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "README.md",
        "robustbench.json",
        "run.yaml",
        "student.onnx",
        "student.safetensors",
    ]
    config = run.build(VALUES)
    network = load(tmp_path / "student.safetensors", config.student, DIGITS)
    x, _ = data.load_training(config.data).validation.floats(slice(0, 7))
    assert float((onnx_model.run(tmp_path / "student.onnx", x) - network(x)).abs().max()) < 1e-5


def test_an_onnx_file_of_another_network_does_not_stay_beside_the_weights(
    alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export(alone, trial="run", out=out)
    (out / "student.onnx").write_bytes(b"of these weights")
    export(alone, trial="run", out=out)
    assert (out / "student.onnx").exists(), "the same network lies here"
    other = tmp_path / "alone"
    assert len(list(train_alone(run.build(VALUES | {"training.seed": 1}), other))) == 1
    export(other, trial="run", out=out)
    assert not (out / "student.onnx").exists()


def test_a_best_safetensors_names_its_study_and_its_trial(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(alone / "best.safetensors", out=tmp_path / "file")
    export(alone, out=tmp_path / "folder")
    for folder in ("file", "folder"):
        assert "Trial `run` of the study `alone`" in (tmp_path / folder / "README.md").read_text()
    searched = tmp_path / "study" / "checkpoints" / "t00004"
    searched.mkdir(parents=True)
    shutil.copy(alone / "best.safetensors", searched)
    Store(tmp_path / "study").write_trial(
        {"trial_id": "t00004", "study": "study", "status": "finished"}
    )
    monkeypatch.chdir(searched)
    export(Path("best.safetensors"), out=tmp_path / "trial")
    assert "Trial `t00004` of the study `study`" in (tmp_path / "trial" / "README.md").read_text()
    with pytest.raises(
        StudyError,
        match=(
            r"^best.safetensors: is the file of the trial 't00004', got --trial t1; name the"
            r" study's folder"
        ),
    ):
        export(Path("best.safetensors"), trial="t1")
    with pytest.raises(StudyError, match=r"study: holds trials; name one with --trial"):
        export(tmp_path / "study")


@pytest.mark.parametrize("name", ["last.safetensors", "teacher.pth"])
def test_another_file_than_a_trials_best_is_refused_by_its_name(
    name: str, alone: Path, tmp_path: Path
) -> None:
    file = shutil.copy(alone / "best.safetensors", tmp_path / name)
    with pytest.raises(
        StudyError, match=rf"{name}: must be a trial's best.safetensors, in the folder of its study"
    ):
        export(Path(file), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "mine", [["README.md"], ["student.onnx"], ["README.md", "student.safetensors"]]
)
def test_files_that_no_export_made_are_neither_overwritten_nor_removed(
    alone: Path, tmp_path: Path, mine: list[str]
) -> None:
    for name in mine:
        (tmp_path / name).write_text("mine", encoding="utf-8")
    with pytest.raises(StudyError, match="is there already, beside no earlier export"):
        export(alone, out=tmp_path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == dict.fromkeys(
        mine, "mine"
    )
    export(alone, out=tmp_path / "new")
    export(alone, out=tmp_path / "new")  # again, over its own

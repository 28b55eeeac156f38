"""`rkdsearch export`: the validated weights, the code that loads them, the numbers with their n."""

import json
import re
import shutil
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from rkdsearch import config as run
from rkdsearch import data, plugins
from rkdsearch.cli import app
from rkdsearch.cli.export import export
from rkdsearch.errors import CheckpointError, RkdError, StudyError, TeacherError
from rkdsearch.exporting import onnx_model
from rkdsearch.exporting.exported_network import radius_text
from rkdsearch.exporting.robustbench import robust_to_every_seed
from rkdsearch.results.cells import CLEAN, ROBUST, records
from rkdsearch.results.columns import cells_of
from rkdsearch.results.store import Store
from rkdsearch.teacher import fingerprint, load, split_of
from rkdsearch.training import checkpoint, rows
from rkdsearch.training.trainer import Trainer
from tests.data.files import write_folder
from tests.tasks import DIGITS
from tests.training.runs import train_alone

VALUES = {
    "method.name": "crdnd",
    "data": {"name": "digits", "validation_fraction": 0.3},
    "student": {"name": "small_cnn", "width": 4},
    "validation.attack": {"eps": 8 / 255, "steps": 2},
    "attack.steps": 1,
    "training": {"epochs": 1, "device": "cpu"},
    "teachers.robust": {
        "network": {"name": "mlp", "width": 16},
        "recipe": {
            "method": {"name": "trades"},
            "attack": {"steps": 1, "eps": 8 / 255},
            "training": {"epochs": 1, "device": "cpu"},
        },
    },
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single run's folder: a reconstructed method, one epoch."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    assert len(list(train_alone(run.build(VALUES), folder))) == 1
    return folder


def evaluation(attack: str, seed: int, correct: str, **more: Any) -> dict[str, object]:
    right = correct.count("1")
    return {
        "trial_id": "run",
        "label": "crdnd",
        "checkpoint": "best",
        "split": "test",
        "attack": attack,
        "norm": "linf",
        "eps": 8 / 255,
        "attack_seed": seed,
        "images": len(correct),
        "of_images": 450,
        "correct": right,
        "accuracy": right / len(correct),
        "low": 0.0,
        "high": 1.0,
        "flags": None if attack == "clean" else [],
        "warnings": [],
        "per_image": correct,
        "subset_sha256": "ab",
        "evaluated": datetime(2026, 1, 2, tzinfo=UTC),
        **more,
    }


@pytest.fixture
def evaluated(alone: Path) -> Path:
    store = Store(alone)
    store.write_evaluation(evaluation("clean", 0, "1" * 9 + "0"))
    store.write_evaluation(
        evaluation("autoattack", 0, "1111100000", warnings=["gradients are masked"])
    )
    store.write_evaluation(evaluation("autoattack", 1, "0111110000"))
    return alone


def test_a_label_of_a_strangers_study_reaches_no_terminal_raw(alone: Path, tmp_path: Path) -> None:
    shutil.copytree(alone, tmp_path / "study")
    file = tmp_path / "study" / "trials" / "run.parquet"
    rows = pq.read_table(file)
    at = rows.schema.get_field_index("label")
    evil = pa.array(["evil\x1b]0;owned\x07"], pa.string())
    pq.write_table(rows.set_column(at, rows.schema.field(at), evil), file)
    export(tmp_path / "study", trial="run", out=tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# evil]0;owned: ")


def test_the_code_of_the_card_loads_the_network_that_was_validated(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(alone, trial="run", out=tmp_path / "given away")
    card = (tmp_path / "given away" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)
    assert len(code.splitlines()) == 10
    config = run.load(_yaml(tmp_path))
    splits = data.load_training(config.data)
    x, y = splits.validation.floats(slice(None))
    monkeypatch.chdir(tmp_path / "given away")
    names: dict[str, Any] = {"x": x}
    exec(code, names)
    right = int((names["logits"].argmax(dim=1) == y).sum())
    assert f"| validation | none | - | {right}/404 | {100 * right / 404:.2f} % |" in card
    file = tmp_path / "given away" / "student.safetensors"
    assert fingerprint(file) in card
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # one bit of the last weight
    file.write_bytes(content)
    with pytest.raises(TeacherError, match=r"sha256 must be .*: this is another file"):
        exec(code, names)


def _yaml(folder: Path) -> Path:
    file = folder / "run.yaml"
    file.write_text(json.dumps(VALUES), encoding="utf-8")
    return file


def test_the_card_names_protocol_threat_and_teacher(alone: Path, tmp_path: Path) -> None:
    export(alone, trial="run", out=tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    (teacher,) = alone.glob("teachers/*/best.safetensors")
    assert (
        "> **RECONSTRUCTED.** This crdnd follows the paper's abstract: only the abstract of arXiv"
        " 2302.08764 is public." in card
    )
    assert "the Linf ball of radius 8/255 (pixels of [0, 1])" in card
    assert (
        f"- **robust**: `mlp (width 16)`, sha256 `{fingerprint(teacher)}`. Trained by rkdsearch:"
        " trades, training attack linf eps 8/255" in card
    )
    assert "at most 1 epochs, on the training images of digits" in card
    assert 'method.name: "crdnd"' in card
    assert "training seed 0, 1 process(es)" in card
    assert re.search(r"split sha256 `[0-9a-f]{64}`", card)


def test_the_card_says_once_what_the_validation_images_are_to_the_teacher(
    alone: Path, tmp_path: Path
) -> None:
    shutil.copytree(alone, tmp_path / "study")
    facts = {
        "images": 404,
        "clean_accuracy": 0.75,
        "robust_accuracy": 0.25,
        "measured_on": "validation images; flagged: seen before",
    }
    (tmp_path / "study" / "study.json").write_text(
        json.dumps({"teachers": {"robust": facts}}), encoding="utf-8"
    )
    export(tmp_path / "study", trial="run", out=tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert (
        "  Clean 303/404 = 75.00 % [70.56, 78.97], robust 101/404 = 25.00 % [21.03, 29.44], under"
        " the study's validation attack on " in card
    )
    assert (
        card.count(
            "under the study's validation attack on validation images; flagged: seen before.\n"
        )
        == 1
    )


def test_the_card_of_a_moved_run_knows_its_teacher_and_says_where_it_does_not(
    alone: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(alone, tmp_path / "moved")
    weights = run.build(checkpoint.read(moved / "best.safetensors")[1]["config"])
    assert weights.teachers.robust is not None
    old = Path(str(weights.teachers.robust.path))
    assert old.is_relative_to(alone)
    hidden = alone.rename(alone.with_name("hidden"))
    try:
        export(moved, trial="run", out=tmp_path / "out")
        assert (
            "Trained by rkdsearch: trades, training attack linf eps 8/255"
            in (tmp_path / "out" / "README.md").read_text()
        )
        said = (
            "Its file, `best.safetensors`, was not found when this card was written,"
            " so its training"
            " is not known."
        )
        (file,) = moved.glob("teachers/*/best.safetensors")
        file.write_bytes((moved / "best.safetensors").read_bytes())  # another network in its place
        export(moved, trial="run", out=tmp_path / "other")
        assert said in (tmp_path / "other" / "README.md").read_text()
        shutil.rmtree(moved / "teachers")
        export(moved, trial="run", out=tmp_path / "gone")
        assert said in (tmp_path / "gone" / "README.md").read_text()
    finally:
        hidden.rename(alone)


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


def test_the_card_and_the_run_of_a_network_of_ones_own_on_ones_own_images_work_where_they_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab_of_ones_own").mkdir()
    (tmp_path / "lab_of_ones_own" / "nets.py").write_text(
        "from torch import nn\ndef net(classes, channels, size):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))\n"
    )
    write_folder(tmp_path / "images", {"train/cat": 6, "train/dog": 6, "test/cat": 1})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "_allowed", {"lab_of_ones_own"})
    images = {"name": "folder:images", "validation_fraction": 0.4, "cache": "."}
    own = {
        "method.name": "pgd_at",
        "teachers.robust": {},
        "data": images,
        "student": {"name": "lab_of_ones_own.nets.net"},
    }
    list(train_alone(run.build({**VALUES, **own}), Path("alone")))
    export(Path("alone"), out=Path("out"))
    (code,) = re.findall(
        r"```python\n(.*?)\n```", Path("out/README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    head = Path("out/run.yaml").read_text(encoding="utf-8").splitlines()[:3]
    command = (
        "rkdsearch train run.yaml data.name=folder:WHERE data.validation_fraction=0.4"
        " data.cache=WHERE --allow-import lab_of_ones_own"
    )
    assert head == [
        f"# Trial run of alone. `{command}` repeats it, with the path of your file for WHERE.",
        "# The folder of lab_of_ones_own must be on PYTHONPATH.",
        "method: {name: pgd_at}",
    ]
    monkeypatch.setattr(plugins, "_allowed", set())
    monkeypatch.chdir(tmp_path / "out")
    names: dict[str, Any] = {"x": torch.rand(3, 3, 8, 8)}
    exec(code, names)
    assert names["logits"].shape == (3, 2)
    monkeypatch.setattr(plugins, "_allowed", set())
    app(
        [*command.replace("WHERE", str(tmp_path / "images")).split()[1:], "--folder", "again"],
        result_action="return_value",
    )
    weights = [load_file(file) for file in ("student.safetensors", "again/best.safetensors")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


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


def test_a_network_without_a_test_evaluation_says_so(alone: Path, tmp_path: Path) -> None:
    for file in alone.glob("evaluations/*"):
        file.unlink()
    export(alone, trial="run", out=tmp_path)
    assert (
        "**Not evaluated on test images.** `rkdsearch evaluate STUDY --trial run` does it"
        in (tmp_path / "README.md").read_text()
    )
    entry = json.loads((tmp_path / "robustbench.json").read_text())
    assert (entry["clean_acc"], entry["autoattack_acc"], entry["unreliable"]) == (None, None, None)


def test_test_results_carry_n_and_the_entry_counts_what_no_seed_broke(
    evaluated: Path, tmp_path: Path
) -> None:
    export(evaluated, trial="run", out=tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| test (10 of 450) | none | 0 | 9/10 | 90.00 % | 59.58 to 98.21 % | - |" in card
    assert (
        "| test (10 of 450) | AutoAttack, standard | 0 | 5/10 | 50.00 % | 23.66 to 76.34 % |"
        " AutoAttack's package: gradients are masked |" in card
    )
    entry = json.loads((tmp_path / "robustbench.json").read_text())
    assert (entry["clean_acc"], entry["autoattack_acc"], entry["eps"], entry["threat_model"]) == (
        "90.00",
        "40.00",
        "8/255",
        "Linf",
    )
    assert (entry["unreliable"], entry["seeds"], entry["test_images"], entry["reconstructed"]) == (
        True,
        2,
        10,
        True,
    )
    assert {
        "link",
        "name",
        "authors",
        "additional_data",
        "number_forward_passes",
        "dataset",
        "venue",
        "architecture",
    } <= entry.keys()


def test_the_card_and_the_entry_count_the_openings_of_the_test_images(
    evaluated: Path, tmp_path: Path
) -> None:
    study = shutil.copytree(evaluated, tmp_path / "study")
    for day, split in ((2, "test"), (3, "other"), (4, "test")):
        opened = datetime(2026, 1, day, 12, tzinfo=UTC)
        row = {"opening": f"o{day}", "opened": opened, "split": split, "searching": False}
        Store(study).write_opening(row)
    export(study, trial="run", out=tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "The test images were opened 2 times, first on 2026-01-02 12:00 UTC (openings/)." in card
    assert json.loads((tmp_path / "out" / "robustbench.json").read_text())["test_openings"] == 2


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


def test_the_card_has_no_test_results_of_other_weights(evaluated: Path, tmp_path: Path) -> None:
    study = shutil.copytree(evaluated, tmp_path / "study")
    for file in (study / "evaluations").iterdir():
        file.unlink()
    Store(study).write_evaluation(evaluation("clean", 0, "1110", weights_sha256="0" * 64))
    export(study, trial="run", out=tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "**Not evaluated on test images.**" in card
    own = fingerprint(study / "best.safetensors")
    Store(study).write_evaluation(evaluation("clean", 1, "1110", weights_sha256=own))
    export(study, trial="run", out=tmp_path / "out")
    assert "| 3/4 |" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_a_replicates_card_says_that_it_is_one(evaluated: Path, tmp_path: Path) -> None:
    study = shutil.copytree(evaluated, tmp_path / "study")
    (row,) = records(Store(study).trials())
    own = {name: value for name, value in row.items() if not name.startswith("config.")}
    Store(study).write_trial({**own, "trial_id": "first", "origin": "search"})
    Store(study).write_trial({**own, "origin": "replicate"})
    export(study, trial="run", out=tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "the network of this card is one of these runs." in card
    assert "The validation rows selected the epoch: they are" in card


def test_the_card_keeps_other_training_seeds_apart_from_its_own_network(
    evaluated: Path, tmp_path: Path
) -> None:
    export(evaluated, trial="run", out=tmp_path / "single")
    card = (tmp_path / "single" / "README.md").read_text(encoding="utf-8")
    assert "None: this configuration was trained once" in card
    assert "The validation rows selected the epoch: they are" in card
    shutil.copytree(evaluated, tmp_path / "study")
    store = Store(tmp_path / "study")
    (row,) = records(store.trials())
    own = {name: value for name, value in row.items() if not name.startswith("config.")}
    store.write_trial({**own, "origin": "search"})
    for seed, robust in ((1, 0.50), (2, 0.54)):
        name = f"run-r{seed}"
        replicate = {"trial_id": name, "origin": "replicate", CLEAN: 0.9, ROBUST: robust}
        store.write_trial({**own, **replicate, "run.seed": seed})
        right = "1" * (2 + 2 * seed) + "0" * (8 - 2 * seed)
        store.write_evaluation(evaluation("autoattack", 0, right, trial_id=name))
    export(tmp_path / "study", trial="run", out=tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    results, others = card.split("## Results")[1].split("## The same configuration")
    others = others.split("## How it was made")[0]
    assert "This one network, training seed 0." in results
    assert "| AutoAttack, standard | 0 | 5/10 | 50.00 %" in results
    assert "selected the epoch and the trial" in results
    assert (
        "This configuration that the search chose was trained again with 2 other training seed(s);"
        " the network of this card is not among these runs." in others
    )
    assert "| 2 | 90.00 % | standard deviation 0.00 |" in others
    assert "| 2 | 52.00 % | standard deviation 2.83 |" in others
    assert (
        "| test (10) | AutoAttack, standard | 2 | 50.00 % | 95 % interval 9.32 to 90.68 % |"
        in others
    )


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

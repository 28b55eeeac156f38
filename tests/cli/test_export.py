"""`rkdsearch export`: the weights that were judged, the five lines that load them, the numbers with their n."""

import json
import math
import re
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rkdsearch import config as run
from rkdsearch import data
from rkdsearch.cli.export import export
from rkdsearch.errors import CheckpointError, RkdError, StudyError
from rkdsearch.models import build
from rkdsearch.results.store import Store
from rkdsearch.teacher import fingerprint, split_of
from rkdsearch.training.export import fraction, standing
from rkdsearch.training.run import single_run
from rkdsearch.training.trainer import Trainer

VALUES = {
    "method.name": "crdnd",
    "data": {"name": "digits", "validation_fraction": 0.3},
    "student": {"name": "small_cnn", "width": 4},
    "validation.attack": {"eps": 8 / 255, "steps": 2},
    "attack.steps": 1,
    "training": {"epochs": 1, "device": "cpu"},
    "teachers.robust": {
        "network": {"name": "mlp", "width": 16},
        "recipe": {"method": {"name": "trades"}, "attack": {"steps": 1, "eps": 8 / 255}, "training": {"epochs": 1, "device": "cpu"}},
    },
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single run's folder: a reconstructed method, one epoch."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    assert len(list(single_run(run.build(VALUES), folder))) == 1
    return folder


def evaluation(attack: str, seed: int, correct: str, **more: Any) -> dict[str, object]:
    right = correct.count("1")
    return {
        "trial_id": "run", "label": "crdnd", "checkpoint": "best", "split": "test", "attack": attack, "norm": "linf", "eps": 8 / 255,
        "seed": seed, "images": len(correct), "of_images": 450, "correct": right, "accuracy": right / len(correct), "low": 0.0, "high": 1.0,
        "flags": [], "per_image": correct, "subset_sha256": "ab", "evaluated": datetime(2026, 1, 2, tzinfo=UTC), **more,
    }  # fmt: skip


@pytest.fixture
def examined(alone: Path) -> Path:
    store = Store(alone)
    store.write_evaluation(evaluation("clean", 0, "1" * 9 + "0"))
    store.write_evaluation(evaluation("autoattack", 0, "1111100000", flags=["gradients are masked"]))
    store.write_evaluation(evaluation("autoattack", 1, "0111110000"))
    return alone


def test_the_five_lines_of_the_card_load_the_network_that_was_judged(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(alone, trial="run", out=tmp_path / "given away")
    card = (tmp_path / "given away" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)
    assert len(code.splitlines()) == 5
    config = run.load(_yaml(tmp_path))
    splits = data.load_training(config.data)
    x, y = splits.validation.floats(slice(None))
    monkeypatch.chdir(tmp_path / "given away")
    names: dict[str, Any] = {"x": x}
    exec(code, names)
    right = int((names["logits"].argmax(dim=1) == y).sum())
    assert f"| validation | none | - | {right}/404 | {100 * right / 404:.2f} % |" in card
    assert fingerprint(tmp_path / "given away" / "student.safetensors") in card


def _yaml(folder: Path) -> Path:
    file = folder / "run.yaml"
    file.write_text(json.dumps(VALUES), encoding="utf-8")
    return file


def test_the_card_names_protocol_threat_and_teacher(alone: Path, tmp_path: Path) -> None:
    export(alone, trial="run", out=tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    (teacher,) = alone.glob("teachers/*/best.safetensors")
    assert "> **RECONSTRUCTED.** crdnd is ours, after its abstract: only the abstract of arXiv 2302.08764 is public." in card
    assert "the Linf ball of radius 8/255 (pixels of [0, 1])" in card
    assert (
        f"- **robust**: `mlp (width 16)`, sha256 `{fingerprint(teacher)}`. Trained by rkdsearch: trades, training attack linf eps 8/255"
        in card
    )
    assert "at most 1 epochs, on the training images of digits" in card
    assert 'method.name: "crdnd"' in card
    assert "seed 0, 1 process(es)" in card
    assert re.search(r"split sha256 `[0-9a-f]{64}`", card)


def test_the_card_says_once_what_the_validation_images_are_to_the_teacher(alone: Path, tmp_path: Path) -> None:
    shutil.copytree(alone, tmp_path / "study")
    facts = {"images": 404, "clean_accuracy": 0.75, "robust_accuracy": 0.25, "measured_on": "validation images; flagged: seen before"}
    (tmp_path / "study" / "study.json").write_text(json.dumps({"teachers": {"robust": facts}}), encoding="utf-8")
    export(tmp_path / "study", trial="run", out=tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "  Clean 303/404 = 75.00 % [70.56, 78.97], robust 101/404 = 25.00 % [21.03, 29.44], by the study's exam on " in card
    assert card.count("by the study's exam on validation images; flagged: seen before.\n") == 1


def test_a_network_that_is_given_away_says_which_split_it_was_trained_on(alone: Path, tmp_path: Path) -> None:
    export(alone, trial="run", out=tmp_path)
    assert split_of(tmp_path / "student.safetensors") == data.load_training(run.build(VALUES).data).fingerprint


def test_a_network_that_sat_no_test_says_so(alone: Path, tmp_path: Path) -> None:
    for file in alone.glob("evaluations/*"):
        file.unlink()
    export(alone, trial="run", out=tmp_path)
    assert "**Not examined on test images.** `rkdsearch evaluate STUDY --trial run` does it" in (tmp_path / "README.md").read_text()
    entry = json.loads((tmp_path / "robustbench.json").read_text())
    assert (entry["clean_acc"], entry["autoattack_acc"], entry["unreliable"]) == (None, None, None)


def test_test_results_carry_n_and_the_entry_counts_what_no_seed_broke(examined: Path, tmp_path: Path) -> None:
    export(examined, trial="run", out=tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| test (10 of 450) | none | 0 | 9/10 | 90.00 % | 59.58 to 98.21 % | none seen |" in card
    assert "| test (10 of 450) | AutoAttack, standard | 0 | 5/10 | 50.00 % | 23.66 to 76.34 % | gradients are masked |" in card
    entry = json.loads((tmp_path / "robustbench.json").read_text())
    assert (entry["clean_acc"], entry["autoattack_acc"], entry["eps"], entry["threat_model"]) == ("90.00", "40.00", "8/255", "Linf")
    assert (entry["unreliable"], entry["seeds"], entry["test_images"], entry["reconstructed"]) == (True, 2, 10, True)
    assert {"link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture"} <= entry.keys()


def test_an_image_stands_when_no_seed_broke_it() -> None:
    rows = [evaluation("autoattack", 0, "1110"), evaluation("autoattack", 1, "1011")]
    assert standing(rows) == 0.5
    assert standing([rows[0], {**rows[1], "subset_sha256": "other"}]) == 0.75
    assert standing([]) is None


def test_eps_is_written_as_the_field_writes_it() -> None:
    assert [fraction(e) for e in (8 / 255, 0.031, 0.15, 0.5, 2 / 255, 1.0)] == ["8/255", "0.031", "0.15", "0.5", "2/255", "1"]


def test_a_trial_of_a_search_is_found_among_its_checkpoints(tmp_path: Path) -> None:
    config = run.build({**VALUES, "method.name": "pgd_at", "teachers.robust": {}})
    study = tmp_path / "study"
    trainer = Trainer(config, study / "checkpoints" / "t00004")
    (epoch,) = trainer.epochs()
    row = {"trial_id": "t00004", "study": "study", "origin": "search", "status": "stopped", "fidelity.epochs": 1, "fidelity.of_epochs": 9}
    Store(study).write_trial({**row, "metric.clean_accuracy": epoch.clean_accuracy, "metric.images": 404})
    export(study, trial="t00004", out=tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "**Not a full run.** This trial is stopped, after 1 of 9 epochs." in card
    assert "None: the method learns from labels alone." in card
    assert "RECONSTRUCTED" not in card


def test_what_is_not_there_is_said(alone: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="there is no trial 'x9'; `rkdsearch status"):
        export(alone, trial="x9", out=tmp_path / "out")
    Store(alone).write_trial({"trial_id": "t1", "status": "finished"})
    try:
        with pytest.raises(CheckpointError, match=r"t1/best.safetensors: there is no such checkpoint"):
            export(alone, trial="t1", out=tmp_path / "out")
    finally:
        (alone / "trials" / "t1.parquet").unlink()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_onnx_that_is_not_installed_is_said_before_anything_is_written(
    missing: str, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None if name == missing else ModuleType(name))
    law = rf"^--onnx needs the packages onnx and onnxscript for torch's exporter, and '{missing}' is not installed; "
    with pytest.raises(RkdError, match=law + r"install rkdsearch\[export\], or leave --onnx out$"):
        export(alone, trial="run", out=tmp_path / "out", onnx=True)
    assert not (tmp_path / "out").exists()


def test_an_onnx_file_answers_as_the_network_does(alone: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs rkdsearch[export]")
    pytest.importorskip("onnxscript", reason="needs rkdsearch[export]")
    reference = pytest.importorskip("onnx.reference", reason="needs rkdsearch[export]")
    export(alone, trial="run", out=tmp_path, onnx=True)
    config = run.build(VALUES)
    network = build(config.student, classes=10, channels=1, size=8)
    from safetensors.torch import load_file

    network.load_state_dict(load_file(tmp_path / "student.safetensors"))
    x = torch.rand(3, 1, 8, 8)
    (logits,) = reference.ReferenceEvaluator(str(tmp_path / "student.onnx")).run(None, {"pixels": x.numpy()})
    assert math.isclose(float(abs(torch.tensor(logits) - network.eval()(x)).max()), 0.0, abs_tol=1e-4)

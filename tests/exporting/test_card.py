"""The model card: what it says, and whether that is so."""

import json
import re
import shlex
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
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
from rkdsearch.errors import TeacherError
from rkdsearch.exporting import robustbench, run_file
from rkdsearch.results.cells import CLEAN, ROBUST, records
from rkdsearch.results.store import Store
from rkdsearch.teacher import fingerprint
from rkdsearch.training import checkpoint
from tests.data.files import write_folder
from tests.exporting.runs import VALUES, evaluation
from tests.training.runs import train_alone


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
        "measured_on": "validation images, not held out: seen before",
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
            "under the study's validation attack on validation images, not held out: seen before.\n"
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


def test_the_command_of_a_run_is_one_that_a_shell_reads_as_it_is_meant() -> None:
    images = {"name": "parquet:photos", "image_size": [32, 48], "image_column": "the photo"}
    config = run.build({"method.name": "pgd_at", "data": images})
    network = SimpleNamespace(
        config=config,
        home=Path(),
        trial={"trial_id": "t00003"},
        study="photos",
        on_rungs=True,
        training_attack_steps=[10],
        processes=[1],
    )
    first, second, *_ = run_file.run_yaml(network).splitlines()  # type: ignore[arg-type]  # all that it reads
    assert shlex.split(first.partition("`")[2].partition("`")[0]) == [
        "rkdsearch",
        "train",
        "run.yaml",
        "data.name=parquet:WHERE",
        "data.image_size=[32,48]",
        "data.image_column=the photo",
    ]
    assert second == "# Its search validated at rungs too: another epoch may be chosen as the best."


@pytest.mark.parametrize(
    ("row", "unreliable"),
    [
        ({"flags": "[]"}, False),
        ({"flags": "[]", "seen": "1 are training images"}, False),
        ({"flags": "[]", "seen": "7 are training images and 4 are validation images"}, True),
        ({"flags": "[]", "warnings": '["masked"]'}, True),
        ({"flags": None}, None),
    ],
    ids=["sound", "one image is not new", "many are not", "a warning", "nobody looked"],
)
def test_an_entry_is_unreliable_by_signs_and_not_by_one_duplicate(
    row: dict[str, Any], unreliable: bool | None
) -> None:
    assert robustbench._unreliable([{"images": 1000, **row}]) is unreliable


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
    assert (
        entry["unreliable"],
        entry["attack_seeds"],
        entry["test_images"],
        entry["reconstructed"],
    ) == (
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

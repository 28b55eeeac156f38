from pathlib import Path
from typing import Any

import pytest

import rkdsearch
from rkdsearch import config as configs
from rkdsearch.errors import ConfigError
from rkdsearch.training.trainer import Trainer


def test_a_run_without_a_method_lists_them() -> None:
    with pytest.raises(
        ConfigError, match=r"x\.yaml: method\.name is required; choose one of .*rslad"
    ):
        configs.build({}, "x.yaml")


def test_a_file_with_overrides_on_top_is_a_run(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("method: {name: pgd_at}\nattack.eps: 8/255\n")
    assert configs.load(file, {"attack.eps": "4/255"}).attack.eps == 4 / 255
    for text, complaint in {
        "- a": "must hold names and values, as `seed: 1`; got a list",
        "": "must hold names and values, as `seed: 1`; it is empty",
        "a: [": "is not YAML: ",
        "a: !!python/object:os.x {}": "is not YAML",
        "a: &a {x: *a}": r"run.yaml: its sections are nested without an end: an alias such as \*a",
        "a: &a [1, *a]": "nested without an end",
    }.items():
        file.write_text(text)
        with pytest.raises(ConfigError, match=complaint):
            configs.load(file)
    with pytest.raises(ConfigError, match="there is no such file"):
        configs.load(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match="is a folder, not a YAML file"):
        configs.load(tmp_path)


def test_the_name_of_a_file_may_be_text_and_both_doors_stand_in_the_package(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("method: {name: trades}\n", encoding="utf-8")
    loaded = rkdsearch.load_config(str(tmp_path / "run.yaml"), {"optimizer.lr": 0.2})
    assert (
        loaded
        == rkdsearch.build_config({"method.name": "trades", "optimizer.lr": 0.2})
        == configs.load(tmp_path / "run.yaml", {"optimizer.lr": 0.2})
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "a: 1\nb: 2\na: 3\n",
            "run.yaml, line 3: a is given twice in one section, first in line 1; keep one of them",
        ),
        (
            "optimizer: {lr: 0.1, lr: 0.5}",
            "run.yaml, line 1: lr is given twice in one section, first in line 1; keep one of them",
        ),
        (
            "first:\n- {lr: 1}\n- lr: 1\n  lr: 1\n",
            "run.yaml, line 4: lr is given twice in one section, first in line 3; keep one of them",
        ),
    ],
)
def test_a_name_that_is_given_twice_is_refused_and_not_the_last_one_taken(
    tmp_path: Path, text: str, sentence: str
) -> None:
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        configs.read_yaml(tmp_path / "run.yaml")
    assert str(error.value) == f"{tmp_path}/{sentence}"


def test_an_anchor_may_be_merged_and_its_names_given_anew(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "a: &a {x: 1, y: 2}\nb: &b {z: 4}\nc: {<<: *a, <<: *b, x: 3}\n", encoding="utf-8"
    )
    assert configs.read_yaml(tmp_path / "run.yaml") == {
        "a": {"x": 1, "y": 2},
        "b": {"z": 4},
        "c": {"x": 3, "y": 2, "z": 4},
    }


@pytest.mark.parametrize("values", [None, [], "rslad"])
def test_values_without_names_are_refused_in_a_sentence(values: Any) -> None:
    with pytest.raises(ConfigError, match="config: must hold names and values, such as"):
        configs.build(values)


def test_a_trainer_of_a_file_names_the_function_that_reads_it() -> None:
    run: Any = "run.yaml"
    with pytest.raises(ConfigError, match=r"takes a TrainConfig, got 'run.yaml'; `load_config`"):
        Trainer(run)

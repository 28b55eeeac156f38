from pathlib import Path

import pytest

from rkdsearch import config as configs
from rkdsearch import methods

TEACHER = {
    "network": {"name": "wide_resnet", "depth": 34, "width": 10},
    "path": "t.safetensors",
    "sha256": "ab" * 32,
}


@pytest.mark.parametrize("name", methods.names())
def test_a_run_that_is_written_is_read_as_the_same_run(name: str, tmp_path: Path) -> None:
    values = {
        "method.name": name,
        "teachers": {"robust": TEACHER, "natural": TEACHER},
        "attack.eps": "8/255",
        "optimizer.lr": 1e-5,
    }
    config = configs.build(values)
    (tmp_path / "run.yaml").write_text(configs.written(config), encoding="utf-8")
    assert configs.load(tmp_path / "run.yaml") == config


def test_a_run_is_written_with_its_defaults_and_without_nulls() -> None:
    text = configs.written(configs.build({"method.name": "rslad", "teachers.robust": TEACHER}))
    assert text.startswith(
        "method: {name: rslad, adversarial_weight: 0.8333333333333334, temperature: 1.0, kl_scale:"
        " 1.0, parity: paper}\n"
    )
    assert "momentum: 0.9" in text
    assert "null" not in text

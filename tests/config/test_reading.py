from pathlib import Path

import pytest

from rkdsearch import config as configs
from rkdsearch.errors import ConfigError


def test_a_run_without_a_method_lists_them() -> None:
    with pytest.raises(ConfigError, match=r"x\.yaml: method\.name is required; choose one of .*rslad"):
        configs.build({}, "x.yaml")


def test_a_file_with_overrides_on_top_is_a_run(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("method: {name: pgd_at}\nattack.eps: 8/255\n")
    assert configs.load(file, {"attack.eps": "4/255"}).attack.eps == 4 / 255
    for text, complaint in {
        "- a": "must hold names and values, got list",
        "a: [": "is not YAML: ",
        "a: !!python/object:os.x {}": "is not YAML",
    }.items():
        file.write_text(text)
        with pytest.raises(ConfigError, match=complaint):
            configs.load(file)
    with pytest.raises(ConfigError, match="there is no such file"):
        configs.load(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match="is a folder, not a YAML file"):
        configs.load(tmp_path)

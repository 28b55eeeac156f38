from pathlib import Path

import pytest

from rkdsearch import config as configs
from rkdsearch import plugins
from rkdsearch.cli.space import list_shipped, sample
from rkdsearch.errors import ConfigError, SpaceError
from rkdsearch.space.shipped import files
from tests.search.files import write_space


def test_a_sample_is_what_was_drawn_and_a_whole_one_is_a_file_for_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = write_space(tmp_path)
    sample(space, seed=1)
    drawn = capsys.readouterr().out
    assert drawn.startswith("# sample 0\nmethod.name: ")
    assert "attack.steps" not in drawn
    sample(space, seed=1, whole=True)
    (tmp_path / "run.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    run = configs.load(tmp_path / "run.yaml")
    assert f"optimizer.lr: {run.optimizer.lr}\n" in drawn
    assert (run.attack.steps, run.student.width, run.training.epochs) == (2, 4, 4)


def test_a_file_holds_one_whole_run(tmp_path: Path) -> None:
    with pytest.raises(
        SpaceError,
        match=(
            "--whole prints the file of one run: --count must be 1, got 2; another --seed draws"
            " another run"
        ),
    ):
        sample(write_space(tmp_path), count=2, whole=True)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"seed": -1}, "space sample: --seed must be >= 0, got -1"),
        ({"count": 0}, "space sample: --count must be >= 1, got 0"),
        ({"count": -1}, "space sample: --count must be >= 1, got -1"),
    ],
)
def test_a_sample_of_nothing_is_refused(
    tmp_path: Path, asked: dict[str, int], sentence: str
) -> None:
    with pytest.raises(SpaceError, match=sentence):
        sample(write_space(tmp_path), **asked)  # type: ignore[arg-type]


def test_a_strangers_method_is_sampled_where_its_package_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plugins, "_allowed", set())
    search = {
        "method.name": {"choice": ["tests.strangers.soft_at"]},
        "method.smoothing": {"float": [0.1, 0.2]},
    }
    space = write_space(tmp_path, search=search, first=[])
    with pytest.raises(
        ConfigError,
        match=r"'tests.strangers.soft_at' would import code; allow it with --allow-import tests",
    ):
        sample(space, whole=True)
    sample(space, whole=True, allow_import=("tests.strangers",))
    assert "name: tests.strangers.soft_at, smoothing: 0.1" in capsys.readouterr().out


def test_the_shipped_spaces_are_listed_by_name_with_what_they_are_about(
    capsys: pytest.CaptureFixture[str],
) -> None:
    list_shipped()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(files())
    digits = next(line for line in lines if line.startswith("rkdsearch:digits "))
    assert "scikit-learn's digits on a laptop" in digits
    assert digits.endswith("two methods without a teacher")

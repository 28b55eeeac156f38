"""The commands as functions: the same arguments, and what they return."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import rkdsearch
from rkdsearch.cli import evaluate, export, report, tune
from rkdsearch.errors import StudyError
from tests.results.factory import make_study

# What only a command has: packages are allowed once by `rkdsearch.allow_import`.
OF_COMMANDS = {"allow_import", "dry_run"}


@pytest.mark.parametrize(
    ("function", "command"),
    [
        (rkdsearch.tune, tune.tune),
        (rkdsearch.evaluate, evaluate.evaluate),
        (rkdsearch.report, report.report),
        (rkdsearch.export, export.export),
    ],
    ids=lambda f: f"{f.__module__}.{f.__name__}",
)
def test_a_function_has_the_arguments_and_defaults_of_its_command(
    function: Callable[..., Any], command: Callable[..., Any]
) -> None:
    given, asked = (
        {name: p.default for name, p in inspect.signature(f).parameters.items()}
        for f in (function, command)
    )
    assert given == {name: value for name, value in asked.items() if name not in OF_COMMANDS}


def test_a_search_returns_its_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def searched(space: Path, **more: Any) -> None:
        asked.update(space=space, **more)
        make_study(more["study"], trials=20)

    monkeypatch.setattr(tune, "tune", searched)
    found = rkdsearch.tune("rkdsearch:digits", str(tmp_path / "mine"), trials=20)
    assert asked["space"] == Path("rkdsearch:digits")
    assert (asked["study"], asked["trials"]) == (tmp_path / "mine", 20)
    assert len(found.trials) == 20
    assert {"trial_id", "metric.robust_accuracy"} <= set(found.front.columns)


def test_a_report_returns_its_page(tmp_path: Path) -> None:
    make_study(tmp_path, trials=8)
    assert rkdsearch.report(str(tmp_path)) == tmp_path / "report.html"


def test_what_a_command_would_say_is_raised(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="typo: a study is a folder"):
        rkdsearch.read_study(str(tmp_path / "typo"))
    with pytest.raises(StudyError, match="typo: is not there"):
        rkdsearch.export(str(tmp_path / "typo"))


def test_torchs_settings_are_the_notebooks_own_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()

    def evaluated(study: Path, **_: Any) -> Path:
        torch.set_num_threads(threads + 1)
        raise StudyError("in the middle")

    monkeypatch.setattr(evaluate, "evaluate", evaluated)
    with pytest.raises(StudyError, match="in the middle"):
        rkdsearch.evaluate(tmp_path)
    assert torch.get_num_threads() == threads

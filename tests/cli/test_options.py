"""Options that take several values, and paths."""

from pathlib import Path
from typing import get_args

import pytest

from rkdsearch.cli import app, options
from rkdsearch.cli.options import repeated
from tests.cli.test_help import arguments


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("s --attacks clean pgd20", "s --attacks clean --attacks pgd20"),
        ("s --attacks clean --attacks pgd20", "s --attacks clean --attacks pgd20"),
        ("--attacks clean pgd20 studies/s", "--attacks clean --attacks pgd20 studies/s"),
        ("--attacks clean pgd20 study --front", "--attacks clean --attacks pgd20 study --front"),
        ("--attacks=clean pgd20", "--attacks=clean --attacks pgd20"),
        # a misspelt one is named by the option, and not taken for the study
        ("s --attacks clean pdg20", "s --attacks clean --attacks pdg20"),
        ("s --eps 4/255 0.05 1e-2 x", "s --eps 4/255 --eps 0.05 --eps 1e-2 x"),
        ("s --severity 1 3 data.channels=1", "s --severity 1 --severity 3 data.channels=1"),
        ("--allow-import torch yaml x.yaml", "--allow-import torch --allow-import yaml x.yaml"),
        ("describe --allow-import torch rslad", "describe --allow-import torch rslad"),
        ("--allow-import torch torch.nn", "--allow-import torch torch.nn"),
        ("--allow-import torch study", "--allow-import torch study"),
        ("--allow-import torch test", "--allow-import torch test"),
        # other options have one value, and a list's first value is never looked at
        ("--images 5 7 --attacks --front", "--images 5 7 --attacks --front"),
    ],
)
def test_a_list_may_follow_one_option_and_ends_where_other_words_begin(
    typed: str, read: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as `python -m` has it: a folder is no package
    (tmp_path / "study").mkdir()
    assert list(repeated(typed.split())) == read.split()


def test_every_path_of_every_command_is_looked_at_as_it_was_typed() -> None:
    paths = {
        name: argument.parameter.converter
        for name, argument in arguments(app)
        if "Path" in str(argument.hint)
    }
    known = {"tune --study", "teacher convert --file", "space check FILES", "report --out"}
    assert known <= set(paths)
    assert set(paths.values()) == {get_args(options.LocalPath)[1].converter}

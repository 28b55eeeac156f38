"""Options that take several values."""

from pathlib import Path

import pytest

from rkdsearch.cli.options import repeated


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

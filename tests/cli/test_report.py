from pathlib import Path

import pytest

from rkdsearch.cli.report import report
from rkdsearch.errors import StudyError


def test_report_prints_where_the_page_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(tmp_path)
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_report_of_a_folder_that_is_not_there_makes_none(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="typo: a study is a folder"):
        report(tmp_path / "typo")
    assert list(tmp_path.iterdir()) == []

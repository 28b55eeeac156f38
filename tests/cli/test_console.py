import pytest

from rkdsearch.cli.console import say


def test_a_line_has_no_control_characters_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    say("label :bug: [red]\x1b]0;owned\x07\x1b[2J\r of\na stranger\t1 ü")
    assert capsys.readouterr().out == "label :bug: [red] ]0;owned  [2J  of\na stranger 1 ü\n"

"""The long proof that every method learns something: 25 epochs on digits, one seed."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from analysis import every_method
from analysis.every_method import student
from rkdsearch import methods


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two teachers, trained once."""
    return tmp_path_factory.mktemp("teachers")


@pytest.fixture(scope="module")
def natural_robustness(cache: Path) -> float:
    """What a naturally trained student keeps under the validation attack at eps 0.1."""
    return student("natural", 0, cache)["robust_accuracy"]


# KD is left out: it attacks nothing, and promises no robustness at this eps.
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [n for n in methods.names() if n not in ("natural", "kd")])
def test_beats_natural_training_under_attack(
    name: str, cache: Path, natural_robustness: float
) -> None:
    assert student(name, 0, cache)["robust_accuracy"] > natural_robustness + 0.1


def test_what_was_measured_is_read_again_and_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for settings in (every_method.COMMON, every_method.TEACHER):
        monkeypatch.setitem(settings, "training", {"epochs": 1, "device": "cpu"})
    monkeypatch.setattr(
        every_method, "methods", SimpleNamespace(names=lambda: ("natural", "pgd_at"))
    )
    monkeypatch.setattr("sys.argv", ["every_method.py", "--seeds", "1", "--cache", str(tmp_path)])
    printed = []
    for _ in range(2):
        every_method.main()
        printed.append(capsys.readouterr().out)
        # the second time nothing is trained
        monkeypatch.setattr(every_method, "student", None)
    assert printed[0] == printed[1]
    assert "margin-10 on 404 validation images" in printed[0]
    assert [line.split("|")[1].strip() for line in printed[0].splitlines()[-2:]] == [
        "natural",
        "pgd_at",
    ]

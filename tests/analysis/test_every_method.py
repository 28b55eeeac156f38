"""The long proof that every method learns something: 25 epochs on digits, one seed."""

from pathlib import Path

import pytest

from analysis.every_method import student
from rkdsearch import methods


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two teachers, trained once."""
    return tmp_path_factory.mktemp("teachers")


@pytest.fixture(scope="module")
def natural_robustness(cache: Path) -> float:
    """What a naturally trained student keeps under PGD-10 at eps 0.1."""
    return student("natural", 0, cache).robust_accuracy


# KD is left out: it attacks nothing, and promises no robustness at this eps.
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [n for n in methods.names() if n not in ("natural", "kd")])
def test_beats_natural_training_under_attack(
    name: str, cache: Path, natural_robustness: float
) -> None:
    assert student(name, 0, cache).robust_accuracy > natural_robustness + 0.1

"""A single run, without and with a test evaluation."""

from pathlib import Path

import pytest

from rkdsearch import config as run
from rkdsearch.results.store import Store
from tests.exporting.runs import VALUES, evaluation
from tests.training.runs import train_alone


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single run's folder: a reconstructed method, one epoch."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    assert len(list(train_alone(run.build(VALUES), folder))) == 1
    return folder


@pytest.fixture
def evaluated(alone: Path) -> Path:
    store = Store(alone)
    store.write_evaluation(evaluation("clean", 0, "1" * 9 + "0"))
    store.write_evaluation(
        evaluation("autoattack", 0, "1111100000", warnings=["gradients are masked"])
    )
    store.write_evaluation(evaluation("autoattack", 1, "0111110000"))
    return alone

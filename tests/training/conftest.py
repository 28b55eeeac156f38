"""One pair of teachers for all runs of a session, so that all share the cached logits, too."""

from pathlib import Path

import pytest

from tests.training.runs import teachers_in


@pytest.fixture(scope="session")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teachers_in(tmp_path_factory.mktemp("teachers"))

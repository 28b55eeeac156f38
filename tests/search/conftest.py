import pytest

from rkdsearch.search import study as study_module


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    # which rows are written must not depend on this machine's speed
    monkeypatch.setattr(study_module, "EPOCHS_EVERY_SECONDS", 1e9)

import pytest

from rkdsearch.search import ledger


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    # which rows are written must not depend on this machine's speed
    monkeypatch.setattr(ledger, "EPOCHS_EVERY_SECONDS", 1e9)

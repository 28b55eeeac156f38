from pathlib import Path

import pytest

from rkdsearch.training.timing import expected_seconds
from rkdsearch.training.trainer import Trainer
from tests.training.runs import described


def test_a_runs_last_checks_are_not_timed_as_if_every_epoch_had_them(
    teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "_checks_of_best", lambda *_: pytest.fail("the checks were timed"))
    seconds = expected_seconds(described(teachers, training={"epochs": 40}))
    assert seconds is not None
    assert 0 < seconds < 60

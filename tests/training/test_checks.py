"""The checks behind flags come with a full run's last epoch, of its best network."""

from pathlib import Path
from typing import Any

import pytest

from rkdsearch.config.fidelity import Fidelity
from rkdsearch.results.cells import records
from rkdsearch.results.flags import Flag, raised
from rkdsearch.results.rows import Checks
from rkdsearch.results.store import Store
from rkdsearch.training.run import single_run
from rkdsearch.training.trainer import Trainer
from tests.training.runs import TINY, described

ROUNDED = {"student": {"name": "tests.training.networks.Rounded"}}


def checks_of(trainer: Trainer) -> list[Checks | None]:
    return [epoch.checks for epoch in trainer.epochs()]


def test_only_the_last_epoch_of_a_full_run_is_checked_and_a_resumed_run_says_the_same(
    teachers: Path, tmp_path: Path
) -> None:
    config = described(teachers, "rslad", **TINY)
    whole = checks_of(Trainer(config, tmp_path / "whole"))
    assert whole[0] is None
    assert whole[1] is not None
    assert 0 < whole[1].images <= 200
    next(Trainer(config, tmp_path / "parts").epochs())
    assert checks_of(Trainer(config, tmp_path / "parts")) == whole[1:]
    assert Trainer(config, tmp_path / "whole").resume()[-1].checks == whole[1]
    early = Trainer(config, fidelities=[Fidelity(epochs=1)])
    assert checks_of(early) == [None]


def test_a_network_that_rounds_its_pixels_is_flagged_in_its_row(
    teachers: Path, tmp_path: Path
) -> None:
    trainer = Trainer(described(teachers, "pgd_at", **ROUNDED), tmp_path)
    *_, last = single_run(trainer)
    assert last.checks is not None
    assert Flag.ZERO_GRADIENTS in raised(last.checks)
    (row,) = records(Store(tmp_path).trials())
    assert "zero_gradients" in row["flags"]
    assert row["check.without_gradient"] == last.checks.without_gradient


@pytest.mark.parametrize("select", ["clean_accuracy", "robust_accuracy"])
def test_the_best_epochs_network_is_checked_whichever_epoch_it_is(
    teachers: Path, tmp_path: Path, select: str
) -> None:
    changes: dict[str, Any] = {"validation": {"select": select}, "training": {"epochs": 3}}
    trainer = Trainer(described(teachers, "pgd_at", **TINY, **changes), tmp_path)
    *_, last = trainer.epochs()
    assert last.best is not None
    assert last.checks is not None
    # The same network from the file: best.safetensors is always the best epoch's.
    again = Trainer(described(teachers, "pgd_at", **TINY, **changes), tmp_path)
    again.history = again.resume()
    elsewhere = last.__class__(**{**vars(last), "epoch": 99})  # as if a later epoch had been worse
    assert again._checks_of_best(elsewhere) == last.checks

"""A worker trains many trials in turn: of each, only cached files may remain for the next."""

import gc
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from rkdsearch import methods
from rkdsearch.execution.messages import EpochReport, packed, unpacked
from rkdsearch.execution.trainable import RayTrial
from tests.execution.orders import order_of
from tests.training.runs import CLOCKS, described, server, teachers_in

TRIALS = 200
# they keep what they learned of a batch, a class or a teacher
PROBES = ("absld", "ciard", "mtard", "iad")
EVERY_METHOD = (*methods.names(), *PROBES)


class Worker:
    """Ray's actor without Ray: the class that Tune steps and hands new trials to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._actor = RayTrial.__new__(RayTrial)
        self._actor._gang = None

    def train(self, name: str, method: str, seed: int, epochs: int = 2) -> list[dict[str, Any]]:
        """The epochs of a trial without their times.

        Tune stops asking where the scheduler stopped it.
        """
        config = described(
            self._folder,
            method,
            training={"seed": seed, "epochs": 2, "batch_size": 25, "device": "cpu"},
        )
        order = order_of(self._folder / name, config, trial_id=name, lengths=(1, 2))
        self._actor.reset_config(packed(order))
        found = []
        for _ in range(epochs):
            answer = unpacked(self._actor.step())
            assert isinstance(answer, EpochReport), answer
            found.append({k: v for k, v in asdict(answer.result).items() if k not in CLOCKS})
        return found


def megabytes() -> float:
    """What this process holds now."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def many_trials(folder: Path) -> None:
    torch.set_num_threads(1)
    worker, held = Worker(folder), []
    for number in range(TRIALS):
        # Every third is stopped at its first rung, as most trials of a search are.
        worker.train(
            f"t{number}",
            EVERY_METHOD[number % len(EVERY_METHOD)],
            seed=number,
            epochs=1 if number % 3 else 2,
        )
        held.append(megabytes())
    probes = {method: worker.train(f"probe-{method}", method, seed=7) for method in PROBES}
    (folder / "many.json").write_text(json.dumps({"held": held, "probes": probes}))


def in_this_order(folder: Path, *order: str) -> None:
    """One worker trains a trial of each of these methods.

    `<order>.json` has their epochs by method.
    """
    torch.set_num_threads(1)
    worker, name = Worker(folder), "-".join(order)
    (folder / f"{name}.json").write_text(
        json.dumps({method: worker.train(f"{name}-{method}", method, seed=7) for method in order})
    )


def in_a_fresh_process(*work: Any) -> None:
    process = server().Process(target=work[0], args=work[1:])
    process.start()
    process.join()
    assert process.exitcode == 0


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = teachers_in(tmp_path_factory.mktemp("reuse"))
    in_a_fresh_process(many_trials, folder)
    for method in PROBES:
        in_a_fresh_process(in_this_order, folder, method)
    return folder


def test_a_trial_has_the_same_numbers_before_and_after_one_of_another_method(
    tmp_path: Path,
) -> None:
    teachers_in(tmp_path)
    for order in (("absld", "mtard"), ("mtard", "absld")):
        in_a_fresh_process(in_this_order, tmp_path, *order)
    one, other = (
        json.loads((tmp_path / f"{order}.json").read_text())
        for order in ("absld-mtard", "mtard-absld")
    )
    assert one == other
    assert [epoch["epoch"] for epoch in one["mtard"]] == [1, 2]


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="Linux tells what a process holds"
)
def test_a_worker_holds_no_more_after_two_hundred_trials_than_after_thirty(told: Path) -> None:
    held = json.loads((told / "many.json").read_text())["held"]
    first_round = len(EVERY_METHOD) + 4  # each method has been there
    # MB; a trial that stayed would add its images, teachers and steps' buffers
    assert max(held[first_round:]) - held[first_round] < 8


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("method", PROBES)
def test_a_trial_that_comes_after_two_hundred_others_has_the_numbers_of_one_that_comes_first(
    told: Path, method: str
) -> None:
    alone = json.loads((told / f"{method}.json").read_text())[method]
    assert json.loads((told / "many.json").read_text())["probes"][method] == alone
    assert [epoch["epoch"] for epoch in alone] == [1, 2]
    assert all(epoch["robust_accuracy"] is not None for epoch in alone)

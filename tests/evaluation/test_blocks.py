import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rkdsearch import data, models
from rkdsearch.attacks import autoattack as aa
from rkdsearch.errors import TeacherError
from rkdsearch.evaluation import attacks
from rkdsearch.evaluation.attacks import PlannedAttack
from rkdsearch.evaluation.blocks import EvaluationJob, WorkerJob, run_block
from rkdsearch.evaluation.targets import EvaluationTarget, checkpoint_target
from tests.evaluation.files import CONFIG, digits, write_network
from tests.tasks import DIGITS


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> EvaluationTarget:
    file = tmp_path_factory.mktemp("network") / "best.safetensors"
    write_network(file)
    return checkpoint_target(file, trial_id="t00000")


def job(network: EvaluationTarget, name: str, eps: float = 0.02) -> EvaluationJob:
    norm = None if name == "clean" else "linf"
    return EvaluationJob(network, PlannedAttack(name, norm, eps), 0)  # type: ignore[arg-type]


def test_a_block_has_the_verdicts_of_the_networks_own_logits(network: EvaluationTarget) -> None:
    torch.manual_seed(0)
    x, y = data.load_test(CONFIG.data).floats(slice(None))
    same = models.build(CONFIG.student, DIGITS).eval()
    images = digits()
    results = [run_block(WorkerJob(job(network, "clean"), ()), images.pixels, n) for n in (0, 1)]
    with torch.no_grad():
        right = (same(x).argmax(dim=1) == y).tolist()
    assert [len(result.right) for result in results] == [250, len(y) - 250]
    assert [*results[0].right, *results[1].right] == right
    attacked = run_block(WorkerJob(job(network, "pgd20"), ()), images.pixels, 1)
    assert all(a <= c for a, c in zip(attacked.right, right[250:], strict=True))
    assert attacked.survivors == {"clean": sum(right[250:]), "start 1": sum(attacked.right)}
    assert sum(attacked.right) < sum(right[250:])
    other = replace(network, sha256="cd")
    with pytest.raises(TeacherError, match="sha256 must be cd"):
        run_block(WorkerJob(job(other, "clean"), ()), images.pixels, 0)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoAttack of few steps and queries."""
    monkeypatch.setattr(aa.AutoAttack.__init__, "__defaults__", (0, 3, 5))


@pytest.mark.usefixtures("short")
def test_a_killed_block_goes_on_with_the_part_that_it_was_in_to_the_same_bits(
    network: EvaluationTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = digits()
    whole = run_block(WorkerJob(job(network, "autoattack", 0.06), ()), images.pixels, 0)
    work = WorkerJob(job(network, "autoattack", 0.06), (), tmp_path)
    attacked, tried = aa.AutoAttack.attacked, []

    def killed_in(part: str | None) -> None:
        def run(self: aa.AutoAttack, net: nn.Module, p: aa.Part, *xy: torch.Tensor) -> torch.Tensor:
            name = f"{p.attack} {p.target}"
            tried.append(name)
            if name == part:
                raise KeyboardInterrupt
            return attacked(self, net, p, *xy)

        monkeypatch.setattr(aa.AutoAttack, "attacked", run)

    killed_in("apgd-t 2")
    with pytest.raises(KeyboardInterrupt):
        run_block(work, images.pixels, 0)
    record = json.loads((tmp_path / "0.json").read_text(encoding="utf-8"))
    assert record["done"] == ["apgd-ce", "apgd-t 1"]
    tried.clear()
    killed_in(None)
    resumed = run_block(work, images.pixels, 0)
    assert tried[0] == "apgd-t 2"
    np.testing.assert_array_equal(resumed.right, whole.right)
    assert resumed.survivors == whole.survivors
    assert list(whole.survivors) == ["clean", "apgd-ce", "apgd-t", "fab-t", "square"]
    assert 0 < whole.survivors["square"] < whole.survivors["clean"], (
        "the attack has something to do"
    )


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("damage", ["other code", "not JSON", "other images"])
def test_a_record_of_something_else_is_not_taken_up(
    network: EvaluationTarget, tmp_path: Path, damage: str
) -> None:
    images = digits(60)
    work = WorkerJob(job(network, "pgd20"), (), tmp_path)
    whole = run_block(work, images.pixels, 0)
    file = tmp_path / "0.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    record["right"] = "1" * 60 if damage != "other images" else "1" * 40
    record["maker"] = "0.0" if damage == "other code" else record["maker"]
    file.write_text("{" if damage == "not JSON" else json.dumps(record), encoding="utf-8")
    np.testing.assert_array_equal(run_block(work, images.pixels, 0).right, whole.right)


def test_a_full_device_takes_fewer_images_at_a_time_to_the_same_verdicts(
    network: EvaluationTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = digits()
    sizes: list[int] = []
    whole = run_block(WorkerJob(job(network, "margin"), ()), images.pixels, 0)
    margin_attack = attacks.margin_attack

    def full(*arguments: object) -> torch.Tensor:
        sizes.append(len(arguments[-1]))  # type: ignore[arg-type]
        if sizes[-1] > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return margin_attack(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(attacks, "margin_attack", full)
    parts = run_block(WorkerJob(job(network, "margin"), ()), images.pixels, 0)
    np.testing.assert_array_equal(parts.right, whole.right)
    assert sizes[0] > 6 >= sizes[-1]

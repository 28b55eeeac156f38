import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from safetensors.torch import save_file

from rkdsearch import config as run
from rkdsearch import data, models
from rkdsearch.errors import OutOfMemoryError, StudyError, TeacherError
from rkdsearch.evaluation import jobs
from rkdsearch.evaluation.jobs import BlockResult, EvaluationJob, WorkerJob
from rkdsearch.evaluation.targets import EvaluationTarget, evaluation_targets
from rkdsearch.execution import evaluation
from rkdsearch.execution.ray_session import ENVIRONMENT
from rkdsearch.results.cells import records
from rkdsearch.results.store import Store
from rkdsearch.teacher import Role, fingerprint
from rkdsearch.training import checkpoint
from tests.tasks import DIGITS

ACCURACIES = {"metric.clean_accuracy": 0.9, "metric.robust_accuracy": 0.5}
VALUES = {
    "method.name": "natural",
    "data.name": "digits",
    "student": {"name": "small_cnn", "width": 4},
    "training.device": "cpu",
    "validation.attack": {"eps": 8 / 255, "steps": 3},
}
CONFIG = run.build(VALUES)


def run_alone(
    folder: Path, config: run.TrainConfig = CONFIG, *, status: str = "finished", seed: int = 0
) -> None:
    """Write the files of a single run, without training it."""
    Store(folder).write_trial(
        {
            "trial_id": "run",
            "ordinal": 0,
            "origin": "baseline",
            "label": "natural",
            "status": status,
            **ACCURACIES,
        }
    )
    torch.manual_seed(seed)
    network = models.build(config.student, DIGITS)
    checkpoint.write(
        folder / "best.safetensors", network.state_dict(), {"config": config.to_dict()}
    )


def target(trial_id: str, role: Role | None = None) -> EvaluationTarget:
    return EvaluationTarget(trial_id, "", CONFIG, Path("best.safetensors"), "ab" * 32, role)


def test_every_network_has_every_attack_but_teachers_no_autoattack_and_clean_images_one_seed() -> (
    None
):
    found = jobs.evaluation_jobs(
        [target("t00000"), target("teacher", "robust")],
        ("clean", "pgd20", "autoattack"),
        seeds=2,
    )
    assert [(s.target.trial_id, s.attack, s.seed) for s in found] == [
        ("t00000", "clean", 0),
        ("t00000", "pgd20", 0),
        ("t00000", "pgd20", 1),
        ("t00000", "autoattack", 0),
        ("t00000", "autoattack", 1),
        ("teacher", "clean", 0),
        ("teacher", "pgd20", 0),
        ("teacher", "pgd20", 1),
    ]


def test_a_block_has_the_verdicts_of_the_networks_own_logits(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    test = data.load_test(CONFIG.data)
    network = models.build(CONFIG.student, DIGITS).eval()
    save_file(network.state_dict(), tmp_path / "best.safetensors")
    x, y = test.floats(slice(None))
    weights = tmp_path / "best.safetensors"
    images = x.numpy(), y.numpy()

    def block(number: int, attack: str = "clean", sha256: str | None = None) -> BlockResult:
        network_of_trial = EvaluationTarget(
            "t00000", "", CONFIG, weights, sha256 or fingerprint(weights)
        )
        job = EvaluationJob(network_of_trial, attack, 0)
        return jobs.run_block(WorkerJob(job, gpu=0.0, packages=()), images, number)

    results = [block(0), block(1)]
    with torch.no_grad():
        right = (network(x).argmax(dim=1) == y).tolist()
    assert [len(result.right) for result in results] == [250, len(y) - 250]
    assert [*results[0].right, *results[1].right] == right
    attacked = block(1, "pgd20").right
    assert all(a <= c for a, c in zip(attacked, right[250:], strict=True))
    assert sum(attacked) < sum(right[250:])
    with pytest.raises(TeacherError, match="sha256 must be cd"):
        block(0, sha256="cd")


@pytest.mark.parametrize(
    ("gpu", "way_out"),
    [
        (0.25, "raise --gpu, each worker's share of a GPU (now 0.25, at most 1)"),
        (0.0, "(now 0, at most 1)"),
        (1.0, "does another program"),
    ],
)
def test_a_full_device_is_a_sentence_that_names_the_knob(
    monkeypatch: pytest.MonkeyPatch, gpu: float, way_out: str
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(jobs, "_run_block", full)
    job = EvaluationJob(target("t00004"), "autoattack", 0)
    with pytest.raises(OutOfMemoryError) as error:
        jobs.run_block(WorkerJob(job, gpu, ()), (None, None), 0)
    assert str(error.value).startswith(
        "t00004, autoattack: the device is out of memory with 250 images at a time; "
    )
    assert way_out in str(error.value)


@pytest.mark.parametrize(
    ("attack", "steps", "eps"),
    [("clean", None, 0.0), ("pgd20", 20, 8 / 255), ("autoattack", None, 8 / 255)],
)
def test_a_row_adds_up_its_blocks(attack: str, steps: int | None, eps: float) -> None:
    blocks = [
        BlockResult(np.array([True, True, False]), ["b"], 1.5, "a CPU", "2.0"),
        BlockResult(np.array([True]), ["a", "b"], 1.5, "a CPU", "2.0"),
    ]
    row = jobs.row_of(
        EvaluationJob(target("t00003"), attack, 1), blocks, np.array([0, 1, 1, 1]), 450, "ab"
    )
    assert (row["images"], row["of_images"], row["correct"], row["accuracy"], row["per_image"]) == (
        4,
        450,
        3,
        0.75,
        "1101",
    )
    assert row["worst_class_accuracy"] == pytest.approx(2 / 3)
    assert (row["test_attack_steps"], row["eps"], row["seed"], row["seconds"], row["flags"]) == (
        steps,
        eps,
        1,
        3.0,
        ["a", "b"],
    )
    assert (row["subset_sha256"], row["weights_sha256"]) == ("ab", "ab" * 32)
    assert isinstance(row["low"], float)
    assert row["low"] < 0.75


# ------------------------------------------------------------------------------ shared out over Ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray with one pretended GPU."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "PYTHONWARNINGS": "ignore"}.items():
            patch.setenv(name, value)
        ray.init(num_cpus=1, num_gpus=1, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()  # type: ignore[no-untyped-call]  # Ray leaves it untyped


def evaluated(
    folder: Path, attacks: tuple[str, ...] = ("clean", "pgd20"), **more: Any
) -> list[dict[str, Any]]:
    """The rows of a run's test evaluation, as they ended."""
    todo = jobs.evaluation_jobs(evaluation_targets(folder, front=False, trial=None), attacks, 1)
    return [row for _, row in evaluation.run_jobs(folder, todo, **{"images": 40, **more})]


def worker(device: Callable[[WorkerJob], str]) -> Callable[..., BlockResult]:
    """A `run_block` without a network.

    As a closure it is pickled by value: a worker does not import this file.
    """

    def run_block(work: WorkerJob, images: tuple[Any, Any], _block: int) -> BlockResult:
        right = np.full(len(images[1]), work.job.attack == "clean")
        return BlockResult(right, [], 0.0, device(work), "2")

    return run_block


@pytest.mark.usefixtures("cluster")
def test_a_second_evaluation_repeats_nothing_and_a_quick_look_or_new_weights_replace_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "run_block", worker(lambda work: work.job.target.sha256))
    run_alone(tmp_path)
    first = fingerprint(tmp_path / "best.safetensors")
    assert sorted(
        (row["attack"], row["correct"], row["images"]) for row in evaluated(tmp_path)
    ) == [
        ("clean", 40, 40),
        ("pgd20", 0, 40),
    ]
    assert evaluated(tmp_path) == []
    assert [row["images"] for row in evaluated(tmp_path, images=20)] == [20, 20]
    run_alone(tmp_path, seed=1)  # another network in the same place
    second = fingerprint(tmp_path / "best.safetensors")
    assert [row["images"] for row in evaluated(tmp_path, images=20)] == [20, 20]
    rows = records(Store(tmp_path).evaluations())
    assert sorted((row["attack"], row["images"], row["weights_sha256"]) for row in rows) == [
        ("clean", 20, second), ("clean", 40, first), ("pgd20", 20, second), ("pgd20", 40, first),
    ]  # fmt: skip
    assert all(row["run.device"] == row["weights_sha256"] for row in rows), (
        "the worker was told the same"
    )


@pytest.mark.usefixtures("cluster")
def test_a_worker_takes_a_gpu_where_ray_sees_one_unless_the_run_computes_on_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        evaluation,
        "run_block",
        worker(lambda _: json.dumps(ray.get_runtime_context().get_assigned_resources())),
    )
    anywhere = run.build(VALUES | {"training.device": "auto"})
    run_alone(tmp_path / "cpu")
    assert {row["run.device"] for row in evaluated(tmp_path / "cpu")} == {'{"CPU": 1.0}'}
    for gpu, share in ((None, 1.0), (0.25, 0.25)):
        run_alone(tmp_path / str(gpu), anywhere)
        assert [
            json.loads(str(row["run.device"])) for row in evaluated(tmp_path / str(gpu), gpu=gpu)
        ] == [{"CPU": 1.0, "GPU": share}] * 2


@pytest.mark.usefixtures("cluster")
def test_the_error_of_one_job_comes_back_as_itself_after_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(work: WorkerJob) -> str:
        if work.job.attack == "clean":
            raise TeacherError("teacher.pt: is empty; download it again")
        return "a CPU"

    monkeypatch.setattr(evaluation, "run_block", worker(fails))
    run_alone(tmp_path)
    with pytest.raises(TeacherError) as error:
        evaluated(tmp_path)
    assert (type(error.value), str(error.value)) == (
        TeacherError,
        "teacher.pt: is empty; download it again",
    )
    assert [row["attack"] for row in records(Store(tmp_path).evaluations())] == ["pgd20"]


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_is_killed_repeatedly_is_a_sentence_and_our_bug_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_alone(tmp_path)
    monkeypatch.setattr(evaluation, "run_block", lambda *_: os.kill(os.getpid(), 9))
    with pytest.raises(
        OutOfMemoryError,
        match=(
            "run, pgd20: its worker was killed three times, most likely because memory ran out; let"
            " fewer"
        ),
    ):
        evaluated(tmp_path, ("pgd20",))
    monkeypatch.setattr(evaluation, "run_block", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError, match="ZeroDivisionError: division by zero"):
        evaluated(tmp_path, ("pgd20",))


@pytest.mark.usefixtures("cluster")
def test_a_share_that_no_machine_of_this_ray_has_is_refused() -> None:
    assert (
        evaluation._gpu_share(None, None),
        evaluation._gpu_share(0.5, None),
        evaluation._gpu_share(2.0, "auto"),
    ) == (
        1.0,
        0.5,
        2.0,
    )
    with pytest.raises(
        StudyError,
        match=(
            "--gpu 2: Ray sees 1 GPUs on this machine; leave --gpu out, or name a cluster with"
            " --address"
        ),
    ):
        evaluation._gpu_share(2.0, None)

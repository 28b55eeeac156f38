"""Test evaluation shared out over Ray."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from rkdsearch import config as run
from rkdsearch.errors import StudyError, TeacherError
from rkdsearch.evaluation.blocks import BlockResult, EvaluationJob, WorkerJob
from rkdsearch.evaluation.jobs import evaluation_jobs
from rkdsearch.evaluation.runner import JobFailure, evaluate
from rkdsearch.evaluation.targets import study_targets
from rkdsearch.execution import evaluation
from rkdsearch.results.cells import records
from rkdsearch.results.store import Store
from tests.evaluation.files import VALUES, digits, run_alone


def evaluated(
    folder: Path, attacks: Sequence[str] = ("clean", "pgd20"), gpu: float | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows and sentences about failures."""
    todo = evaluation_jobs(study_targets(folder), attacks)  # type: ignore[arg-type]
    with evaluation.ray_executor(gpu) as executor:
        outcomes = list(evaluate(folder, todo, digits(40), executor))
    failures = [o.sentence for o in outcomes if isinstance(o, JobFailure)]
    return [o[1] for o in outcomes if not isinstance(o, JobFailure)], failures


def worker(device: Callable[[WorkerJob], str]) -> Callable[..., BlockResult]:
    """A `run_block` without a network.

    As a closure it is pickled by value: a worker does not import this file.
    """

    def run_block(work: WorkerJob, images: Any, _block: int) -> BlockResult:
        assert isinstance(work.job, EvaluationJob)
        right = np.full(len(images.labels), work.job.attack.name == "clean")
        return BlockResult(right, {"clean": 40}, [], 0.0, device(work), 1, "2")

    return run_block


@pytest.mark.usefixtures("one_ray")
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
    assert {row["run.device"] for row in evaluated(tmp_path / "cpu")[0]} == {'{"CPU": 1.0}'}
    for gpu, share in ((None, 1.0), (0.25, 0.25)):
        run_alone(tmp_path / str(gpu), anywhere)
        rows, _ = evaluated(tmp_path / str(gpu), gpu=gpu)
        found = [json.loads(str(row["run.device"])) for row in rows]
        assert found == [{"CPU": 1.0, "GPU": share}] * 2


@pytest.mark.usefixtures("one_ray")
def test_errors_of_any_class_come_back_as_sentences_and_a_killed_worker_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(work: WorkerJob) -> str:
        assert isinstance(work.job, EvaluationJob)
        match work.job.attack.name:
            case "clean":
                raise TeacherError("teacher.pt: is empty; download it again")
            case "margin":
                raise ZeroDivisionError("division by zero")
            case "targeted":
                os.kill(os.getpid(), 9)
        return "a CPU"

    monkeypatch.setattr(evaluation, "run_block", worker(fails))
    run_alone(tmp_path)
    rows, failures = evaluated(tmp_path, ("clean", "pgd20", "margin", "targeted"))
    assert [row["attack"] for row in rows] == ["pgd20"]
    assert sorted(text.split(" (")[0].split(";")[0] for text in failures) == [
        "ZeroDivisionError: division by zero",
        "its worker was killed three times, most likely because memory ran out",
        "teacher.pt: is empty",
    ]
    assert [row["attack"] for row in records(Store(tmp_path).evaluations())] == ["pgd20"]


@pytest.mark.usefixtures("one_ray")
def test_a_share_that_no_machine_of_this_ray_has_is_refused() -> None:
    shares = [evaluation._gpu_share(*a) for a in ((None, None), (0.5, None), (2.0, "auto"))]
    assert shares == [1.0, 0.5, 2.0]
    with pytest.raises(
        StudyError,
        match=(
            "--gpu 2: Ray sees 1 GPUs on this machine; leave --gpu out, or name a cluster with"
            " --address"
        ),
    ):
        evaluation._gpu_share(2.0, None)

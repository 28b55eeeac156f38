import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "analysis" / "benchmarks"
METHODS = ["rslad", "ard", "iad", "adaad"]
TINY = {"name": "wide_resnet", "depth": 10, "width": 1}
CASES = [
    *((method, TINY, climb) for method in METHODS for climb in ("backward", "images")),
    ("rslad", {"name": "mobilenet_v2"}, "backward"),
]
SMALL = {"teacher": {"name": "wide_resnet", "depth": 10, "width": 1}, "batch": 6, "size": 8, "steps": 3}


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    """analysis/benchmarks/step.py, which is a script and no package."""
    sys.path.insert(0, str(BENCHMARKS))
    import step

    yield step
    sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize(("method", "student", "climb"), CASES)
def test_a_step_of_ours_moves_every_weight_to_where_the_script_moves_it(
    benchmark: ModuleType, method: str, student: dict[str, object], climb: str
) -> None:
    work = benchmark.Workload(method, student, precision="fp64", **SMALL)
    script, ours = benchmark.Published(work, climb), benchmark.Ours(work)
    before = {name: tensor.clone() for name, tensor in ours.student.state_dict().items()}
    losses = [(float(script.step()), float(ours.step())) for _ in range(2)]  # the second with momentum, and from moved weights
    assert all(abs(a - b) < 1e-9 for a, b in losses)
    assert losses[0][0] != losses[1][0]
    after, theirs = ours.student.state_dict(), script.student.state_dict()
    assert max(float((after[name] - theirs[name]).abs().max()) for name in after) < 1e-9
    assert max(float((after[name] - before[name]).abs().max()) for name in after) > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_the_first_loss_in_fp32_is_the_scripts_to_four_places(benchmark: ModuleType, method: str) -> None:
    work = benchmark.Workload(method, TINY, **SMALL)
    assert abs(float(benchmark.Published(work, "backward").step()) - float(benchmark.Ours(work).step())) < 1e-4


def test_a_resnet18_forward_is_counted_as_1_11_billion_operations(benchmark: ModuleType) -> None:
    student, _ = benchmark.Workload("rslad", {"name": "resnet18"}).networks()
    assert benchmark.forward_flops(student, 32) == 1_110_845_440


def test_the_allocator_is_left_alone_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from rkdsearch.training.allocator import VARIABLE, keep_memory

    monkeypatch.setenv(VARIABLE, "default")
    assert not keep_memory()
    assert torch.zeros(1).item() == 0  # and memory is still given

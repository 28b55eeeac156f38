import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "analysis" / "benchmarks"
METHODS = ["rslad", "ard", "iad", "adaad", "crdnd"]
TINY = {"name": "wide_resnet", "depth": 10, "width": 1}
CASES = [
    *((method, TINY, climb) for method in METHODS for climb in ("backward", "images")),
    ("rslad", {"name": "mobilenet_v2"}, "backward"),
]
SMALL = {
    "teacher": {"name": "wide_resnet", "depth": 10, "width": 1},
    "batch": 6,
    "size": 8,
    "steps": 3,
}


def climbed(student: dict[str, object]) -> dict[str, int]:
    """One attack step of a network that is slow in float64; the tiny one has all of `SMALL`."""
    return {} if student is TINY else {"steps": 1}


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
    work = benchmark.Workload(method, student, precision="fp64", **(SMALL | climbed(student)))
    script, ours = benchmark.Published(work, climb), benchmark.Ours(work)
    before = {name: tensor.clone() for name, tensor in ours.student.state_dict().items()}
    # the second with momentum, and from moved weights
    losses = [(float(script.step()), float(ours.step())) for _ in range(2)]
    assert all(abs(a - b) < 1e-9 for a, b in losses)
    assert losses[0][0] != losses[1][0]
    after, theirs = ours.student.state_dict(), script.student.state_dict()
    assert max(float((after[name] - theirs[name]).abs().max()) for name in after) < 1e-9
    assert max(float((after[name] - before[name]).abs().max()) for name in after) > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_the_first_loss_in_fp32_is_the_scripts_to_four_places(
    benchmark: ModuleType, method: str
) -> None:
    work = benchmark.Workload(method, TINY, **SMALL)
    assert (
        abs(
            float(benchmark.Published(work, "backward").step()) - float(benchmark.Ours(work).step())
        )
        < 1e-4
    )


@pytest.mark.parametrize("layout", ["channels last", "transposed"])
@pytest.mark.parametrize(
    ("method", "student"), [("ard", TINY), ("adaad", TINY), ("iad", {"name": "mobilenet_v2"})]
)
def test_mathematics_sees_no_difference_between_the_layouts_of_the_script(
    benchmark: ModuleType, method: str, student: dict[str, object], layout: str
) -> None:
    work = benchmark.Workload(method, student, precision="fp64", **(SMALL | climbed(student)))
    published, other = (
        benchmark.Published(work, "images"),
        benchmark.Published(work, "images", layout),
    )
    assert abs(float(published.step()) - float(other.step())) < 1e-9
    after, moved = published.student.state_dict(), other.student.state_dict()
    if layout == "transposed":
        # it is not the same network
        assert any(not torch.equal(after[name], moved[name]) for name in after)
        moved = {name: tensor.mT if tensor.ndim == 4 else tensor for name, tensor in moved.items()}
    assert max(float((after[name] - moved[name]).abs().max()) for name in after) < 1e-9


def test_our_loss_may_be_as_far_from_the_script_as_the_script_from_itself(
    benchmark: ModuleType,
) -> None:
    assert benchmark.agreement(0.5003, [0.5, 0.5001, 0.4998]) == pytest.approx((2e-4, 3e-4))
    assert benchmark.agreement(0.5009, [0.5, 0.5007, 0.5]) == pytest.approx((2e-4, 7e-4))
    assert benchmark.agreement(0.5003, [0.5, 0.5, 0.5]) == pytest.approx((3e-4, 1e-4))


def test_a_pair_of_method_and_student_prints_its_verdict_on_losses(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Here:
        """A side without a process of its own."""

        def submit(self, work: Callable[..., object], *given: object) -> "Future[object]":
            future: Future[object] = Future()
            future.set_result(work(*given))
            return future

    monkeypatch.setitem(benchmark.BARS, ("ard", "wide_resnet"), (1000.0, None))
    work, sides = (
        benchmark.Workload("ard", TINY, **SMALL),
        {name: Here() for name in ("script", "script+alloc", "ours")},
    )
    assert benchmark.compare(sides, work, "images", "cpu", 1, 1e9) == (False, True)
    printed = capsys.readouterr().out
    assert "BAR MISSED" in printed
    assert "DOES NOT AGREE" not in printed
    monkeypatch.setattr(
        benchmark, "measure", lambda work, climb, clock: (1.0, 0.25 if climb is None else 0.5)
    )
    monkeypatch.setattr(benchmark, "first_loss", lambda *given: 0.5001)
    assert benchmark.compare(sides, work, "images", "cpu", 1, 1e9) == (False, False)
    assert (
        "0.250000, 2.5e-01 from the script as published, 2.5e-01 from the nearest of them (at most"
        " 1.0e-04)   DOES NOT AGREE" in (capsys.readouterr().out)
    )
    monkeypatch.setattr(benchmark, "measure", lambda work, climb, clock: (1.0, 0.5))
    monkeypatch.setattr(
        benchmark, "first_loss", lambda work, climb, *_: 0.5 if climb else 0.5 + 2e-8
    )
    assert benchmark.compare(sides, work, "images", "cpu", 1, 1e9) == (False, False)
    assert (
        "in float64             2.0e-08 apart (at most 1e-09)   DOES NOT AGREE"
        in capsys.readouterr().out
    )


def test_first_losses_are_equal_in_float64(benchmark: ModuleType) -> None:
    difference = benchmark.difference_in_float64(benchmark.Workload("ard", TINY, **SMALL), "images")
    assert 0 < difference < 1e-9  # exactly 0 would be one side compared with itself


def test_clean_images_that_weigh_nothing_are_a_forward_and_no_backward(
    benchmark: ModuleType,
) -> None:
    ard, rslad = (benchmark.Workload(method, TINY, **SMALL) for method in ("ard", "rslad"))
    forward = benchmark.forward_flops(ard.networks()[0], 8)
    assert benchmark.useful_flops(rslad) - benchmark.useful_flops(ard) == 6 * 2 * forward


def test_operations_are_counted_on_the_cpu_wherever_the_step_is_taken(
    benchmark: ModuleType,
) -> None:
    here = benchmark.Workload("ard", TINY, **SMALL)
    elsewhere = replace(here, device="meta", precision="fp64")
    assert benchmark.useful_flops(elsewhere) == benchmark.useful_flops(here) > 0


def test_a_resnet18_forward_is_counted_as_1_11_billion_operations(benchmark: ModuleType) -> None:
    student, _ = benchmark.Workload("rslad", {"name": "resnet18"}).networks()
    assert benchmark.forward_flops(student, 32) == 1_110_845_440


def test_the_allocator_is_left_alone_where_the_environment_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rkdsearch.training.allocator import VARIABLE, keep_memory

    monkeypatch.setenv(VARIABLE, "default")
    assert not keep_memory()
    assert torch.zeros(1).item() == 0  # and memory is still given

"""`training.compile`: every forward of the student is compiled, and computes the same."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx

from rkdsearch import methods
from rkdsearch.training.trainer import Trainer
from tests.training.runs import TINY, described, train

ONE_STEP: dict[str, Any] = {
    "attack": {"steps": 3},
    "training": {"compile": True, "epochs": 1, "batch_size": 100},
    **TINY,
}


@contextmanager
def counted() -> Iterator[list[fx.GraphModule]]:
    """The compiler without its code generation: each call of what it compiled is listed."""
    calls: list[fx.GraphModule] = []

    def listing(graph: fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        def call(*inputs: Any) -> Any:
            calls.append(graph)
            return graph(*inputs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", partial(torch.compile, backend=listing))
        yield calls
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("method", "forwards"),
    # ascent steps, and batches that are learnt from
    [("rslad", 3 + 2), ("ard", 3 + 2), ("ardir", 3 + 1)],
)
def test_every_forward_of_the_student_is_compiled(
    teachers: Path, method: str, forwards: int
) -> None:
    with counted() as calls:
        train(described(teachers, method, **ONE_STEP))
    assert len(calls) == forwards


def test_a_run_compiles_anew_however_many_there_were_before_it_in_the_process(
    teachers: Path,
) -> None:
    with counted() as calls:
        for seed in range(9):  # the compiler gives a function up after eight versions of it
            training = {**ONE_STEP["training"], "seed": seed}
            train(
                described(
                    teachers,
                    "natural",
                    **{
                        **ONE_STEP,
                        "student": {"name": "mlp", "width": 4 + seed},
                        "training": training,
                    },
                )
            )
    assert len(calls) == 9


@pytest.mark.long
@pytest.mark.parametrize("method", methods.names())
def test_every_method_loses_the_same_where_its_student_is_compiled(
    teachers: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    # Traced and differentiated by the compiler, without the C++ code that the next test generates.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    plain, compiled = plain_and_compiled(teachers, method)
    assert compiled.history[0].loss == pytest.approx(plain.history[0].loss, abs=1e-9)
    assert compiled.history[0].terms == pytest.approx(plain.history[0].terms, abs=1e-9)


@pytest.mark.long
@pytest.mark.timeout(400)  # code is generated, on a machine that may be busy
@pytest.mark.parametrize("method", ["rslad", "ardir", "cgard", "igdm"])
def test_compiled_steps_lose_what_plain_ones_lose(teachers: Path, method: str) -> None:
    if not any(shutil.which(compiler) for compiler in ("c++", "g++", "clang++")):
        pytest.skip("needs a C++ compiler, and this machine has none")
    plain, compiled = plain_and_compiled(teachers, method)
    assert compiled.history[0].loss == pytest.approx(plain.history[0].loss, abs=1e-9)
    assert compiled.history[0].terms == pytest.approx(plain.history[0].terms, abs=1e-9)


def plain_and_compiled(teachers: Path, method: str) -> tuple[Trainer, Trainer]:
    training = {"epochs": 1, "batch_size": 50, "precision": "fp64"}
    plain, compiled = (
        train(described(teachers, method, training={**training, "compile": c}, **TINY))
        for c in (False, True)
    )
    return plain, compiled

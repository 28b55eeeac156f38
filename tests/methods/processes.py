"""Two processes with half a batch each, against one process with the whole batch."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from rkdsearch import methods
from tests.methods.laws import Bench
from tests.training.runs import gang

PROCESSES = 2
Case = tuple[str, dict[str, Any]]


def compare(cases: list[Case], folder: Path) -> list[tuple[str, float]]:
    """The largest difference of each case, between two processes and one.

    Of losses, mean gradients and memory, over two steps.
    """
    gang(partial(_work, cases, methods.allowed_imports()), folder, PROCESSES)
    return [
        (case, difference)
        for case, difference in json.loads((folder / "differences.json").read_text())
    ]


def _work(cases: list[Case], allowed: tuple[str, ...], folder: Path) -> None:
    methods.allow_import(*allowed)
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    found = [(f"{name} {setting}", _difference(name, setting, rank)) for name, setting in cases]
    if rank == 0:
        (folder / "differences.json").write_text(json.dumps(found))


def _difference(name: str, setting: dict[str, Any], rank: int) -> float:
    method = methods.load(name)(**setting)
    # Without BatchNorm: it sees a process's own images, and no method can undo that.
    one, many = (Bench(method, dtype=torch.float64, batchnorm=False) for _ in range(2))
    worst = 0.0
    for _ in range(2):
        whole, part = one.loss().total, many.loss(**many.share(rank, PROCESSES)).total
        pairs = [(whole.detach(), _mean(part.detach()))]
        for bench, total in ((one, whole), (many, part)):
            for p in bench.trained().values():
                p.grad = None
            torch.autograd.backward(total)
        for alone, together in zip(one.trained().values(), many.trained().values(), strict=True):
            assert (alone.grad is None) == (together.grad is None)
            if alone.grad is not None and together.grad is not None:
                pairs.append((alone.grad, _mean(together.grad)))
        pairs += [(one.memory[key], many.memory[key]) for key in one.memory]
        worst = max(worst, *(float((a - b).abs().max()) for a, b in pairs))
    found = torch.tensor(worst, dtype=torch.float64)
    # every process keeps a memory of its own
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return found.item()


def _mean(tensor: Tensor) -> Tensor:
    """Over processes, as DDP does it."""
    distributed.all_reduce(tensor)
    return tensor / PROCESSES

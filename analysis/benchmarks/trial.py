"""Speed of a small trial: ours against the same training by the published scripts.

RSLAD on digits: batch 128, PGD-10, a small CNN of width 32 as the teacher, one thread. The sides
take turns, epoch by epoch:

backward   `published.py`'s step in an epoch's loop: a DataLoader of tensors, a shuffled epoch,
           `loss.item()` after every step; its attack asks for all gradients, as the scripts of ARD,
           IAD and many others do. The bars are counted against this side, as in step.py
images     the same, with an attack that asks for the images' gradient alone, as RSLAD's authors do
ours       `Trainer(config).epochs()`, without its validation

An epoch is the same images and the same number of steps on all sides; the clock is CPU time, so
that others on the machine matter less. The exit code is 1 where a bar was missed, or where the
first losses of the same batch differ by 1e-4 (in float64 by 1e-9).

    python analysis/benchmarks/trial.py [--quick] [--students small_cnn mlp]
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import published
import torch
import turns
from accelerate import Accelerator
from safetensors.torch import save_file
from torch.utils.data import DataLoader, TensorDataset
from turns import spread

from rkdsearch import config, models
from rkdsearch.attacks import Attack, Noise
from rkdsearch.config import TrainConfig
from rkdsearch.data import Batches
from rkdsearch.models import ModelConfig
from rkdsearch.task import ImageTask
from rkdsearch.training.objective import TrainingObjective
from rkdsearch.training.optimizers import without_compiler
from rkdsearch.training.trainer import Trainer

STUDENTS: dict[str, tuple[dict[str, object], float]] = {
    "small_cnn": ({"name": "small_cnn", "width": 8}, 1.4),
    "mlp": ({"name": "mlp"}, 2.5),
}  # (settings, bar)
TEACHER = {"name": "small_cnn", "width": 32}
DIGITS = ImageTask(classes=10, channels=1, height=8, width=8)
EPS = 0.15
CLIMBS = {"backward": published.by_backward, "images": published.by_images_alone}
BARRED = "backward"
CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}


def described(folder: Path, student: dict[str, object], precision: str = "fp32") -> TrainConfig:
    """The run as a user describes it; long, and validated only at its end.

    Its teacher's file is written into `folder`.
    """
    path = folder / "teacher.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        save_file(
            models.build(ModelConfig.model_validate(TEACHER), DIGITS).state_dict(),
            path,
        )
    return config.build(
        {
            "method.name": "rslad",
            "data.name": "digits",
            "student": student,
            "teachers.robust": {"network": TEACHER, "path": str(path)},
            "attack": {"eps": EPS, "steps": 10, "relative_step_size": 0.25},
            "validation.every": 100_000,
            "schedule.name": "constant",
            "training": {
                "epochs": 100_000,
                "batch_size": 128,
                "precision": precision,
                "device": "cpu",
            },
        }
    )


def script(trainer: Trainer, climb: published.Climb) -> published.Script:
    """The script that begins where `trainer` stands: the same weights, of its own."""
    described, attack = trainer.config, trainer.config.attack.build()
    train = trainer.splits.train

    def fresh(like: ModelConfig) -> torch.nn.Module:
        return models.build(like, train.task).to(dtype)

    assert described.teachers.robust is not None
    dtype = next(trainer.student.parameters()).dtype
    student, teacher = fresh(described.student), fresh(described.teachers.robust.network)
    student.load_state_dict(trainer.student.state_dict())
    teacher.load_state_dict(trainer.teachers["robust"].state_dict())
    settings = described.optimizer
    optimizer = torch.optim.SGD(
        student.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    return published.Script(
        student, teacher.eval(), optimizer, climb, attack.ball.eps, attack.step_size, attack.steps
    )


def script_epochs(trainer: Trainer, climb: published.Climb) -> Iterator[float]:
    """Its epochs without end: the mean loss of each."""
    work, generator = script(trainer, climb), torch.Generator().manual_seed(0)
    x, y = trainer.splits.train.floats(slice(None))
    loader = DataLoader(
        TensorDataset(x.contiguous(), y),
        batch_size=trainer.config.training.batch_size,
        shuffle=True,
    )
    while True:
        total = 0.0
        for images, labels in loader:
            total += published.rslad(work, images, labels, generator).item()
        yield total / len(loader)


def first_losses(folder: Path, student: dict[str, object], precision: str) -> tuple[float, float]:
    """The script's and ours, of the same batch from the same weights and noise."""
    trainer = Trainer(described(folder, student, precision))
    batch = next(iter(trainer._batches.epoch(0)))  # noqa: SLF001 - a run never gives its batches away
    theirs = script(trainer, CLIMBS["images"])
    x = batch.x.contiguous().to(next(theirs.student.parameters()).dtype)
    loss = published.rslad(theirs, x, batch.y, torch.Generator().manual_seed(2))
    ours, _ = trainer._step(batch, Noise(torch.Generator().manual_seed(2)), 0, 1.0)  # noqa: SLF001
    return float(loss), float(ours)


def where_time_goes(epoch: Callable[[], object], steps: int) -> dict[str, float]:
    """Microseconds of our step, by part; a part's time excludes the parts that it calls."""
    spent: dict[str, float] = {}
    inner = [0.0]  # seconds of the parts that the present one has called

    def watched(part: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            outside, inner[0], started = inner[0], 0.0, time.process_time()
            try:
                return plain(*args, **kwargs)
            finally:
                taken = time.process_time() - started
                spent[part] = spent.get(part, 0.0) + taken - inner[0]
                inner[0] = outside + taken

        return timed

    def batches(self: Batches, number: int) -> Iterator[object]:
        running = drawn(self, number)
        following = watched("data", lambda: next(running, None))
        while (batch := following()) is not None:
            yield batch

    drawn = Batches.epoch
    places: dict[str, tuple[Any, str]] = {
        "attack": (Attack, "maximize"),
        "outer forward": (TrainingObjective, "forward"),
        "outer backward": (Accelerator, "backward"),
        "optimizer": (without_compiler(torch.optim.SGD), "step"),
    }
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Batches, "epoch", batches))
        for part, (owner, name) in places.items():
            stack.enter_context(mock.patch.object(owner, name, watched(part, getattr(owner, name))))
        watched("the loop", epoch)()
    return {
        part: seconds / steps * 1e6
        for part, seconds in sorted(spent.items(), key=lambda pair: -pair[1])
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """As a search runs small trials: side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def compare(folder: Path, name: str, repeats: int, epochs: int) -> bool:
    """Measure one student in turns; True where its bar was reached and both sides agree."""
    settings, bar = STUDENTS[name]
    trainer = Trainer(described(folder, settings))
    steps = len(trainer._batches)  # noqa: SLF001
    sides: dict[str, Iterator[object]] = {
        name: script_epochs(trainer, climb) for name, climb in CLIMBS.items()
    }
    sides["ours"] = trainer.epochs()
    seconds: dict[tuple[str, str], list[float]] = {}
    for repeat in range(repeats + 1):
        for side, running in sides.items():
            started = {clock: now() for clock, now in CLOCKS.items()}
            for _ in range(epochs):
                next(running)
            for clock, now in CLOCKS.items():
                if repeat:  # the first turn touches memory and chooses kernels
                    seconds.setdefault((side, clock), []).append(
                        (now() - started[clock]) / epochs / steps
                    )
    ratios = {
        (side, clock): [
            a / b for a, b in zip(seconds[side, clock], seconds["ours", clock], strict=True)
        ]
        for side in CLIMBS
        for clock in CLOCKS
    }
    reached = statistics.median(ratios[BARRED, "cpu"]) >= bar
    print(f"\nrslad on {name}, {steps} steps an epoch" + ("" if reached else "   BAR MISSED"))
    for side in sides:
        cpu, wall = (spread([1e3 * value for value in seconds[side, clock]], 2) for clock in CLOCKS)
        print(f"  {side:16} {cpu} ms a step, cpu   {wall} wall")
    for side in CLIMBS:
        cpu, wall = (spread(ratios[side, clock], 2) for clock in CLOCKS)
        print(
            f"  {side + ' / ours':16} {cpu} cpu   {wall} wall"
            + (f"   bar {bar}" if side == BARRED else "")
        )
    agreed = True
    for precision, tolerance in (("fp32", 1e-4), ("fp64", 1e-9)):
        theirs, ours = first_losses(folder, settings, precision)
        agreed &= abs(theirs - ours) <= tolerance
        print(
            f"  first losses  {theirs:.6f} and {ours:.6f} in {precision}, {abs(theirs - ours):.1e}"
            f" apart (at most {tolerance:g})"
        )
    parts = where_time_goes(lambda: [next(sides["ours"]) for _ in range(epochs)], steps * epochs)
    total = sum(parts.values())
    print(
        "  a step's us   "
        + ", ".join(f"{part} {found:,.0f} ({found / total:.0%})" for part, found in parts.items()),
        flush=True,
    )
    return reached and agreed


def main() -> int:
    """Measure, and print ratios; 0 where every bar was reached."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer and shorter turns: half a minute"
    )
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=list(STUDENTS))
    arguments = parser.parse_args()
    repeats, epochs = (5, 5) if arguments.quick else (9, 20)
    print(turns.head())
    print(f"{repeats} repeats of {epochs} epochs in turns; median [min, max]")
    with tempfile.TemporaryDirectory() as folder, one_thread():
        reached = [compare(Path(folder), name, repeats, epochs) for name in arguments.students]
    print(
        f"\nagainst `{BARRED}`: "
        + (
            "every bar was reached"
            if all(reached)
            else f"{reached.count(False)} of {len(reached)} missed"
        )
    )
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())

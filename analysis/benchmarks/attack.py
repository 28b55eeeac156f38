"""Cost of an attack step above its lower bound.

The bound is one forward and one backward pass to the images of the bare folded network.

Linf ball, one thread, CPU time; floor and steps take turns. `teacher_adversarial` asks a WRN-16-4
(digits: a small CNN of width 32) too, and its floor has both networks. `live network` is the
cross-entropy by autograd through the network itself in eval mode: the difference is what folding,
unrolling and the closed-form gradient gain.

    python analysis/benchmarks/attack.py [--quick] [--students small_cnn mlp resnet18 mobilenet_v2]
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
import turns
from torch import nn
from turns import spread

from rkdsearch import models
from rkdsearch.attacks import Attack, AttackObjective, Linf, Noise
from rkdsearch.losses import cross_entropy
from rkdsearch.methods import Step, Student, Teacher, inner
from rkdsearch.models import ModelConfig
from rkdsearch.task import ImageTask

STEPS = 10
DIGITS = {"name": "small_cnn", "width": 32}
COLOUR = {"name": "wide_resnet", "depth": 16, "width": 4}
# Each entry: the student, the teacher, and the shape of the images.
STUDENTS: Mapping[str, tuple[dict[str, object], dict[str, object], tuple[int, int, int, int]]] = {
    "small_cnn": ({"name": "small_cnn", "width": 8}, DIGITS, (128, 1, 8, 8)),
    "mlp": ({"name": "mlp"}, DIGITS, (128, 1, 8, 8)),
    "resnet18": ({"name": "resnet18"}, COLOUR, (16, 3, 32, 32)),
    "mobilenet_v2": ({"name": "mobilenet_v2"}, COLOUR, (16, 3, 32, 32)),
}


def built(settings: Mapping[str, object], shape: tuple[int, int, int, int]) -> nn.Module:
    """Fresh weights, channels last, with BatchNorm statistics that are not those of its birth."""
    torch.manual_seed(0)
    network = models.build(ModelConfig.model_validate(settings), ImageTask(10, *shape[1:]))
    with torch.no_grad():
        network(torch.rand(shape))
    return network.to(memory_format=torch.channels_last)


def step_of(
    student: nn.Module, teacher: nn.Module, shape: tuple[int, int, int, int], attack: Attack
) -> Step:
    """A batch as a training run hands it to a method."""
    generator = torch.Generator().manual_seed(0)
    return Step(
        x=torch.rand(shape, generator=generator).contiguous(memory_format=torch.channels_last),
        y=torch.randint(10, shape[:1], generator=generator),
        student=Student(student, models.inference_copy(student)),
        teachers={"robust": Teacher(teacher)},
        companions={},
        attack=attack,
        noise=Noise(generator),
        epoch=0,
        epochs=1,
        lr_factor=1.0,
        batch_size=shape[0],
        memory={},
    )


def bare_gradient(network: nn.Module, x: torch.Tensor) -> models.Gradient:
    """A forward and a backward to the images, of a slope that is known before."""
    slope = torch.full((len(x), 10), 0.1)

    def by_autograd(x: torch.Tensor) -> torch.Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(network(x), x, slope)[0]

    return models.closed_form_gradient(network, lambda _: slope, x) or by_autograd


def microseconds(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    started = time.process_time()
    work()
    return (time.process_time() - started) * 1e6


def compare(name: str, repeats: int) -> None:
    """Measure one student in turns and print it."""
    settings, teacher_settings, shape = STUDENTS[name]
    student = built(settings, shape)
    teacher = models.fold(built(teacher_settings, shape).requires_grad_(False))
    folded, live = models.fold(student), copy.deepcopy(student).eval()
    attack = Attack(Linf(8 / 255), STEPS, 2 / 255, "none")
    step = step_of(student.train(), teacher, shape, attack)
    bare = {network: bare_gradient(network, step.x) for network in (folded, teacher)}

    def floor(*networks: nn.Module) -> None:
        for _ in range(STEPS):
            for network in networks:
                bare[network](step.x)

    with step.attacking():
        problems: dict[str, AttackObjective] = {
            name: problem(step) for name, problem in inner.PROBLEMS.items()
        }
        problems["live network"] = lambda x: cross_entropy(live(x), step.y)
        sides: dict[str, Callable[[], object]] = {
            "student": partial(floor, folded),
            "and teacher": partial(floor, folded, teacher),
        }
        sides |= {
            problem: partial(attack.maximize, objective, step.x, step.noise)
            for problem, objective in problems.items()
        }
        times: dict[str, list[float]] = {side: [] for side in sides}
        for repeat in range(repeats + 1):
            for side, work in sides.items():
                taken = microseconds(work) / STEPS
                if repeat:  # the first turn touches memory and chooses kernels
                    times[side].append(taken)
    print(
        f"\n{name}, images {shape}: floor {spread(times['student'], 0)} us, with the teacher's"
        f" {spread(times['and teacher'], 0)} us"
    )
    for problem in problems:
        bound = times["and teacher" if problem == "teacher_adversarial" else "student"]
        above = statistics.median(a - b for a, b in zip(times[problem], bound, strict=True))
        ratio = statistics.median(a / b for a, b in zip(times[problem], bound, strict=True))
        print(
            f"  {problem:20} {spread(times[problem], 0)} us   {above:+8,.0f} us above its floor  "
            f" x{ratio:.2f}",
            flush=True,
        )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer repeats: a minute")
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=list(STUDENTS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(turns.head())
    print(f"CPU time of one of {STEPS} steps, in turns; median [min, max]")
    for name in arguments.students:
        small = STUDENTS[name][2][-1] < 16
        compare(name, (30 if small else 2) if arguments.quick else (200 if small else 9))
    return 0


if __name__ == "__main__":
    sys.exit(main())

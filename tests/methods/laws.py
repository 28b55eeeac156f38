"""The bench for the laws of every method: tiny networks, 8x8 images, three classes, BatchNorm."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

import annotated_types
import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from rkdsearch.attacks import Attack, Linf, Noise, Projection
from rkdsearch.methods import Loss, Method, Precision, Step, Student, Teacher
from rkdsearch.methods.base.conditional import condition
from rkdsearch.models import Classifier, Features
from rkdsearch.training.all_gather import gather_rows

EPS = 0.1
CLASSES = 3


class TinyNet(Classifier):
    """Two convolutions and a linear layer; as many penultimate features as `width`."""

    def __init__(self, width: int, *, batchnorm: bool = True) -> None:
        super().__init__()
        self.conv1, self.conv2 = (
            nn.Conv2d(1, 4, 3, padding=1),
            nn.Conv2d(4, width, 3, stride=2, padding=1),
        )
        self.bn1: nn.Module = nn.BatchNorm2d(4) if batchnorm else nn.Identity()
        self.bn2: nn.Module = nn.BatchNorm2d(width) if batchnorm else nn.Identity()
        self.linear = nn.Linear(width, CLASSES)

    @override
    def features(self, x: Tensor) -> Features:
        first = functional.relu(self.bn1(self.conv1(x)))
        second = functional.relu(self.bn2(self.conv2(first)))
        pooled = second.mean(dim=(2, 3))
        stages = {
            "stage1": first,
            "stage2": functional.avg_pool2d(first, 2),
            "stage3": second,
            "stage4": functional.avg_pool2d(second, 2),
        }
        return Features(self.linear(pooled), stages | {"penultimate": pooled})


def bfloat16() -> AbstractContextManager[None]:
    """Half precision as in the trainer: autocast around each forward, and nowhere else."""
    return torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False)


@dataclass(frozen=True)
class Recording(Attack):
    """An attack that keeps every projected batch, and the batch around which it was projected."""

    seen: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @override
    def projection_around(self, x: Tensor) -> Projection:
        project = super().projection_around(x)

        def recorded(x_adv: Tensor) -> Tensor:
            found = project(x_adv)
            self.seen.append((found.clone(), x))  # the next step may write over it
            return found

        return recorded


class Bench:
    """A batch, a student, and the method's teachers and companions, all drawn with `seed`."""

    def __init__(
        self,
        method: Method,
        *,
        n: int = 6,
        steps: int = 2,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        batchnorm: bool = True,
        precision: Precision = nullcontext,
    ) -> None:
        torch.manual_seed(seed)
        self.method, self.precision = method, precision
        self.student = TinyNet(6, batchnorm=batchnorm).to(dtype)
        self.teachers = {
            name: TinyNet(9, batchnorm=batchnorm).to(dtype).eval().requires_grad_(False)
            for name in method.teachers()
        }
        image = torch.rand(1, 1, 8, 8, dtype=dtype)
        asked = method.companions(self.student, dict(self.teachers), image)
        self.companions = {name: companion.module.to(dtype) for name, companion in asked.items()}
        self.x, self.y = torch.rand(n, 1, 8, 8, dtype=dtype), torch.arange(n) % CLASSES
        # Teachers that know something: the true class leads on most images, as it does for those
        # that are worth distilling.
        for teacher in self.teachers.values():
            teacher.linear.weight.data.mul_(4)
        start = method.attack_defaults.start
        self.attack = Recording(
            Linf(EPS),
            steps=steps,
            step_size=EPS / 4,
            initial="gaussian" if start == "none" else start,
        )
        self.memory: dict[str, Tensor] = {}
        self.noise = Noise(torch.Generator().manual_seed(seed))

    def step(self, **changes: Any) -> Step:
        values: dict[str, Any] = {
            "x": self.x,
            "y": self.y,
            "student": Student(self.student, precision=self.precision),
            "teachers": {
                name: Teacher(network, self.precision) for name, network in self.teachers.items()
            },
            "companions": self.companions,
            "attack": self.attack,
            "noise": self.noise,
            "epoch": 9,  # the last of ten: whatever warms up has warmed up
            "epochs": 10,
            "lr_factor": 1.0,
            "batch_size": len(self.x),
            "memory": self.memory,
            "batchnorm": self.method.attack_defaults.batchnorm,
        }
        return Step(**(values | changes))

    def loss(self, **changes: Any) -> Loss:
        return self.method.loss(self.step(**changes))

    def trained(self) -> dict[str, nn.Parameter]:
        """The student's parameters and the companions', by name."""
        modules = {"student": self.student} | self.companions
        return {
            f"{owner}.{name}": p
            for owner, module in modules.items()
            for name, p in module.named_parameters()
            if p.requires_grad
        }

    def share(self, rank: int, processes: int) -> dict[str, Any]:
        """Changes to `step` for one of several processes: its rows and its slice of the noise."""
        mine = slice(rank * len(self.x) // processes, (rank + 1) * len(self.x) // processes)
        noise = Noise(self.noise.generator, rank, processes)
        return {
            "x": self.x[mine],
            "y": self.y[mine],
            "noise": noise,
            "batch_size": len(self.x),
            "gather": gather_rows,
        }

    def learn(self, steps: int, lr: float = 0.02) -> list[float]:
        """The losses before each of `steps` steps on this batch, with equal attack noise."""
        optimizer = torch.optim.Adam(self.trained().values(), lr=lr)
        values = []
        for _ in range(steps):
            self.noise.generator.manual_seed(0)
            loss = self.loss().total
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            values.append(loss.item())
        return values


def settings(method: type[Method]) -> Iterator[dict[str, Any]]:
    """The defaults, then every other choice of every categorical field."""
    yield {}
    for name, info in method.model_fields.items():
        where = _where(method, name)
        for value in _choices(info.annotation):
            if value != info.default or where:
                yield where | {name: value}


def ends(method: type[Method]) -> Iterator[dict[str, Any]]:
    """Both ends of every bounded field; an end that is excluded is approached to a thousandth."""
    for name, info in method.model_fields.items():
        where = _where(method, name)
        for law in info.metadata:
            match law:
                case annotated_types.Ge(ge=end) | annotated_types.Le(le=end):
                    yield where | {name: end}
                case annotated_types.Gt(gt=end):
                    yield where | {name: end + 1e-3}  # type: ignore[operator]  # our bounds are numbers
                case annotated_types.Lt(lt=end):
                    yield where | {name: end - 1e-3}  # type: ignore[operator]


def _where(method: type[Method], name: str) -> dict[str, Any]:
    """The setting in which a conditional field is used."""
    when = condition(method.model_fields[name])
    return {} if when is None else {when.of: next(iter(when.defaults))}


def _choices(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


@contextmanager
def interrupted(network: nn.Module) -> Iterator[None]:
    """The network fails at its first call in eval mode, that is: inside the attack."""

    def fail(module: nn.Module, _: object) -> None:
        if not module.training:
            raise InterruptedError

    handle = network.register_forward_pre_hook(fail)
    try:
        yield
    finally:
        handle.remove()


def batches_tracked(network: nn.Module) -> int:
    """Number of batches that have moved this network's BatchNorm statistics."""
    return int(network.get_buffer("bn1.num_batches_tracked"))

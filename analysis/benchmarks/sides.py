"""The two sides of `step.py`: a published script's step and ours, over the same workload."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import published
import torch
from torch import Tensor, nn
from typing_extensions import override

from rkdsearch import config, models
from rkdsearch.attacks import Noise
from rkdsearch.config import TrainConfig
from rkdsearch.data import Batch
from rkdsearch.task import ImageTask
from rkdsearch.training.objective import TrainingObjective
from rkdsearch.training.optimizers import build_optimizers
from rkdsearch.training.precision import forward_context

CLIMBS = {"backward": published.by_backward, "images": published.by_images_alone}
Layout = Literal["contiguous", "channels last", "transposed"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


@dataclass(frozen=True)
class Workload:
    """Input of both sides: a method on a student, for `batch` images of `size` x `size`."""

    method: str
    student: Mapping[str, object]
    teacher: Mapping[str, object] = field(
        default_factory=lambda: {"name": "wide_resnet", "depth": 16, "width": 4}
    )
    batch: int = 128
    size: int = 32
    steps: int = 10
    precision: str = "fp32"
    device: str = "cpu"
    channels_last: bool = True  # on our side
    compiled: bool = False  # on our side

    def config(self) -> TrainConfig:
        """The run that a user would describe. One epoch: IAD is past its warm-up."""
        values = {
            "method": {"name": self.method},
            "student": dict(self.student),
            "teachers.robust": {"network": dict(self.teacher), "path": "given"},
            "attack": {"eps": 8 / 255, "steps": self.steps, "relative_step_size": 0.25},
            "training": {
                "epochs": 1,
                "batch_size": self.batch,
                "precision": self.precision,
                "channels_last": self.channels_last,
                "compile": self.compiled,
                "device": "cpu" if self.device == "cpu" else "auto",
            },
        }
        return config.build(values)

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """Student and teacher with the same fresh weights on every side.

        The teacher's BatchNorm statistics are not the initial ones.
        """
        torch.manual_seed(0)
        described = self.config()
        assert described.teachers.robust is not None
        task = ImageTask(classes=10, channels=3, height=self.size, width=self.size)
        student = models.build(described.student, task).to(self.dtype)
        teacher = models.build(described.teachers.robust.network, task).to(self.dtype)
        with torch.no_grad():
            for network in (student, teacher):
                network.train()(torch.rand(16, 3, self.size, self.size, dtype=self.dtype))
        return student.to(self.device), teacher.to(self.device).eval()

    def images(self) -> tuple[Tensor, Tensor]:
        """x (N, 3, H, W) pixels of [0, 1], and y (N,)."""
        generator = torch.Generator().manual_seed(1)
        x = torch.rand(self.batch, 3, self.size, self.size, generator=generator, dtype=self.dtype)
        y = torch.randint(10, (self.batch,), generator=generator)
        return x.to(self.device), y.to(self.device)

    def generator(self) -> torch.Generator:
        """Random numbers of a step: the same at every call."""
        return torch.Generator(device=self.device).manual_seed(2)

    @property
    def dtype(self) -> torch.dtype:
        """Of pixels and weights."""
        return torch.float64 if self.precision == "fp64" else torch.float32


class Transposed(nn.Module):
    """The same function by other sums.

    Images are transposed, and so is every kernel of the network, in place.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        with torch.no_grad():
            for layer in network.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.weight.copy_(layer.weight.mT.clone())

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K)."""
        logits: Tensor = self.network(x.mT.contiguous())
        return logits


class Published:
    """The script's side, as it was published or in another layout."""

    def __init__(self, work: Workload, climb: str, layout: Layout = "contiguous") -> None:
        self.student, teacher = work.networks()
        self._x, self._y = work.images()
        if layout == "channels last":
            for network in (self.student, teacher):
                network.to(memory_format=torch.channels_last)
            self._x = self._x.contiguous(memory_format=torch.channels_last)
        called: tuple[nn.Module, nn.Module] = self.student, teacher
        if layout == "transposed":
            called = Transposed(self.student), Transposed(teacher).eval()
        described, attack = work.config().optimizer, work.config().attack.build()
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD(
            self.student.parameters(),
            lr=described.lr,
            momentum=described.momentum,
            weight_decay=described.weight_decay,
        )
        self._script = published.Script(
            *called, self.optimizer, CLIMBS[climb], attack.ball.eps, attack.step_size, attack.steps
        )
        self._step, self._work = published.STEPS[work.method], work

    def step(self) -> Tensor:
        """One step from the same random numbers; its loss."""
        return self._run(self._script)

    def warm_up(self) -> None:
        """A step with one attack iteration: memory is touched, kernels are chosen."""
        self._run(replace(self._script, steps=1))

    def _run(self, script: published.Script) -> Tensor:
        # In half precision as its users would: the whole step under autocast.
        with forward_context(self._work.precision, self._x.device)():
            return self._step(script, self._x, self._y, self._work.generator())


class Ours:
    """The library's side."""

    def __init__(self, work: Workload) -> None:
        self.student, teacher = work.networks()
        described = work.config()
        layout = torch.channels_last if work.channels_last else torch.contiguous_format
        self.student.to(memory_format=layout)
        teacher = models.fold(teacher.requires_grad_(False)).to(memory_format=layout)
        self._objective = TrainingObjective(
            described, self.student, {}, {"robust": teacher}, 1
        ).train()
        self.optimizer = build_optimizers(described.optimizer, self.student, {})[0]
        x, y = work.images()
        self._batch = Batch(
            x.contiguous(memory_format=layout), y, torch.arange(len(y), device=x.device)
        )
        self._work = work

    def step(self) -> Tensor:
        """One step from the same random numbers; its loss."""
        self.optimizer.zero_grad(set_to_none=True)
        noise = Noise(self._work.generator())
        total: Tensor
        total, _ = self._objective(self._batch, noise, epoch=0, lr_factor=1.0, teacher_logits={})
        total.backward()  # type: ignore[no-untyped-call]  # torch's own
        self.optimizer.step()
        return total.detach()

    def warm_up(self) -> None:
        """A step with one attack iteration: allocates memory, chooses kernels, builds copies."""
        attack = self._objective.attack
        self._objective.attack = replace(attack, steps=1)
        self.step()
        self._objective.attack = attack

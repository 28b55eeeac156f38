"""A method's arithmetic against literal logits: values to 1e-9, gradients to 1e-8.

`tests/golden/NAME.json` holds logits of the student `S`, the robust teacher `T` and the natural
teacher `N` on clean, adversarial and mirrored images (`S_nat`, `T_adv`, `S_minus`; `FS_adv` are
features), and for each variant the loss and its gradient with respect to them.

    golden = Oracle.load("iad1")
    golden.check("official_tau1", IAD(parity="official"), epoch=60)

An "image" is two pixels: which view it is (clean 0, adversarial 1, mirrored 2x - x' = -1), and
which sample.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from rkdsearch.attacks import Attack, Linf, Noise, Projection
from rkdsearch.methods import Loss, Method, Step, Student, Teacher
from rkdsearch.models import Features

GOLDEN = Path(__file__).parents[1] / "golden"
VIEWS = {0: "nat", 1: "adv", -1: "minus"}


class Answers(nn.Module):
    """The network `prefix` (`S`, `T`, `N`).

    Its logits are the leaves `S_nat`, `S_adv`, ..., or NaN.
    """

    def __init__(self, prefix: str, leaves: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.prefix, self.leaves = prefix, leaves

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.look_up(self.prefix, x)

    def features(self, x: Tensor) -> Features:
        """Logits, and the leaves `FS_...` as the penultimate stage."""
        return Features(
            self.look_up(self.prefix, x), {"penultimate": self.look_up("F" + self.prefix, x)}
        )

    def look_up(self, prefix: str, x: Tensor) -> Tensor:
        """One row for each image, by its view and its sample."""
        views, samples = x.detach()[:, 0, 0].round().long().unbind(dim=1)
        unknown = torch.full_like(next(iter(self.leaves.values())), torch.nan)
        rows = [
            self.leaves.get(f"{prefix}_{VIEWS[v]}", unknown)[i]
            for v, i in zip(views.tolist(), samples.tolist(), strict=True)
        ]
        # a path to the image, whose gradient is zero
        return torch.stack(rows) + 0 * x.sum(dim=(1, 2, 3))[:, None]


@dataclass(frozen=True)
class Found(Attack):
    """An attack whose start is x' already, whatever the objective."""

    @override
    def start(self, x: Tensor, noise: Noise) -> Tensor:
        x_adv = x.detach().clone()
        x_adv[:, 0, 0, 0] = 1
        return x_adv

    @override
    def projection_around(self, x: Tensor) -> Projection:
        return lambda x_adv: x_adv  # these images are positions in a table, not pixels


@dataclass(frozen=True)
class OracleStep(Step):
    """A step whose networks' features are literal too."""

    @override
    def features(self, network: Any, x: Tensor) -> Features:
        answers = network.network if isinstance(network, Student | Teacher) else network
        assert isinstance(answers, Answers)
        return answers.features(x)


@dataclass(frozen=True)
class Oracle:
    """Literal inputs, and the expected loss and gradients of each variant."""

    y: Tensor
    leaves: dict[str, Tensor]
    variants: dict[str, Any]
    content: dict[str, Any] = field(repr=False)

    @staticmethod
    def load(name: str) -> "Oracle":
        content = json.loads((GOLDEN / f"{name}.json").read_text())
        inputs = dict(content["inputs"])
        y = torch.tensor(inputs.pop("y", [0, 0, 0, 0]))
        # Teachers' answers ask for gradients as well: a method that lets one through is caught.
        leaves = {
            name: torch.tensor(rows, dtype=torch.float64, requires_grad=True)
            for name, rows in inputs.items()
        }
        return Oracle(y, leaves, content["variants"], content)

    def network(self, prefix: str) -> Answers:
        return Answers(prefix, self.leaves)

    def second(self) -> "Oracle":
        """The second optimisation step: `S_adv2` takes the place of `S_adv`."""
        return Oracle(
            self.y,
            self.leaves | {k[:-1]: v for k, v in self.leaves.items() if k.endswith("2")},
            self.variants,
            self.content,
        )

    def step(self, *, epoch: int = 0, epochs: int = 100, **changes: Any) -> OracleStep:
        """The batch. `changes` replace fields of `Step`: memory, companions, lr_factor, ..."""
        n = len(self.y)
        samples = torch.arange(n, dtype=torch.float64)
        values: dict[str, Any] = {
            "x": (
                torch.stack([torch.zeros(n, dtype=torch.float64), samples], dim=1).view(n, 1, 1, 2)
            ),
            "y": self.y,
            "student": Student(self.network("S")),
            "teachers": {
                "robust": Teacher(self.network("T")),
                "natural": Teacher(self.network("N")),
            },
            "companions": {},
            "attack": Found(Linf(1.0), steps=0, step_size=1.0),
            "noise": Noise(torch.Generator().manual_seed(0)),
            "epoch": epoch,
            "epochs": epochs,
            "lr_factor": 1.0,
            "batch_size": n,
            "memory": {},
        }
        return OracleStep(**(values | changes))

    def check(
        self, variant: str, method: Method, *, epoch: int = 0, epochs: int = 100, **changes: Any
    ) -> Loss:
        """Assert the variant's loss and gradients; return the loss. `changes` as in `step`."""
        loss = method.loss(self.step(epoch=epoch, epochs=epochs, **changes))
        expected = self.variants[variant]
        assert abs(loss.total.item() - expected["loss"]) < 1e-9, (
            f"{variant}: loss {loss.total.item()}, expected {expected['loss']}"
        )
        self.check_gradients(loss.total, expected["grad"])
        return loss

    def check_gradients(self, total: Tensor, expected: Mapping[str, Any]) -> None:
        """d(total)/d(leaf) for every leaf; a leaf that is not listed, or null, gets none."""
        names = [name for name in self.leaves if not name.endswith("2")]
        gradients = torch.autograd.grad(
            total, [self.leaves[name] for name in names], materialize_grads=True
        )
        for name, gradient in zip(names, gradients, strict=True):
            wanted = torch.zeros_like(self.leaves[name])
            if expected.get(name) is not None:
                wanted = torch.tensor(expected[name], dtype=torch.float64)
            error = (gradient - wanted).abs().max().item()
            assert error < 1e-8, (
                f"gradient with respect to {name} is off by"
                f" {error:.3g}:\n{gradient}\nexpected\n{wanted}"
            )

"""Check before the first epoch: from x itself, the training attack must have somewhere to go.

An inner problem that compares the student at x' with itself at x has its minimum at x, and gradient
0 there: from `attack.start: none` no image would ever move. `Method.flat_at_x` says so for methods
that know it; this check finds it for any method, on a few images.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import override

from rkdsearch import data
from rkdsearch.attacks import Attack, Noise
from rkdsearch.config import TrainConfig
from rkdsearch.config.attack import flat_start
from rkdsearch.errors import ConfigError
from rkdsearch.methods import name_of
from rkdsearch.training.objective import TrainingObjective
from rkdsearch.training.precision import WEIGHT_DTYPES

IMAGES = 16
FLAT = 0.01  # gradient at x over gradient beside x: rounding gives 1e-4, a slope about 1


class Seen(Exception):  # noqa: N818 - ends a probe, and is no error
    """Both gradients are known."""


@dataclass(frozen=True)
class Probe(Attack):
    """The first step of an attack from x, and a gradient beside x; then it raises `Seen`.

    Keeps the largest component of each image's gradient, (N,) at x and (N,) beside it.
    """

    gradients: list[Tensor] = field(default_factory=list)

    @property
    def flat(self) -> bool:
        """True where the gradient at x is 0 on all images, and beside x it is not."""
        if len(self.gradients) < 2:
            return False  # the method made no attack
        at_x, beside = self.gradients
        return bool((beside > 0).any()) and bool((at_x <= FLAT * beside).all())

    @override
    def ascend(self, x_adv: Tensor, gradient: Tensor) -> Tensor:
        self.gradients.append(gradient.detach().flatten(1).abs().amax(dim=1))
        if len(self.gradients) == 2:
            raise Seen
        generator = torch.Generator(device=x_adv.device).manual_seed(0)
        noise = torch.rand(x_adv.shape, generator=generator, device=x_adv.device, dtype=x_adv.dtype)
        return x_adv.add_(self.ball.random_perturbation(2 * noise - 1))


def probe_start(config: TrainConfig, objective: TrainingObjective, splits: data.Splits) -> None:
    """Raise ConfigError where the attack begins at x and its gradient there is 0.

    It costs two attack steps of a few images, and only where `attack.start` is `none`. Weights,
    BatchNorm statistics and the method's memory are left as they are.
    """
    if config.attack.start != "none" or config.attack.steps == 0 or not config.method.attacks:
        return
    device, training = next(objective.parameters()).device, config.training
    rows = torch.arange(min(IMAGES, len(splits.train)))
    x, y = splits.train.floats(rows, device=device, dtype=WEIGHT_DTYPES[training.precision])
    batch = data.Batch(data.to_layout(x, channels_last=training.channels_last), y, rows.to(device))
    real = objective.attack
    probe = Probe(real.ball, 2, real.step_size, "none")
    noise = Noise(torch.Generator(device=device).manual_seed(0))
    with _left_as_it_is(objective):
        objective.attack = probe
        with suppress(Seen):
            objective(batch, noise, epoch=0, lr_factor=1.0, teacher_logits={})
    if probe.flat:
        raise ConfigError(flat_start(name_of(config.method)))


@contextmanager
def _left_as_it_is(objective: TrainingObjective) -> Iterator[None]:
    """Restore the attack, the mode, buffers, the method's memory and random numbers afterwards."""
    attack, training, memory = objective.attack, objective.training, dict(objective.memory)
    buffers = [(buffer, buffer.clone()) for buffer in objective.buffers()]
    cuda = {b.device for b in objective.parameters() if b.is_cuda}
    try:
        with torch.random.fork_rng(devices=list(cuda)):
            objective.train()
            yield
    finally:
        objective.attack = attack
        objective.train(training)
        objective.memory.clear()
        objective.memory.update(memory)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)

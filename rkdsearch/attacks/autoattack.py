"""AutoAttack, standard (Croce & Hein, ICML 2020, https://arxiv.org/abs/2003.01690).

The four attacks of the published package `pyautoattack`, one after the other, each on the images
that are still right:

    apgd-ce   APGD on the cross-entropy
    apgd-t    APGD on the targeted DLR loss, against each target class in turn
    fab-t     targeted FAB, against each target class in turn
    square    Square, 5000 queries

Departures from the package's own loop, which serves ten classes or more and one whole run:

- Targets are the min(9, K - 1) strongest other classes. The package asks for nine and fails.
- The targeted DLR loss needs four classes. With three or two, the margin z_target - z_y takes its
  place: its direction does not see the scale of the logits either.
- An image's random numbers do not depend on its batch: APGD starts from `ImageNoise`; in Square all
  images have the same numbers. So a subset, a shard and a resumed run agree.
- It is cut into parts, one per attack and target, that are run and recorded one by one.

The package's warnings about the network are returned as texts.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import torch
from torch import Tensor, nn
from typing_extensions import override

from rkdsearch.attacks.balls import Ball
from rkdsearch.attacks.image_noise import ImageNoise
from rkdsearch.errors import ConfigError

Name = Literal["apgd-ce", "apgd-t", "fab-t", "square"]

MOST_TARGETS = 9
DLR_CLASSES = 4  # the targeted DLR loss ranks four logits
STEPS, QUERIES = 100, 5000
_LEAST_SIDE = 5  # pixels: Square's L2 start cuts an image into 5 x 5 tiles


@dataclass(frozen=True)
class Part:
    """A part of AutoAttack: one attack, against one target where it is targeted."""

    attack: Name
    target: int | None = None  # rank among the other classes on x, from 1; None: untargeted


def parts(classes: int) -> tuple[Part, ...]:
    """The parts for networks with `classes` logits, in their order."""
    ranks = range(1, min(MOST_TARGETS, classes - 1) + 1)
    return (
        Part("apgd-ce"),
        *(Part("apgd-t", rank) for rank in ranks),
        *(Part("fab-t", rank) for rank in ranks),
        Part("square"),
    )


def targeted_loss(classes: int) -> str:
    """Loss of `apgd-t`, in words."""
    return "DLR" if classes >= DLR_CLASSES else "margin, because DLR needs 4 classes"


@dataclass(frozen=True)
class AutoAttack:
    """AutoAttack in a ball. Fewer `steps` and `queries` than the standard's are for tests."""

    ball: Ball
    seed: int = 0
    steps: int = STEPS
    queries: int = QUERIES

    def attacked(self, network: nn.Module, part: Part, x: Tensor, y: Tensor) -> Tensor:
        """x' of one part, detached, for images that `network` classifies rightly.

        `network` is in eval mode, frozen, and gives logits (N, K); x (N, C, H, W) pixels of [0, 1].
        Raises ConfigError where the package has no attack for this ball, or these pixels.
        """
        norm = self.ball.autoattack
        if norm is None:
            raise ConfigError(
                f"AutoAttack has no {self.ball.title} ball; choose other attacks with --attacks, or"
                " another norm"
            )
        if norm == "L2" and min(x.shape[2:]) < _LEAST_SIDE:
            raise ConfigError(
                f"Square in an L2 ball needs images of {_LEAST_SIDE} pixels a side, got"
                f" {x.shape[2]} x {x.shape[3]}; choose other attacks with --attacks, or norm linf"
            )
        if norm == "L2" and not square_covers(*x.shape[2:]):
            raise ConfigError(
                f"Square in an L2 ball cannot tile images of {x.shape[2]} x {x.shape[3]} pixels;"
                " choose other attacks with --attacks, or norm linf, or train on images of another"
                " size"
            )
        network = _WithGraph(network)
        x = x.contiguous()  # the package takes views of gradients, whose layout is the images'
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            match part.attack:
                case "apgd-ce" | "apgd-t":
                    return self._apgd(network, part, x, y, norm)
                case "fab-t":
                    return self._fab(network, part, x, y, norm)
                case "square":
                    return self._square(network, x, y, norm)
                case _:
                    assert_never(part.attack)

    def _apgd(self, network: nn.Module, part: Part, x: Tensor, y: Tensor, norm: str) -> Tensor:
        from pyautoattack.autopgd_base import APGDAttack_targeted

        class APGD(APGDAttack_targeted):  # type: ignore[misc]  # the package is untyped
            """APGD on the cross-entropy, DLR to a target, or margin to a target."""

            @override
            def dlr_loss_targeted(self, x: Tensor, y: Tensor) -> Tensor:
                if x.shape[1] >= DLR_CLASSES:
                    loss: Tensor = super().dlr_loss_targeted(x, y)
                    return loss
                rows = torch.arange(len(x))
                return x[rows, self.y_target] - x[rows, y]

        attack = APGD(
            network, n_iter=self.steps, eps=self.ball.eps, norm=norm, seed=self.seed,
            device=x.device, logger=_logger(),
        )  # fmt: skip
        attack.init_hyperparam(x)
        if part.target is None:
            attack.loss = "ce"
        else:
            with torch.no_grad():
                attack.y_target = _ranked(network(x), part.target)
        noise = ImageNoise((self.seed, part.attack, part.target or 0))
        direction = noise.uniform(x) if norm == "Linf" else noise.normal(x)
        start = x + self.ball.eps * attack.normalize(direction)
        x_adv: Tensor = attack.attack_single_run(x, y, x_init=start)[3]
        return x_adv.detach()

    def _fab(self, network: nn.Module, part: Part, x: Tensor, y: Tensor, norm: str) -> Tensor:
        from pyautoattack.fab_pt import FABAttack_PT

        assert part.target is not None
        attack = FABAttack_PT(
            network, n_iter=self.steps, eps=self.ball.eps, norm=norm, seed=self.seed,
            targeted=True, device=x.device,
        )  # fmt: skip
        attack.target_class = part.target + 1  # the package counts the label's class too
        found: Tensor = attack.attack_single_run(x, y, is_targeted=True)
        # FAB looks for the nearest error, which may lie outside the ball.
        flat = (found - x).flatten(1)
        distance = flat.abs().amax(dim=1) if norm == "Linf" else flat.norm(dim=1)
        return torch.where((distance <= self.ball.eps)[:, None, None, None], found, x).detach()

    def _square(self, network: nn.Module, x: Tensor, y: Tensor, norm: str) -> Tensor:
        from pyautoattack.square import SquareAttack

        class Square(SquareAttack):  # type: ignore[misc]  # the package is untyped
            """Square whose random numbers are the same for all images of a batch."""

            @override
            def random_choice(self, shape: Any) -> Tensor:
                one = shape if len(shape) < 4 else (1, *shape[1:])
                drawn: Tensor = super().random_choice(one)
                return drawn.expand(*shape)

        attack = Square(
            network, n_queries=self.queries, eps=self.ball.eps, norm=norm, seed=self.seed,
            device=x.device, resc_schedule=False,
        )  # fmt: skip
        x_adv: Tensor = attack.perturb(x, y)
        return x_adv.detach()


def square_covers(height: int, width: int) -> bool:
    """True where the tiles of the package's L2 start lie inside the image; else it would raise.

    Tiles have a side of a fifth of the height, and begin half of the remainder from the edge.
    """
    side = height // 5
    if side == 0:
        return False
    begin = (height - 5 * side) // 2
    return all(begin + length // side * side <= length or side == 1 for length in (height, width))


def auto_attack(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    ball: Ball,
    seed: int = 0,
    batch_size: int = 250,
    steps: int = STEPS,
    queries: int = QUERIES,
) -> tuple[Tensor, list[str]]:
    """(N,) booleans, right on x and after every part; and the package's warnings.

    `network`, x and y are as for `AutoAttack.attacked`, whose errors it raises.
    """
    attack, right = AutoAttack(ball, seed, steps, queries), []
    with collected_warnings() as found:
        for xs, ys in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True):
            with torch.no_grad():
                logits = network(xs)
            left = logits.argmax(dim=1) == ys
            checks(network, xs, ys)
            for part in parts(logits.shape[1]):
                rows = left.nonzero().squeeze(1)
                if len(rows):
                    x_adv = attack.attacked(network, part, xs[rows], ys[rows])
                    with torch.no_grad():
                        left[rows] = network(x_adv).argmax(dim=1) == ys[rows]
            right.append(left)
    return torch.cat(right), found


def checks(network: nn.Module, x: Tensor, y: Tensor) -> None:
    """The package's checks of the network, which warn inside `collected_warnings`.

    Two evaluations of the same images differ; the outputs look like probabilities; the forward
    pass computes gradients.
    """
    from pyautoattack import checks as package

    package.check_randomized(network, x, y, bs=len(x), logger=_logger())
    package.check_range_output(network, x, logger=_logger())
    package.check_dynamic(network, x, False, logger=_logger())


def _ranked(logits: Tensor, rank: int) -> Tensor:
    """The class at this rank behind the winning one, (N,)."""
    return logits.argsort(dim=1)[:, -(rank + 1)]


def _logger() -> logging.Logger:
    return logging.getLogger("auto-attack")


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collects the package's warnings, from its logger and from `warnings`, and prints none."""
    found: list[str] = []
    logger = _logger()
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(" ".join(record.getMessage().split()))  # type: ignore[method-assign]  # the whole handler
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield found
        found.extend(
            " ".join(str(w.message).split()) for w in caught if issubclass(w.category, UserWarning)
        )
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


class _WithGraph(nn.Module):
    """A network whose outputs always have a graph, are copies, and float32 at least.

    A network that looks up its answers or detaches its input has derivative 0; autograd raises
    there. The package writes over outputs, and Square takes no whole numbers.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @override
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32), copy=True)
        if x.requires_grad and not logits.requires_grad:
            return logits + 0 * x.flatten(1).sum(dim=1, keepdim=True)
        return logits

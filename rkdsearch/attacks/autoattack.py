"""AutoAttack, standard (Croce & Hein, ICML 2020, https://arxiv.org/abs/2003.01690).

By the published package `pyautoattack`: APGD-CE, targeted APGD, targeted FAB and Square, one after
the other on the images that are still right. The package's warnings about the defence (randomised,
probabilities instead of logits, vanishing gradients) are returned as flags.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rkdsearch.attacks.balls import Ball
from rkdsearch.errors import ConfigError


def auto_attack(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    ball: Ball,
    seed: int = 0,
    batch_size: int = 250,
) -> tuple[Tensor, list[str]]:
    """(N,) booleans, right on x and after every attack; and the package's warnings.

    `network` is in eval mode and gives logits (N, K); x (N, C, H, W) pixels of [0, 1]. Raises
    ConfigError where the package has no attack for this ball.
    """
    from pyautoattack import AutoAttack

    if ball.autoattack is None:
        raise ConfigError(
            f"validation.attack.norm: AutoAttack has no {ball.title} ball; evaluate by pgd alone or"
            " choose another norm"
        )

    with _flags() as flags, torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        attack = AutoAttack(
            network,
            norm=ball.autoattack,
            eps=ball.eps,
            seed=seed,
            device=x.device,
            version="standard",
        )
        x_adv, _ = attack.run_standard_evaluation(x, y, batch_size=batch_size)
    with torch.no_grad():
        right = torch.cat(
            [
                _right(network, a, b)
                for a, b in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True)
            ]
        )
        survived = torch.cat(
            [
                _right(network, a, b)
                for a, b in zip(
                    torch.split(x_adv, batch_size), torch.split(y, batch_size), strict=True
                )
            ]
        )
    return right & survived, flags


def _right(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    prediction: Tensor = network(x).argmax(dim=1)
    return prediction == y


@contextmanager
def _flags() -> Iterator[list[str]]:
    """Collects the package's warnings, from its logger and from `warnings`, and prints none."""
    found: list[str] = []
    logger = logging.getLogger("auto-attack")
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

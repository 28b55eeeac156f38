"""Our attacks against implementations that are not ours, image by image.

`foolbox` and `torchattacks` are neither dependencies nor installed by `make`: put them into a
folder (`pip install --no-deps --target FOLDER foolbox eagerpy GitPython gitdb smmap torchattacks`)
and name it in PYTHONPATH. Networks on digits, n validation images, with one CPU thread.

Without random numbers x' itself is compared (largest difference of any pixel): PGD from x. With
random numbers verdicts are: accuracies, and on how many images the two disagree. The draws of both
are others, so that a few images near the edge of what an attack finds may differ.

    python analysis/benchmarks/parity.py [--images 100]
"""

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any

import masked_networks as networks
import sound_networks
import torch
import turns
from torch import Tensor, nn

from rkdsearch.accuracy import attacked_images, correct
from rkdsearch.attacks import L2, Attack, Ball, Linf, MarginAttack
from rkdsearch.attacks.autoattack import AutoAttack, Part, auto_attack

LINF, EUCLIDEAN = Linf(0.1), L2(0.5)
STEPS = 20


def theirs_from_x(network: nn.Module, ball: Ball, x: Tensor, y: Tensor) -> Tensor:
    """x' of foolbox's PGD from x: 20 steps of eps / 4."""
    foolbox: Any = import_module("foolbox")
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    kind = foolbox.attacks.LinfPGD if ball.norm == "linf" else foolbox.attacks.L2PGD
    attack = kind(rel_stepsize=0.25, steps=STEPS, random_start=False)
    found: Tensor = attack(model, x, y, epsilons=ball.eps)[1]
    return found


def same_images(name: str, network: nn.Module, ball: Ball, x: Tensor, y: Tensor) -> str:
    """A line about PGD without random numbers."""
    ours = attacked_images(network, Attack(ball, STEPS, ball.eps / 4, "none"), x, y, seed=0)
    theirs = theirs_from_x(network, ball, x, y)
    away = (ours - theirs).abs().flatten(1).amax(dim=1)
    verdicts = [correct(network, found, y) for found in (ours, theirs)]
    accuracies = " | ".join(f"{float(right.double().mean()):.3f}" for right in verdicts)
    disagree = int((verdicts[0] != verdicts[1]).sum())
    return (
        f"| {name} | PGD-{STEPS} from x, {ball.norm} {ball.eps} | foolbox | {accuracies} |"
        f" {disagree} | {float(away.max()):.1e} ({int((away > 1e-4).sum())} images by over 1e-4) |"
    )


def verdicts(
    name: str,
    title: str,
    package: str,
    network: nn.Module,
    ours: Callable[[], Tensor],
    theirs: Callable[[], Tensor],
    y: Tensor,
) -> str:
    """A line about an attack with random numbers; both give x'."""
    right = [correct(network, found(), y) for found in (ours, theirs)]
    accuracies = " | ".join(f"{float(one.double().mean()):.3f}" for one in right)
    only = [int((right[a] & ~right[b]).sum()) for a, b in ((0, 1), (1, 0))]
    return (
        f"| {name} | {title} | {package} | {accuracies} | {sum(only)} | right under ours alone"
        f" {only[0]}, theirs alone {only[1]} |"
    )


def lines(name: str, network: nn.Module, digits: networks.Digits) -> list[str]:
    """All comparisons on one network."""
    ta: Any = import_module("torchattacks")
    x, y = digits.x, digits.y
    clean = correct(network, x, y)
    x, y = x[clean].contiguous(), y[clean]
    eps = LINF.eps
    ours = AutoAttack(LINF)

    def worst(part: str) -> Tensor:
        """x' of our parts of one attack, one target after the other on what is still right."""
        x_adv = x.clone()
        for target in [None] if part in ("apgd-ce", "square") else range(1, 10):
            left = correct(network, x_adv, y).nonzero().squeeze(1)
            if len(left):
                x_adv[left] = ours.attacked(network, Part(part, target), x[left], y[left])  # type: ignore[arg-type]
        return x_adv

    pairs = {
        "APGD-CE, 100 steps": (
            lambda: worst("apgd-ce"),
            lambda: ta.APGD(network, eps=eps, steps=100, loss="ce")(x, y),
        ),
        "APGD-T, 100 steps": (
            lambda: worst("apgd-t"),
            lambda: ta.APGDT(network, eps=eps, steps=100)(x, y),
        ),
        "FAB-T, 100 steps": (
            lambda: worst("fab-t"),
            lambda: ta.FAB(network, eps=eps, steps=100, multi_targeted=True)(x, y),
        ),
        "Square, 5000 queries": (
            lambda: worst("square"),
            lambda: ta.Square(network, eps=eps, n_queries=5000, resc_schedule=False)(x, y),
        ),
    }
    found = [same_images(name, network, ball, x, y) for ball in (LINF, EUCLIDEAN)]
    found += [
        verdicts(name, f"{title}, linf {eps}", "torchattacks", network, mine, other, y)
        for title, (mine, other) in pairs.items()
    ]
    by_autoattack, _ = auto_attack(network, x, y, ball=LINF)
    theirs = correct(network, ta.AutoAttack(network, eps=eps, n_classes=10)(x, y), y)
    margin = correct(network, attacked_images(network, MarginAttack(LINF, 10), x, y, seed=0), y)
    shares = [float(one.double().mean()) for one in (by_autoattack, theirs, margin)]
    only = int((by_autoattack & ~theirs).sum()), int((theirs & ~by_autoattack).sum())
    found.append(
        f"| {name} | AutoAttack, linf {eps} | torchattacks | {shares[0]:.3f} | {shares[1]:.3f} |"
        f" {sum(only)} | right under ours alone {only[0]}, theirs alone {only[1]}; margin-10:"
        f" {shares[2]:.3f} |"
    )
    return found


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(turns.head())
    print(f"foolbox {version('foolbox')}, torchattacks {version('torchattacks')}\n")
    digits = networks.digits(arguments.images)
    natural = sound_networks.natural(digits)
    torch.manual_seed(0)
    robust = networks.trained(
        sound_networks.small_cnn(digits, 8), digits, epochs=15, ball=networks.LINF
    )
    print("| network | attack | package | ours | theirs | images that differ | |")
    print("|---|---|---|---|---|---|---|")
    for name, network in (("natural", natural), ("robust", robust)):
        for line in lines(name, network, digits):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

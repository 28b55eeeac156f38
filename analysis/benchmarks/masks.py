"""Masks and sound networks: what each attack claims, what is true, and the flags that name a mask.

Networks on digits (`masked_networks.py`), n validation images. Claimed: accuracy under the
validation attack (margin, 10 steps) and under PGD-20 on the cross-entropy. AutoAttack: on the
network itself, on every third image. True, at most: images that stay right under both of these and
under x' made on the network without its mask (margin, 40 steps). Flags are those of the validation
attack; in brackets those that only PGD-20's row raises.

    python analysis/benchmarks/masks.py [--images 150] [--only WORD ...] [--no-autoattack]

Cost: a minute of one CPU core, and ten with AutoAttack, whose Square is slow on networks that hide
their gradient.
"""

import argparse
import sys
import time

import masked_networks as networks
import torch
import turns
from torch import nn

from rkdsearch.accuracy import attacked_images, correct, evaluate_accuracy, evaluate_autoattack
from rkdsearch.attacks import Attack, Ball, MarginAttack
from rkdsearch.flags import check
from rkdsearch.results.flags import raised


def row(
    name: str,
    network: nn.Module,
    unmasked: nn.Module,
    ball: Ball,
    images: networks.Digits,
    *,
    autoattack: bool,
) -> str:
    """One line of the table, Markdown."""
    x, y = images.x, images.y
    margin = MarginAttack(ball, 10)
    pgd = Attack(ball, 20, ball.eps / 4, "uniform_clipped")
    began = time.perf_counter()
    flags, of_pgd = (
        [str(flag) for flag in raised(check(network, x, y, attack).counts)]
        for attack in (margin, pgd)
    )
    seconds = (time.perf_counter() - began) / 2
    claimed, papers = (evaluate_accuracy(network, x, y, attack)[0] for attack in (margin, pgd))
    torch.manual_seed(0)
    transferred = attacked_images(unmasked, MarginAttack(ball, 40), x, y, seed=0)
    true = claimed.robust & papers.robust & correct(network, transferred, y)
    standard = "-"
    if autoattack:
        by_autoattack, _ = evaluate_autoattack(network, x[::3], y[::3], attack=pgd)
        true[::3] &= by_autoattack.robust
        standard = f"{by_autoattack.robust_accuracy:.2f}"
    only = [flag for flag in of_pgd if flag not in flags]
    named = ", ".join(flags) + (f" [{', '.join(only)}]" if only else "")
    return (
        f"| {name} | {claimed.clean_accuracy:.2f} | {claimed.robust_accuracy:.2f} |"
        f" {papers.robust_accuracy:.2f} | {standard} |"
        f" {float(true.double().mean()):.2f} | {named or '-'} | {seconds:.1f} |"
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=150)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of names")
    parser.add_argument("--no-autoattack", action="store_true", help="leave its column out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(turns.head())
    images = networks.digits(arguments.images)
    natural = networks.natural(images)
    masked = networks.masks(natural, images)
    sound = networks.sound(natural, images)
    print(f"n = {len(images.y)}\n")
    print(
        "| network | clean | margin-10 | PGD-20 | AutoAttack | true, at most | flags | check, s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    table: list[tuple[str, nn.Module, nn.Module, Ball]] = [
        (name, network, natural, networks.LINF) for name, network in masked.items()
    ]
    table += [(f"sound: {name}", network, network, ball) for name, (network, ball) in sound.items()]
    for name, network, unmasked, ball in table:
        if any(word in name for word in arguments.only):
            asked = not arguments.no_autoattack
            print(row(name, network, unmasked, ball, images, autoattack=asked), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

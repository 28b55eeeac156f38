"""Masks and sound networks: what each attack claims, what is true, and the flags that name a mask.

Networks on digits (`masked_networks.py`, `cheating_networks.py`, `sound_networks.py`), n validation
images. Claimed: accuracy under the validation attack (margin, 10 steps) and under PGD-20 on the
cross-entropy. AutoAttack, standard: on the network itself, on every third image. True, at most:
images that stay right under all of these and under x' made on the network without its mask (margin,
40 steps). Flags are those of the validation attack; in brackets those that only PGD-20's row
raises. A mask is named, or the validation attack is not misled: it leaves at most 5 points more
than is true.

    python analysis/benchmarks/masks.py [--images 150] [--only WORD ...] [--rows FILE]
        [--no-autoattack]

With `--rows` every finished row is kept in a file, and the same command goes on behind it. Ends
with 1 where a mask passes or a sound network is flagged. Cost: two minutes of one CPU core, and an
hour with AutoAttack, whose Square is slow on networks that hide their gradient.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cheating_networks
import masked_networks as networks
import sound_networks
import torch
import turns
from torch import nn

from rkdsearch.accuracy import attacked_images, correct, evaluate_accuracy
from rkdsearch.attacks import Attack, Ball, MarginAttack
from rkdsearch.attacks.autoattack import auto_attack
from rkdsearch.flags import check
from rkdsearch.results.flags import raised

SLACK = 0.05  # of accuracy: the margin attack of 10 steps leaves so much more on sound networks

HEAD = (
    "| network | clean | margin-10 | PGD-20 | AutoAttack | true, at most | flags | verdict |"
    " check, s |\n|---|---|---|---|---|---|---|---|---|"
)


def row(
    network: nn.Module,
    unmasked: nn.Module,
    ball: Ball,
    images: networks.Digits,
    *,
    autoattack: bool,
) -> dict[str, Any]:
    """Accuracies, flags and seconds of one network."""
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
    standard = None
    if autoattack:
        by_autoattack, _ = auto_attack(network, x[::3], y[::3], ball=ball)
        true[::3] &= by_autoattack
        standard = float(by_autoattack.double().mean())
    return {
        "clean": claimed.clean_accuracy,
        "margin": claimed.robust_accuracy,
        "pgd": papers.robust_accuracy,
        "autoattack": standard,
        "true": float(true.double().mean()),
        "flags": flags,
        "of_pgd": [flag for flag in of_pgd if flag not in flags],
        "seconds": seconds,
    }


def verdict(found: Mapping[str, Any], *, sound: bool) -> str:
    """`named` or `not misled` of a mask, `no flag` of a sound network; else what is wrong."""
    if sound:
        return "FLAGGED" if found["flags"] else "no flag"
    if found["flags"]:
        return "named"
    return "not misled" if found["margin"] <= found["true"] + SLACK else "PASSES"


def line(name: str, found: Mapping[str, Any], said: str) -> str:
    """One line of the table, Markdown."""
    standard = "-" if found["autoattack"] is None else f"{found['autoattack']:.2f}"
    named = ", ".join(found["flags"]) + (
        f" [{', '.join(found['of_pgd'])}]" if found["of_pgd"] else ""
    )
    return (
        f"| {name} | {found['clean']:.2f} | {found['margin']:.2f} | {found['pgd']:.2f} |"
        f" {standard} | {found['true']:.2f} | {named or '-'} | {said} | {found['seconds']:.1f} |"
    )


def read(file: Path | None) -> dict[str, dict[str, Any]]:
    """The finished rows of a file by the names and settings of their networks."""
    if file is None or not file.exists():
        return {}
    lines = [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()]
    return {found.pop("key"): found for found in lines}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=150)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of names")
    parser.add_argument("--no-autoattack", action="store_true", help="leave its column out")
    parser.add_argument("--rows", type=Path, help="file of finished rows, JSON lines")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(turns.head())
    images = networks.digits(arguments.images)
    natural = sound_networks.natural(images)
    masked = {**networks.masks(natural, images), **cheating_networks.cheats(natural, images)}
    sound = sound_networks.sound(natural, images)
    known = read(arguments.rows)
    print(f"n = {len(images.y)}\n\n{HEAD}")
    table: list[tuple[str, nn.Module, nn.Module, Ball]] = [
        (name, network, natural, networks.LINF) for name, network in masked.items()
    ]
    table += [(f"sound: {name}", network, network, ball) for name, (network, ball) in sound.items()]
    wrong = []
    for name, network, unmasked, ball in table:
        if not any(word in name for word in arguments.only):
            continue
        asked = not arguments.no_autoattack
        key = f"{name}, n = {len(images.y)}" + (", AutoAttack" if asked else "")
        if (found := known.get(key)) is None:
            found = row(network, unmasked, ball, images, autoattack=asked)
            if arguments.rows is not None:
                with arguments.rows.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, **found}) + "\n")
        said = verdict(found, sound=name.startswith("sound"))
        wrong += [name] if said.isupper() else []
        print(line(name, found, said), flush=True)
    print(f"\nwrong: {', '.join(wrong) or 'none'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
